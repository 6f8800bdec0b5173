//! What a worker makes of the terms on which listeners speak TLS: one configuration each, made when its first client comes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use etna_store::object::Id;
use rustls::ServerConfig;

use crate::table::LiveTable;
use crate::tls::terms::Terms;
use crate::tls::tickets::Tickets;

/// The configurations of a worker.
pub(super) struct Configs {
    tickets: Arc<Tickets>,
    /// Of listeners that no table has: those of the command line.
    own: Arc<Terms>,
    made: RefCell<HashMap<Id, Made>>,
}

/// A configuration, and the terms it was made of.
struct Made {
    of: Arc<Terms>,
    config: Arc<ServerConfig>,
}

impl Configs {
    pub(super) fn new(tickets: Arc<Tickets>, own: Arc<Terms>) -> Configs {
        Configs { tickets, own, made: RefCell::default() }
    }

    /// The configuration for a listener's next client: that of its terms in force, which come with it.
    pub(super) fn of(
        &self,
        live: &Arc<LiveTable>,
        listener: &Id,
    ) -> Result<(Arc<ServerConfig>, Arc<Terms>), rustls::Error> {
        let terms = live.terms(listener).unwrap_or_else(|| self.own.clone());
        let mut made = self.made.borrow_mut();
        if let Some(known) = made.get(listener).filter(|known| Arc::ptr_eq(&known.of, &terms)) {
            return Ok((known.config.clone(), terms));
        }
        let config = terms.config(live.clone(), self.tickets.clone())?;
        made.insert(listener.clone(), Made { of: terms.clone(), config: config.clone() });
        Ok((config, terms))
    }

    /// Forgets a listener that is closed.
    pub(super) fn forget(&self, listener: &Id) {
        self.made.borrow_mut().remove(listener);
    }
}
