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
            tracing::warn!(
                server = live.authority.to_str().unwrap_or_default(),
                error,
                "a handshake with a server failed"
            );
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
    live.handshake_error.tell(live, shaken.as_ref().err().map(in_words));
    Ok(Stream::encrypted(shaken?, tls.clone()))
}

/// Why a handshake failed. What `openssl req -x509` makes if told nothing else has no word of its own in rustls.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    if text.contains("CaUsedAsEndEntity") {
        return "invalid peer certificate: it is an authority's (CA:TRUE), which a server must not show".into();
    }
    text
}

/// What is done within a time limit.
pub(super) async fn within<T>(limit: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(limit, doing).await;
    done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "timed out")))
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error, OtherError};

    use super::*;

    #[test]
    fn errors_are_told_in_words() {
        #[derive(Debug, thiserror::Error)]
        #[error("")]
        struct CaUsedAsEndEntity;
        let told = |error| in_words(&io::Error::new(io::ErrorKind::InvalidData, Error::InvalidCertificate(error)));
        let other = CertificateError::Other(OtherError(Arc::new(CaUsedAsEndEntity)));
        assert!(told(other).contains("an authority's"));
        assert_eq!(told(CertificateError::Expired), "invalid peer certificate: Expired");
    }
}
