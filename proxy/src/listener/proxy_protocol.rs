//! Whose connection it is, where a proxy in front says so before anything else: who is believed, how long is waited,
//! and what becomes of connections without a header. Reading the header itself is `crate::proxy_protocol`.
//!
//! Nothing of what follows the header is read, so that TLS or HTTP begins where it would without one. Listeners that
//! expect no header never come here.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use etna_store::object::{Id, ProxyProtocol, ProxyVersion, ProxyVersions};
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::watch::Watch;
use super::worker::Worker;
use crate::proxy_protocol::{self, Header, LONGEST, Origin};
use crate::traffic::trust::Trusted;

/// What a listener expects of those in front of it, as one worker knows it.
pub(super) struct Front {
    expected: Option<Arc<ProxyProtocol>>,
    /// When a refusal was logged, in the worker's seconds plus one; 0: never.
    told: Cell<u32>,
    /// Refusals since then.
    untold: Cell<u64>,
}

/// Who connects to a listener that expects headers.
pub(super) struct Visitor {
    expected: Arc<ProxyProtocol>,
    /// Whether it is one of the proxies that may say whose connection it is.
    pub(super) is_trusted: bool,
}

/// The connection is to be closed, and why has been told.
pub(super) struct Closed;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it comes from nobody who may send a PROXY protocol header, and one is required")]
    Stranger,
    #[error("{0}")]
    Malformed(#[from] proxy_protocol::Refused),
    #[error("the PROXY protocol header is of a version that this listener does not take")]
    Version,
    #[error("it ended inside the PROXY protocol header")]
    Truncated,
    #[error("the PROXY protocol header did not arrive within {} s", WITHIN.as_secs())]
    Late,
    /// It came and went, as checks do.
    #[error("it ended before it began")]
    Gone,
}

impl Front {
    /// What a listener expects; nothing by default.
    pub(super) fn expecting(expected: Option<Arc<ProxyProtocol>>) -> Front {
        Front { expected, told: Cell::new(0), untold: Cell::new(0) }
    }

    /// Who an address is here; `None` where no header is expected of anybody.
    pub(super) fn visitor(&self, address: IpAddr, trusted: &Trusted) -> Option<Visitor> {
        let expected = self.expected.clone()?;
        let is_trusted = match expected.from.as_slice() {
            [] => trusted.contains(address),
            from => from.iter().any(|network| network.contains(&address)),
        };
        Some(Visitor { expected, is_trusted })
    }

    /// Counts a refusal, and tells of it unless one was told of lately.
    fn refuse(&self, worker: &Worker, listener: &Id, client: IpAddr, refusal: &Refusal) -> Closed {
        let refused = &worker.process.proxy_protocol_refused;
        match refusal {
            Refusal::Gone => return Closed,
            Refusal::Stranger => refused.stranger.add(1),
            Refusal::Late => refused.late.add(1),
            Refusal::Malformed(_) | Refusal::Version | Refusal::Truncated => refused.malformed.add(1),
        }
        let now = worker.now().saturating_add(1);
        if self.told.get() != 0 && now < self.told.get().saturating_add(QUIET_SECONDS) {
            self.untold.set(self.untold.get() + 1);
            return Closed;
        }
        self.told.set(now);
        let others = self.untold.replace(0);
        tracing::warn!(listener = %listener, %client, reason = %refusal, others, "connection refused");
        Closed
    }
}

/// Reads the header a connection begins with: whose it is, or `None` where it is the visitor's own.
pub(super) async fn meet(
    front: &Front,
    visitor: &Visitor,
    listener: &Id,
    (stream, client): (&TcpStream, IpAddr),
    worker: &Worker,
    watch: &Watch,
) -> Result<Option<Origin>, Closed> {
    let refuse = |refusal| front.refuse(worker, listener, client, &refusal);
    let required = visitor.expected.required;
    if !visitor.is_trusted {
        // What it sends is read as HTTP, whatever it is.
        return if required { Err(refuse(Refusal::Stranger)) } else { Ok(None) };
    }
    let told = async { while watch.told().await.is_none() {} };
    let header = tokio::select! {
        biased;
        () = told => return Err(Closed),
        header = read(stream, required, WITHIN) => header.map_err(refuse)?,
    };
    let Some(header) = header else { return Ok(None) };
    if matches!(
        (visitor.expected.versions, header.version),
        (ProxyVersions::V1, ProxyVersion::V2) | (ProxyVersions::V2, ProxyVersion::V1)
    ) {
        return Err(refuse(Refusal::Version));
    }
    Ok(header.origin)
}

/// Reads a header and nothing of what follows. Where it is not required, `None` says that the connection begins with
/// something else, or with nothing for the time that a header may take.
async fn read(stream: &TcpStream, required: bool, within: Duration) -> Result<Option<Header>, Refusal> {
    let seen = Cell::new(0);
    match tokio::time::timeout(within, arrival(stream, &seen)).await {
        Ok(Err(Refusal::Malformed(proxy_protocol::Refused::Absent))) if !required => Ok(None),
        Ok(read) => read.map(Some),
        Err(_) if !required && seen.get() == 0 => Ok(None),
        Err(_) => Err(Refusal::Late),
    }
}

async fn arrival(stream: &TcpStream, seen: &Cell<usize>) -> Result<Header, Refusal> {
    loop {
        let gone = || if seen.get() == 0 { Refusal::Gone } else { Refusal::Truncated };
        let ready = stream.ready(Interest::READABLE).await.map_err(|_| gone())?;
        match stream.try_io(Interest::READABLE, || look(stream, seen)) {
            Ok(Ok(Some(header))) => return Ok(header),
            Ok(Ok(None)) => {}
            Ok(Err(refused)) => return Err(refused.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_read_closed() => {}
            Err(_) => return Err(gone()),
        }
    }
}

/// Looks at what has arrived, and takes the header out of it once it is whole. When nothing has arrived since the last
/// look it "would block", which has the runtime wait for more.
fn look(stream: &TcpStream, seen: &Cell<usize>) -> io::Result<Result<Option<Header>, proxy_protocol::Refused>> {
    let mut buffer = [0; LONGEST];
    let (arrived, _) = recv(stream, &mut buffer[..], RecvFlags::PEEK)?;
    if arrived == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if arrived <= seen.replace(arrived) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let header = proxy_protocol::read(&buffer[..arrived]);
    if let Ok(Some(Header { length, .. })) = header {
        let (taken, _) = recv(stream, &mut buffer[..length], RecvFlags::empty())?;
        if taken != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(header)
}

/// How long a header may take to arrive, from when the connection was accepted.
const WITHIN: Duration = Duration::from_secs(5);
/// Seconds after a refusal was logged in which others are only counted, per listener and worker.
const QUIET_SECONDS: u32 = 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn headers() -> [Vec<u8>; 3] {
        let origin = Origin { from: ([192, 0, 2, 7], 1).into(), to: ([192, 0, 2, 8], 2).into(), tls: true };
        [(ProxyVersion::V1, None), (ProxyVersion::V1, Some(origin)), (ProxyVersion::V2, Some(origin))].map(
            |(version, origin)| {
                let mut out = Vec::new();
                proxy_protocol::write(&mut out, version, origin.as_ref());
                out
            },
        )
    }

    #[tokio::test]
    async fn nothing_of_what_follows_is_taken() {
        for header in headers() {
            let (mut client, mut server) = pair().await;
            client.write_all(&[&header[..], b"GET / HTTP/1.1\r\n"].concat()).await.unwrap();
            drop(client);
            let read = read(&server, true, LONG).await.unwrap().unwrap();
            assert_eq!(read.length, header.len());
            let mut rest = String::new();
            server.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn byte_by_byte_it_is_the_same() {
        for (at, required) in headers().iter().zip([true, false, false]) {
            let (mut client, mut server) = pair().await;
            let sending = async {
                for byte in at {
                    client.write_all(&[*byte]).await.unwrap();
                    // The reader looks between two bytes.
                    tokio::task::yield_now().await;
                }
                client.write_all(b"!").await.unwrap();
            };
            let (read, ()) = tokio::join!(read(&server, required, LONG), sending);
            assert_eq!(read.unwrap().unwrap().length, at.len());
            assert_eq!(server.read_u8().await.unwrap(), b'!');
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_left_where_none_is_required() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"PUT / HTTP/1.1\r\n").await.unwrap();
        assert_eq!(read(&server, false, LONG).await.unwrap(), None);
        assert_eq!(server.read_u8().await.unwrap(), b'P');
        let (mut client, server) = pair().await;
        client.write_all(b"PUT / HTTP/1.1\r\n").await.unwrap();
        assert!(matches!(read(&server, true, LONG).await, Err(Refusal::Malformed(_))));
    }

    #[tokio::test]
    async fn one_that_does_not_come_is_late_and_one_that_breaks_off_is_truncated() {
        let (mut client, server) = pair().await;
        assert!(matches!(read(&server, true, SHORT).await, Err(Refusal::Late)));
        assert!(matches!(read(&server, false, SHORT).await, Ok(None)));
        client.write_all(b"PROX").await.unwrap();
        assert!(matches!(read(&server, false, SHORT).await, Err(Refusal::Late)));
        drop(client);
        assert!(matches!(read(&server, false, LONG).await, Err(Refusal::Truncated)));
        let (client, server) = pair().await;
        drop(client);
        assert!(matches!(read(&server, true, LONG).await, Err(Refusal::Gone)));
    }
}
