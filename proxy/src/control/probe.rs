//! Whether a suspect server still answers: a connection can be made, and its health does not say otherwise.
//!
//! A backend needs no health check for this. Nothing is sent; a server that accepts is believed to live.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A suspect to ask.
pub(super) struct Suspect {
    pub(super) key: Bytes,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Asks all of them, and says who took a connection.
pub(super) async fn probe(suspects: Vec<Suspect>) -> Vec<(Bytes, bool)> {
    let ask = |suspect: Suspect| async move {
        let connect = TcpStream::connect((suspect.host.as_str(), suspect.port));
        let answered = matches!(timeout(LONGEST, connect).await, Ok(Ok(_)));
        (suspect.key, answered)
    };
    stream::iter(suspects).map(ask).buffer_unordered(AT_ONCE).collect().await
}

const LONGEST: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 128;
