//! Who is let in: so many connections in all, so many of one client, and no more requests than the worker can keep up
//! with. What is over is answered 503 at once, which costs little; those inside are served as before.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The limits of a process, and what counts against them.
#[derive(Debug)]
pub struct Admission {
    /// Connections in all.
    most: u64,
    /// Connections of one client address; 0: any number.
    most_of_one: u32,
    open: AtomicU64,
    by_client: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// A connection that was let in: counted as long as this value lives.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    /// Where it counts against a client's limit.
    client: Option<IpAddr>,
}

impl Admission {
    /// At most so many connections; `of_one` of 0 means that a client may have any number of them.
    pub fn new(connections: u64, of_one: u32) -> Admission {
        let by_client = std::array::from_fn(|_| Mutex::default());
        Admission { most: connections, most_of_one: of_one, open: AtomicU64::new(0), by_client }
    }

    /// Lets a connection in, or does not. `exempt`: the address stands for many clients.
    pub fn admit(self: &Arc<Admission>, client: IpAddr, exempt: bool) -> Option<Admitted> {
        if self.open.fetch_add(1, Relaxed) >= self.most {
            self.open.fetch_sub(1, Relaxed);
            return None;
        }
        let mut admitted = Admitted { admission: self.clone(), client: None };
        (exempt || admitted.counts_for(client)).then_some(admitted)
    }

    /// Whether connections that do nothing should make room for others.
    pub fn is_crowded(&self) -> bool {
        self.open.load(Relaxed) > self.most / 10 * 8
    }

    /// Connections that may be open at once.
    pub fn most(&self) -> u64 {
        self.most
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        let last = match client {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[7] ^ address.octets()[15],
        };
        &self.by_client[usize::from(last) % SHARDS]
    }
}

impl Admitted {
    /// Counts it for a client from here on, once it is known whose it is; `false`: that one has too many already.
    pub fn counts_for(&mut self, client: IpAddr) -> bool {
        if self.admission.most_of_one == 0 || self.client.is_some() {
            return true;
        }
        let mut counts = self.admission.shard(client).lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= self.admission.most_of_one {
            return false;
        }
        *count += 1;
        drop(counts);
        self.client = Some(client);
        true
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Relaxed);
        let Some(client) = self.client else { return };
        let mut counts = self.admission.shard(client).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&client);
            }
        }
    }
}

/// Which share of requests a worker turns away because it has more to do than it can.
///
/// It goes by the worker's own work between the moment its look at the clock was due and the moment it came: what
/// other processes take from the machine makes a worker late, but not overloaded.
#[derive(Debug, Default)]
pub struct Overload {
    /// In 256ths.
    share: u32,
    /// Work of the looks since the worker last was not behind.
    standing: Duration,
}

impl Overload {
    /// A worker got round to it after so much work of its own. A burst that is soon worked off turns nobody away.
    pub fn behind(&mut self, work: Duration) {
        if work <= MOST_BEHIND {
            self.standing = Duration::ZERO;
            self.share = self.share.saturating_sub(16);
            return;
        }
        self.standing += work;
        if self.share > 0 || self.standing > LONGEST_BURST {
            self.share = (self.share + 32).min(240);
        }
    }

    /// Whether to turn a request away, given a random number.
    pub fn turns_away(&self, random: u64) -> bool {
        self.share > 0 && random & 0xff < u64::from(self.share)
    }

    /// Whether there is any need to draw a random number.
    pub fn is_none(&self) -> bool {
        self.share == 0
    }
}

/// Connections of one process by its limit of open files: some are left for servers, the store and the admin API.
pub fn connections_for(files: u64) -> u64 {
    let reserved = (files / 8).clamp(64, 4096);
    files.saturating_sub(reserved).max(16)
}

const SHARDS: usize = 16;
/// How often a worker looks how far behind it is.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Work that may wait: what comes later would be answered later than anybody wants.
const MOST_BEHIND: Duration = Duration::from_millis(100);
/// Work that may come at once.
const LONGEST_BURST: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn so_many_in_all_and_so_many_of_one() {
        let admission = Arc::new(Admission::new(4, 2));
        let a = [admission.admit(ip(1), false), admission.admit(ip(1), false)];
        assert!(a.iter().all(Option::is_some));
        assert!(admission.admit(ip(1), false).is_none());
        let b = [admission.admit(ip(1), true), admission.admit(ip(2), false)];
        assert!(b.iter().all(Option::is_some));
        assert!(admission.is_crowded());
        assert!(admission.admit(ip(3), false).is_none());
        drop((a, b));
        assert!(!admission.is_crowded());
        assert!(admission.by_client.iter().all(|shard| shard.lock().unwrap().is_empty()));
        assert_eq!(admission.open.load(Relaxed), 0);
    }

    #[test]
    fn whose_it_is_may_turn_out_later() {
        let admission = Arc::new(Admission::new(4, 1));
        let mut admitted = [0; 3].map(|_| admission.admit(ip(1), true).unwrap());
        assert!(admitted[0].counts_for(ip(2)) && !admitted[1].counts_for(ip(2)) && admitted[2].counts_for(ip(3)));
        drop(admitted);
        assert!(admission.admit(ip(2), false).is_some());
    }

    #[test]
    fn overload_rises_and_falls() {
        let mut overload = Overload::default();
        assert!(!overload.turns_away(0));
        overload.behind(LONGEST_BURST);
        overload.behind(Duration::ZERO);
        overload.behind(LONGEST_BURST);
        assert!(overload.is_none(), "bursts");
        (0..20).for_each(|_| overload.behind(Duration::from_secs(1)));
        assert!(overload.turns_away(0) && !overload.turns_away(255), "never all");
        (0..20).for_each(|_| overload.behind(Duration::ZERO));
        assert!(overload.is_none());
    }

    #[test]
    fn files_are_left_for_others() {
        assert_eq!(connections_for(1024), 896);
        assert_eq!(connections_for(20_000), 17_500);
        assert_eq!(connections_for(1_000_000), 995_904);
        assert_eq!(connections_for(10), 16);
    }
}
