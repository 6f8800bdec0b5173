//! Drills: the store that fails in every way it can.

mod access;
mod away;
mod disk;
mod ground;
mod guard;
mod history;
mod machine;
mod property;
mod sidekicks;
mod size;

use crate::drill::Drill;

pub(crate) use machine::{busy, faked, set_clock};

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "C1", what: "etcd killed", quick: true, run: |length| Box::pin(away::killed(length)) },
    Drill {
        id: "C2",
        what: "etcd frozen beyond its leases",
        quick: true,
        run: |length| Box::pin(away::frozen(length)),
    },
    Drill { id: "C3", what: "cut off while etcd changes", quick: true, run: |length| Box::pin(away::cut_off(length)) },
    Drill { id: "C5", what: "etcd's data wiped", quick: true, run: |length| Box::pin(history::wiped(length)) },
    Drill { id: "C6", what: "cold start, etcd down", quick: true, run: |length| Box::pin(disk::cold_start(length)) },
    Drill { id: "C7", what: "last table damaged", quick: true, run: |length| Box::pin(disk::damaged(length)) },
    Drill {
        id: "C9",
        what: "a prefix deleted, a backend renamed",
        quick: true,
        run: |length| Box::pin(guard::deleted(length)),
    },
    Drill {
        id: "C11",
        what: "leader killed, member isolated",
        quick: false,
        run: |length| Box::pin(away::members(length)),
    },
    Drill { id: "C12", what: "etcd out of space", quick: false, run: |length| Box::pin(machine::no_space(length)) },
    Drill { id: "C13", what: "the clock jumps", quick: true, run: |length| Box::pin(machine::clock(length)) },
    Drill { id: "C14", what: "20 k routes, 50 k servers", quick: false, run: |length| Box::pin(size::large(length)) },
    Drill {
        id: "C15",
        what: "incremental equals from scratch",
        quick: true,
        run: |length| Box::pin(property::same(length)),
    },
    Drill { id: "C16", what: "etcd refuses", quick: false, run: |length| Box::pin(access::refused(length)) },
    Drill {
        id: "C17",
        what: "endpoints of different histories",
        quick: true,
        run: |length| Box::pin(history::foreign(length)),
    },
    Drill {
        id: "C18",
        what: "sidekicks and containers die",
        quick: false,
        run: |length| Box::pin(sidekicks::die(length)),
    },
];
