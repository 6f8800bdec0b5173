//! The limit of open files: raised as far as it goes for this program and all that it starts.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises it.
pub(crate) fn raise() {
    let files = getrlimit(Resource::Nofile);
    if files.current < files.maximum {
        // Who needs more than there is says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    }
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

/// Files that a process has open beside its connections.
const OTHERS: u64 = 1000;
