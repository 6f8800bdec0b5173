//! What etcd's and gRPC's errors mean to a caller, and to whoever chooses the member to ask next.
//!
//! Codes are gRPC's numbers; messages are those of etcd 3.4 to 3.6 (`api/v3rpc/rpctypes/error.go`).

use std::error::Error as _;
use std::fmt::Write as _;

use crate::engine::{Error, Revision, causes};

/// An error, and what it says about the member and the request.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) error: Error,
    /// The connection, or the login, is of no more use.
    pub(super) broken: bool,
    /// The request was surely not carried out, so it may be repeated.
    pub(super) unsent: bool,
}

impl Trouble {
    /// Something that repeating does not help against.
    pub(super) fn lasting(error: Error) -> Trouble {
        Trouble { error, broken: false, unsent: false }
    }

    /// No answer in time.
    pub(super) fn silence(context: &str) -> Trouble {
        let context = format!("{context}: no answer in time");
        Trouble { error: Error::Unavailable { context, source: None }, broken: true, unsent: false }
    }

    /// What the client library reports; `context` says what was asked, and of whom.
    pub(super) fn read(context: &str, error: etcd_client::Error) -> Trouble {
        let status = match &error {
            etcd_client::Error::GRpcStatus(status) => status,
            etcd_client::Error::LeaseKeepAliveError(_) => return Trouble::lasting(Error::LeaseLost),
            etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => {
                return Trouble::lasting(Error::Invalid { reason: format!("{context}: {error}") });
            }
            _ => return unavailable(context, error),
        };
        let message = status.message();
        let said = message.strip_prefix("etcdserver: ").unwrap_or(message);
        let denied = |remedy: &str| Trouble {
            error: Error::Denied { reason: format!("{context}: {said}; {remedy}") },
            // The next try reads password and certificates again.
            broken: true,
            unsent: false,
        };
        match status.code() as i32 {
            NOT_FOUND if message.contains("lease not found") => Trouble::lasting(Error::LeaseLost),
            OUT_OF_RANGE if message.contains("compacted") => {
                Trouble::lasting(Error::Compacted { oldest: Revision::default() })
            }
            PERMISSION_DENIED => denied("give the user's role access to the prefix"),
            FAILED_PRECONDITION if message.contains("authentication is not enabled") => {
                denied("enable it in etcd, or give no user")
            }
            INVALID_ARGUMENT if message.contains("user name is empty") => {
                denied("this etcd wants a user and password, or a client certificate")
            }
            INVALID_ARGUMENT if message.contains("authentication failed") => denied("check user and password"),
            INVALID_ARGUMENT if message.contains("auth store is old") => {
                Trouble { unsent: true, ..unavailable(context, error) }
            }
            INVALID_ARGUMENT => Trouble::lasting(Error::Invalid { reason: format!("{context}: {said}") }),
            RESOURCE_EXHAUSTED if message.contains("larger than max") => {
                Trouble::lasting(Error::Invalid { reason: format!("{context}: {said}") })
            }
            RESOURCE_EXHAUSTED if message.contains("database space exceeded") => {
                let context = format!(
                    "{context}: etcd's quota is used up ({said}); compact and defragment it, then `etcdctl alarm disarm`"
                );
                Trouble::lasting(Error::Unavailable { context, source: None })
            }
            RESOURCE_EXHAUSTED => {
                let context = format!("{context}: {said}");
                Trouble::lasting(Error::Unavailable { context, source: None })
            }
            _ => unavailable(context, error),
        }
    }
}

/// Whether an answer was longer than we take.
pub(super) fn is_too_long(error: &etcd_client::Error) -> bool {
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            status.code() as i32 == OUT_OF_RANGE && status.message().contains("message length too large")
        }
        _ => false,
    }
}

fn unavailable(context: &str, error: etcd_client::Error) -> Trouble {
    let mut context = format!("{context}: ");
    match &error {
        etcd_client::Error::GRpcStatus(status) => {
            context.push_str(status.message());
            let mut source = status.source();
            for _ in 0..causes::DEEPEST {
                let Some(cause) = source else { break };
                causes::add(&mut context, &cause.to_string());
                source = cause.source();
            }
        }
        other => {
            let _ = write!(context, "{other}");
        }
    }
    let unsent = UNSENT.iter().any(|said| context.contains(said));
    // All that the library's error says is said.
    Trouble { error: Error::Unavailable { context, source: None }, broken: true, unsent }
}

const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
/// What is said when there was no connection, or the member had nobody to pass the request on to.
const UNSENT: [&str; 4] = ["tcp connect error", "dns error", "no leader", "tls handshake"];
