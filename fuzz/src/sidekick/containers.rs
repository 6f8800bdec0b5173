//! From Docker's JSON of a container to what is written into the store: labels and names come from strangers, and
//! whatever they say, each write is an object that the proxy takes, below keys of ours.

use std::time::Instant;

use etna_sidekick::classify::{Addressing, Decision, Mode, Policy, classify, valid_host, valid_site};
use etna_sidekick::docker::{Container, signal, time};
use etna_sidekick::follow::Tracker;
use etna_sidekick::register::{Held, Machine, plan};
use etna_store::{Key, LeaseId, Op, model};

/// Containers as `docker inspect` shows them, with the byte 0x1e between them.
pub fn check(data: &[u8]) {
    let now = Instant::now();
    let mut tracker = Tracker::new(policy(), None, false);
    for json in data.split(|byte| *byte == 0x1e).take(4) {
        let Ok(container) = serde_json::from_slice::<Container>(json) else { continue };
        let _ = time::nanos(&container.state.started_at);
        let _ = signal::meaning(&container.config.stop_signal, &container.config.stop_signal);
        assert!(container.short_id().len() <= container.id.len().max(12));
        for mode in [Mode::Host, Mode::Container, Mode::Network("web".into())] {
            let mut policy = policy();
            policy.addressing.mode = mode;
            if let Decision::Ours(claim) = classify(&container, &policy) {
                assert!(valid_site(&claim.site), "{:?}", claim.site);
                assert!(
                    !claim.hosts.is_empty() && claim.hosts.iter().all(|host| valid_host(host)),
                    "{:?}",
                    claim.hosts
                );
                assert!(claim.port > 0 && claim.weight <= 256, "{claim:?}");
                assert!(claim.address.is_none_or(|address| address.port() > 0), "{claim:?}");
            }
        }
        tracker.inspected(container, now);
    }
    let machine = Machine::new("0123456789abcdef0123456789abcdef", Some("zone-1".into()));
    for step in plan(&tracker.wanted(), &machine, &Held::default(), LeaseId(1)) {
        assert!(step.txn.ops.len() <= 128);
        for op in step.txn.ops {
            let Op::Put(path, value, lease) = op else { panic!("{op:?} of nothing that is there") };
            let key = Key::parse(path.as_bytes()).unwrap();
            assert!(matches!(key, Key::Site(_) | Key::Backend(_) | Key::Server(..)), "{key}");
            assert_eq!(key.path(), path);
            if let Key::Server(..) = key {
                assert!(lease.is_some() && machine.owns(path.as_bytes()).is_some(), "{path}");
            }
            let remarks = model::check(path.as_bytes(), &value);
            assert_eq!(remarks, Ok(Vec::new()), "{path}: {}", String::from_utf8_lossy(&value));
        }
    }
}

/// What most hosts run with.
pub fn policy() -> Policy {
    let addressing = Addressing { host_ip: Some([10, 0, 0, 5].into()), ..Addressing::default() };
    Policy { default_host: "wordpress.local".into(), allow_hosts: Vec::new(), allow_sites: Vec::new(), addressing }
}
