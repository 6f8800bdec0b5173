//! A connection to a server becomes encrypted, or it is remembered why not.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use super::stream::Stream;
use super::{Address, Live};
use crate::tls::servers::ServerTls;

/// How agreeing upon TLS or HTTP/2 with a server failed the last time, until it does not. Touched by that alone.
#[derive(Debug, Default)]
pub struct LastError(Mutex<Option<String>>);

impl LastError {
    /// The error.
    pub fn get(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Takes in what came of it. An error is said once for as long as it is the same.
    pub(super) fn tell(&self, live: &Live, error: Option<String>) {
        let mut last = self.lock();
        if let Some(error) = error.as_deref().filter(|error| last.as_deref() != Some(error)) {
            tracing::warn!(server = ?live.address, error, "a handshake with a server failed");
        }
        *last = error;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Agrees upon TLS with a server within a time limit, on HTTP/1.1 alone where nothing else will do.
pub(crate) async fn secure(
    live: &Live,
    tls: &Arc<ServerTls>,
    stream: TcpStream,
    http1_alone: bool,
    limit: Duration,
) -> io::Result<Stream> {
    let host = match &live.address {
        Address::Ip(address) => Cow::Owned(address.ip().to_string()),
        Address::Name(host, _) => Cow::Borrowed(host.as_str()),
    };
    let shaken = within(limit, tls.connect(&host, stream, http1_alone)).await;
    live.handshake_error.tell(live, shaken.as_ref().err().map(ToString::to_string));
    Ok(Stream::encrypted(shaken?, tls.clone()))
}

/// What is done within a time limit.
pub(super) async fn within<T>(limit: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(limit, doing).await;
    done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "timed out")))
}
