//! Drills: clients that mean to use up what others need.
//!
//! The attackers are plain sockets of our own. Beside each attack somebody else asks fifty times a second, each time on
//! a new connection, and must not notice.

mod files;
mod keys;
mod memory;
mod oversized;
mod probe;
mod saturation;
mod slow_body;
mod slow_head;
mod slow_read;

use crate::drill::{Drill, Length};

pub(crate) use memory::{Memory, resident};
pub(crate) use probe::{Probe, Probed};

pub(crate) const DRILLS: &[Drill] = &[
    Drill {
        id: "E1",
        what: "10,000 heads that never end",
        quick: false,
        run: |length| Box::pin(slow_head::run(length)),
    },
    Drill { id: "E2", what: "2,000 bodies that trickle", quick: false, run: |length| Box::pin(slow_body::run(length)) },
    Drill {
        id: "E3",
        what: "2,000 readers that do not read",
        quick: false,
        run: |length| Box::pin(slow_read::run(length)),
    },
    Drill {
        id: "E11",
        what: "2,000 connections for 512 files",
        quick: true,
        run: |length| Box::pin(files::run(length)),
    },
    Drill {
        id: "E12",
        what: "three times what can be served",
        quick: false,
        run: |length| Box::pin(saturation::run(length)),
    },
    Drill { id: "E14", what: "everything far too long", quick: true, run: |length| Box::pin(oversized::run(length)) },
    Drill {
        id: "E15",
        what: "a million hosts, cookies and clients",
        quick: true,
        run: |length| Box::pin(keys::run(length)),
    },
    Drill {
        id: "E16",
        what: "slow heads, large heads, 128 MB of memory",
        quick: false,
        run: |length| Box::pin(memory::run(length)),
    },
];

/// What an attack must leave of the others' service: not one request lost, and nearly all as fast as before.
pub(crate) fn unnoticed(length: Length, before: &probe::Probed, during: &probe::Probed) -> (String, bool) {
    let bar = (before.p99() * 2.0).max(FLOOR_MS);
    let first = during.wrong.first().map(|why| format!(" ({why})")).unwrap_or_default();
    let text = format!(
        "others: {} of {} failed{first}, p99 {:.1} ms, was {:.1}",
        during.wrong.len(),
        during.sent,
        during.p99(),
        before.p99()
    );
    (text, during.wrong.is_empty() && length.fast(during.p99() < bar))
}

/// A p99 below this is no harm, whatever it was before. Client, attackers and servers share the machine's cores.
const FLOOR_MS: f64 = 20.0;
pub(crate) const MB: f64 = 1024.0 * 1024.0;
