//! The keys of TLS tickets: made by whichever proxy is first, sealed, and shared through the store.
//!
//! `tickets/<epoch>` is made once, while the epoch before it runs, under a lease that ends when no ticket of it counts any
//! more. Without a seal key nothing is shared: then a client goes on with a session only on the proxy that it had it with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use etna_store::engine::{Compare, Op, Txn};
use etna_store::seal::Keyring;
use etna_store::{Engine, Error, Model};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::follow::Control;
use crate::tls::tickets::{Epoch, Secret, Tickets, new_secret};

/// What this proxy does for the tickets of all.
#[derive(Default)]
pub(super) struct TicketKeys {
    /// Ours alone, for epochs whose key no store has told.
    own: BTreeMap<Epoch, Secret>,
    /// For which epoch keys were last set.
    set: Option<Epoch>,
    /// Whether the newest key that is stored cannot be opened: whoever made it has another seal key, and others, too.
    /// A key of ours would be of no use to them, but be in the way of theirs.
    foreign: bool,
    making: Option<JoinHandle<Result<(), Error>>>,
    tried: Option<Instant>,
}

impl Control {
    /// Uses the keys that are stored, and makes those that are missing. `changed`: whether some came or went.
    pub(super) async fn keep_tickets(&mut self, changed: bool) {
        if self.state.live.table().certificates.is_empty() {
            return;
        }
        let now = Epoch::at(SystemTime::now());
        let keys = &mut self.ticket_keys;
        if changed || keys.set != Some(now) {
            let ring = self.state.keyring();
            let (stored, closed) = ring.as_deref().map(|ring| stored(&self.state.model(), ring)).unwrap_or_default();
            keys.foreign = closed.is_some_and(|closed| stored.keys().all(|open| *open < closed));
            keys.set(&self.state.tickets, now, stored);
        }
        let Some(keyring) = self.state.keyring() else { return };
        if let Some(making) = keys.making.take_if(|making| making.is_finished())
            && let Ok(Err(error)) = making.await
        {
            tracing::warn!(%error, "cannot share the keys of TLS tickets: sessions go on only on this proxy");
        }
        let missing = [now, Epoch(now.0 + 1)].into_iter().find(|epoch| {
            let name = name(*epoch);
            self.state.model().shared(&name).next().is_none()
        });
        let due = keys.tried.is_none_or(|tried| tried.elapsed() >= BETWEEN);
        if let Some(epoch) =
            missing.filter(|_| due && !keys.foreign && keys.making.is_none() && self.state.store().following)
        {
            keys.tried = Some(Instant::now());
            keys.making = Some(tokio::spawn(make(self.state.engine.clone(), keyring, epoch)));
        }
    }
}

impl TicketKeys {
    fn set(&mut self, tickets: &Tickets, now: Epoch, stored: BTreeMap<Epoch, Secret>) {
        self.set = Some(now);
        self.own.retain(|epoch, _| epoch.counts_in(now));
        if !stored.contains_key(&now) && !self.own.contains_key(&now) {
            self.own.extend(new_secret().map(|secret| (now, secret)));
        }
        // What every proxy has goes before what only we have; tickets given out with ours are still opened.
        let own = self.own.iter().filter(|(epoch, _)| !stored.contains_key(epoch));
        tickets.set(now, stored.iter().chain(own).map(|(epoch, secret)| (*epoch, secret)));
    }
}

/// The keys that the store has, and the newest epoch whose key cannot be opened.
fn stored(model: &Model, keyring: &Keyring) -> (BTreeMap<Epoch, Secret>, Option<Epoch>) {
    let mut closed = None;
    let opened = model.shared(FOLDER).filter_map(|(key, value)| {
        let epoch = Epoch(key.strip_prefix(FOLDER)?.parse().ok()?);
        match keyring.open_bytes(value).ok().and_then(|secret| <[u8; 32]>::try_from(&secret[..]).ok()) {
            Some(secret) => Some((epoch, Zeroizing::new(secret))),
            None => {
                closed = closed.max(Some(epoch));
                tracing::warn!(%key, "the key of TLS tickets cannot be opened: was it sealed with another seal key?");
                None
            }
        }
    });
    let opened = opened.collect();
    (opened, closed)
}

/// Makes an epoch's key, unless another proxy was first.
async fn make(engine: Arc<dyn Engine>, keyring: Arc<Keyring>, epoch: Epoch) -> Result<(), Error> {
    let Some(secret) = new_secret() else { return Ok(()) };
    let Ok(sealed) = keyring.seal_bytes(&*secret) else { return Ok(()) };
    let name = name(epoch);
    let lease = engine.grant(LIFE).await?;
    let txn =
        Txn { compares: vec![Compare::Absent(name.clone())], ops: vec![Op::Put(name, sealed.into(), Some(lease))] };
    match engine.commit(txn).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = engine.revoke(lease).await;
            if matches!(error, Error::Conflict) { Ok(()) } else { Err(error) }
        }
    }
}

fn name(epoch: Epoch) -> String {
    format!("{FOLDER}{}", epoch.0)
}

pub(super) const FOLDER: &str = "tickets/";
/// From its making until its last ticket has ended: the epoch before, its own, and the next.
const LIFE: Duration = Duration::from_secs(4 * Epoch::LENGTH.as_secs());
/// Between attempts to make a key.
const BETWEEN: Duration = Duration::from_secs(5);
