//! Open files and precedence: as much as may be had, for this program and all that it starts.

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

/// Raises it.
pub(crate) fn raise() {
    let files = getrlimit(Resource::Nofile);
    if files.current < files.maximum {
        // Who needs more than there is says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    }
}

/// Takes precedence over whatever else runs on these cores, so that no peer's latency is that of the machine's own chores.
/// Only root may: false, if it could not be had.
pub(crate) fn go_first() -> bool {
    setpriority_process(None, FIRST).is_ok()
}

/// Fails where a process cannot have so many connections.
pub(crate) fn allow(connections: usize) -> anyhow::Result<()> {
    let needed = connections as u64 + OTHERS;
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < needed => {
            anyhow::bail!(
                "{connections} connections need {needed} open files, and the limit is {files}: raise it (ulimit -Hn)"
            )
        }
        _ => Ok(()),
    }
}

/// The niceness of what goes first.
const FIRST: i32 = -20;
/// Files that a process has open beside its connections.
const OTHERS: u64 = 1000;
