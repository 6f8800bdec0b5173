//! A connection to a server becomes encrypted, or it is remembered why not.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use super::stream::Stream;
use super::{Address, Live};
use crate::tls::servers::ServerTls;

/// How the last TLS handshake with a server failed, until one does not. Touched by handshakes alone.
#[derive(Debug, Default)]
pub struct LastError(Mutex<Option<String>>);

impl LastError {
    /// The error.
    pub fn get(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Takes in what came of a handshake; whether that is news.
    fn set(&self, error: Option<String>) -> bool {
        let mut last = self.lock();
        let is_news = *last != error;
        *last = error;
        is_news
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
    match within(limit, tls.connect(&host, stream, http1_alone)).await {
        Ok(stream) => {
            live.tls_error.set(None);
            Ok(Stream::encrypted(stream, tls.clone()))
        }
        Err(error) => {
            // Said once for as long as it is the same.
            if live.tls_error.set(Some(error.to_string())) {
                tracing::warn!(server = ?live.address, %error, "TLS handshake with a server failed");
            }
            Err(error)
        }
    }
}

/// What is done within a time limit.
pub(super) async fn within<T>(limit: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(limit, doing).await;
    done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "timed out")))
}
