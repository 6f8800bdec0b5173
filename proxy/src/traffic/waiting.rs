//! Waiting for a server's place while tables come and go. What waits at a backend that changes is handed a place in the
//! changed one; what waits at one that is deleted, or has no server left for it, goes where its frontend leads now.

use std::sync::Arc;
use std::time::Instant;

use crate::backend::balance::Ask;
use crate::backend::queue::Handed;
use crate::backend::{Backend, InFlight};
use crate::error::Error;
use crate::table::{LiveTable, Route};

/// Takes a backend from a route.
pub(super) type Choose = fn(&Route) -> Option<&Arc<Backend>>;

/// One request's waiting.
pub(super) struct InLine<'a> {
    live: &'a LiveTable,
    route: &'a Route,
    choose: Choose,
    /// When it is over, while it lasts.
    until: Option<Instant>,
}

impl<'a> InLine<'a> {
    /// It did not begin. `choose` is how its backend is taken from its route.
    pub(super) fn new(live: &'a LiveTable, route: &'a Route, choose: Choose) -> InLine<'a> {
        InLine { live, route, choose, until: None }
    }

    /// Waits for a place at `backend`, which becomes what the place is in; `None`: it became another one, where a place
    /// is to be asked for. However often that happens, it is over when the first one's `Wait` is.
    pub(super) async fn wait(
        &mut self,
        stuck: Option<u16>,
        ask: &Ask<'_>,
        backend: &mut Arc<Backend>,
    ) -> Result<Option<(u16, InFlight)>, Error> {
        if let Some(Handed { backend: of, at, place }) = backend.wait(stuck, ask, &mut self.until).await? {
            *backend = of;
            self.until = None;
            return Ok(Some((at, place)));
        }
        // The frontend's id, not its slots: those may be another backend's by now.
        let route = self.live.table().route_again(&self.route.frontend.id);
        *backend = route.as_ref().and_then(self.choose).ok_or(Error::NoServer)?.clone();
        // Whoever goes in circles lets others work.
        tokio::task::yield_now().await;
        Ok(None)
    }
}
