//! Why a command failed: in words that say what to do next, and as an exit code.

use std::fmt;
use std::process::ExitCode;

/// Wrong usage, as `sysexits.h` numbers it.
pub(crate) const USAGE: u8 = 64;

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was understood and refused, or what it names is not there.
    Refused(String),
    /// Nobody answered, or something could not be read.
    Unread(String),
    /// The command cannot mean anything.
    Usage(String),
}

impl Failure {
    /// Refused by who was asked.
    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure::Refused(message.into())
    }

    /// Not reached, or not read.
    pub(crate) fn unread(message: impl Into<String>) -> Failure {
        Failure::Unread(message.into())
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::Usage(message.into())
    }

    /// What a store's error means here.
    pub(crate) fn store(what: &str, error: &etna_store::Error) -> Failure {
        use etna_store::Error;
        let message = format!("{what}: {}", etna_store::with_causes(error));
        match error {
            Error::Conflict | Error::Invalid { .. } | Error::Denied { .. } => Failure::Refused(message),
            Error::Compacted { .. } | Error::LeaseLost | Error::Unavailable { .. } => Failure::Unread(message),
        }
    }

    /// Its exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Refused(_) => 1,
            Failure::Unread(_) => 2,
            Failure::Usage(_) => USAGE,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Refused(message) | Failure::Unread(message) | Failure::Usage(message)) = self;
        f.write_str(message)
    }
}
