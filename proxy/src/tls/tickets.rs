//! Session tickets: what a client shows to go on with an earlier session, on whichever proxy.
//!
//! Time is cut into epochs; each has a key of its own, made before it begins, so that every proxy knows it when the first
//! seals with it. A ticket is opened as long as its epoch's key is kept: that epoch, the next, and, for clocks that are
//! not alike, the one to come. Forgetting a key is what ends tickets: what was recorded cannot be read later.
//! Not here: how keys reach the other proxies (`control/tickets.rs`).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A point in time, as tickets see it: so many epochs since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// How long one lasts.
    pub const LENGTH: Duration = Duration::from_secs(6 * 3600);

    /// The one at that time.
    pub fn at(time: SystemTime) -> Epoch {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Epoch(since.as_secs() / Epoch::LENGTH.as_secs())
    }

    /// Whether tickets of this one are opened in another.
    pub fn counts_in(self, now: Epoch) -> bool {
        self.0 + 1 >= now.0 && self.0 <= now.0 + 1
    }
}

/// What an epoch's tickets are sealed with.
pub type Secret = Zeroizing<[u8; 32]>;

/// A secret that nobody else has.
pub fn new_secret() -> Option<Secret> {
    let mut secret = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *secret).ok()?;
    Some(secret)
}

/// Seals and opens tickets, with the keys that were last set.
pub struct Tickets {
    keys: ArcSwap<Vec<Key>>,
}

struct Key {
    epoch: Epoch,
    /// In front of each ticket: which key it is for.
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl Key {
    fn new(epoch: Epoch, secret: &Secret) -> Option<Key> {
        let digest = Sha256::new().chain_update(b"etna ticket key name").chain_update(**secret).finalize();
        let mut name = [0; NAME];
        name.copy_from_slice(digest.get(..NAME)?);
        Some(Key { epoch, name, key: RandomizedNonceKey::new(&AES_256_GCM, &**secret).ok()? })
    }
}

impl Tickets {
    /// With a key that nobody else has, until others are set.
    pub fn new(now: Epoch) -> Arc<Tickets> {
        let own = new_secret().and_then(|secret| Key::new(now, &secret));
        Arc::new(Tickets { keys: ArcSwap::from_pointee(own.into_iter().collect()) })
    }

    /// From now on, these and no others count. The newest that has begun seals; without one, none are given out.
    pub fn set<'k>(&self, now: Epoch, secrets: impl Iterator<Item = (Epoch, &'k Secret)>) {
        let counted = secrets.filter(|(epoch, _)| epoch.counts_in(now));
        let mut keys: Vec<Key> = counted.filter_map(|(epoch, secret)| Key::new(epoch, secret)).collect();
        keys.sort_by_key(|key| (key.epoch > now, std::cmp::Reverse(key.epoch)));
        #[expect(clippy::disallowed_methods, reason = "no table: the keys of tickets")]
        self.keys.store(Arc::new(keys));
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.load().len()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // A ticket given out at its epoch's end still has the whole next one.
        u32::try_from(Epoch::LENGTH.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.key.seal_in_place_append_tag(Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name, &nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let keys = self.keys.load();
        // The name is no secret: it stands in every ticket.
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.key.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.count()).finish()
    }
}

const NAME: usize = 16;
const NONCE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tickets(now: u64, secrets: &[(u64, u8)]) -> Arc<Tickets> {
        let tickets = Tickets::new(Epoch(now));
        let secrets: Vec<(Epoch, Secret)> =
            secrets.iter().map(|(epoch, byte)| (Epoch(*epoch), Zeroizing::new([*byte; 32]))).collect();
        tickets.set(Epoch(now), secrets.iter().map(|(epoch, secret)| (*epoch, secret)));
        tickets
    }

    #[test]
    fn a_ticket_of_one_proxy_is_opened_by_another() {
        let (one, other) = (tickets(7, &[(7, 1), (8, 2)]), tickets(7, &[(8, 2), (7, 1), (6, 3)]));
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(other.decrypt(&ticket).unwrap(), b"session");
        assert_ne!(one.encrypt(b"session").unwrap(), ticket, "no two are alike");
        assert_eq!(tickets(7, &[(7, 9)]).decrypt(&ticket), None, "another key");
    }

    #[test]
    fn a_ticket_lives_through_its_epoch_and_the_next() {
        let secrets = [(6, 1), (7, 2), (8, 3), (9, 4)];
        let ticket = tickets(7, &secrets).encrypt(b"session").unwrap();
        assert!(tickets(6, &secrets).decrypt(&ticket).is_some(), "on a clock that is behind");
        assert!(tickets(8, &secrets).decrypt(&ticket).is_some());
        assert!(tickets(9, &secrets).decrypt(&ticket).is_none(), "its key is forgotten");
        assert_eq!(tickets(7, &secrets).count(), 3);
        assert!(tickets(7, &[]).encrypt(b"session").is_none());
    }

    #[test]
    fn what_was_changed_is_no_ticket() {
        let tickets = tickets(7, &[(7, 1)]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "the first {at} bytes");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(tickets(7, &[(7, 1)]).decrypt(&bytes), None);
        }
    }
}
