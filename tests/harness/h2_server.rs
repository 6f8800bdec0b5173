//! A server of HTTP/2: it answers by path, and treats its connections as it is told to.
//!
//! `/echo` sends back what it gets, `/large` what its query says in bytes, `/grpc` trailers, `/early` an answer before
//! the body, `/reset` breaks the stream, `/hang` never answers; everything else tells what was asked, as a `StandIn` does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A running server; it closes all its connections when dropped.
pub struct H2Server {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

/// How it treats its connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// How many requests it takes at once on one; 0: as many as come.
    pub at_once: u32,
    /// After so many it sends it away, finishing what it took; 0: never.
    pub goaway_after: u64,
}

struct Inner {
    id: String,
    terms: Terms,
    connections: AtomicU64,
    requests: AtomicU64,
    cancelled: AtomicU64,
    /// Requests that it will not begin with, before it does.
    refuse: AtomicU64,
    /// Connections that it will send away without beginning with anything.
    abandon: AtomicU64,
    stop: CancellationToken,
}

impl H2Server {
    /// Starts one; over TLS, where there is a configuration.
    pub async fn start(id: &str, terms: Terms, tls: Option<ServerConfig>) -> H2Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the kernel has a port");
        let address = listener.local_addr().expect("it is bound");
        let inner = Arc::new(Inner {
            id: id.to_owned(),
            terms,
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            refuse: AtomicU64::new(0),
            abandon: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let acceptor = tls.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        tokio::spawn(accept(listener, acceptor, inner.clone()));
        H2Server { address, inner }
    }

    /// Connections it accepted so far.
    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Relaxed)
    }

    /// Requests it began with so far.
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Relaxed)
    }

    /// Requests of `/hang` that were cancelled.
    pub fn cancelled(&self) -> u64 {
        self.inner.cancelled.load(Relaxed)
    }

    /// It will not begin with the next requests.
    pub fn refuse(&self, requests: u64) {
        self.inner.refuse.store(requests, Relaxed);
    }

    /// It will send the next connections away at their first request, and begin with nothing on them.
    pub fn abandon(&self, connections: u64) {
        self.inner.abandon.store(connections, Relaxed);
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, inner: Arc<Inner>) {
    loop {
        let accepted = tokio::select! {
            () = inner.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        inner.connections.fetch_add(1, Relaxed);
        let (inner, tls) = (inner.clone(), tls.clone());
        tokio::spawn(async move {
            let serving = async {
                match tls {
                    None => serve(stream, &inner).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &inner).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = inner.stop.cancelled() => {}
                () = serving => {}
            }
        });
    }
}

fn one_less(counter: &AtomicU64) -> bool {
    counter.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, inner: &Arc<Inner>) {
    if one_less(&inner.abandon) {
        return abandon(stream).await;
    }
    let mut builder = h2::server::Builder::new();
    if inner.terms.at_once > 0 {
        builder.max_concurrent_streams(inner.terms.at_once);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut taken = 0;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if one_less(&inner.refuse) {
            respond.send_reset(Reason::REFUSED_STREAM);
            continue;
        }
        taken += 1;
        if taken == inner.terms.goaway_after {
            connection.graceful_shutdown();
        }
        inner.requests.fetch_add(1, Relaxed);
        let inner = inner.clone();
        tokio::spawn(async move {
            let stop = inner.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                _ = answer(&inner, request, respond) => {}
            }
        });
    }
}

/// Waits for a request, and says that it has begun with none (RFC 9113 section 6.8).
async fn abandon(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let speaking = async {
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
        stream.read_exact(&mut [0; PREFACE]).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            stream.read_exact(&mut vec![0; length]).await?;
            if head[3] == HEADERS {
                break;
            }
        }
        stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await?;
        // Until the client has seen it and closes.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = speaking.await;
}

async fn answer(
    inner: &Inner,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut response = Response::new(());
    let id = HeaderValue::from_str(&inner.id).expect("an id is plain text");
    response.headers_mut().insert("x-backend", id);
    match head.uri.path() {
        "/echo" => {
            let mut out = respond.send_response(response, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                let length = data.len();
                send(&mut out, data).await?;
                body.flow_control().release_capacity(length)?;
            }
            end(&mut out, body.trailers().await?)
        }
        "/large" => {
            let mut left: usize = head.uri.query().and_then(|query| query.parse().ok()).unwrap_or(0);
            response.headers_mut().insert("content-length", left.into());
            let mut out = respond.send_response(response, false)?;
            while left > 0 {
                let piece = left.min(PIECE);
                left -= piece;
                send(&mut out, Bytes::from(vec![b'x'; piece])).await?;
            }
            end(&mut out, None)
        }
        "/grpc" => {
            read(&mut body).await?;
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let mut out = respond.send_response(response, false)?;
            send(&mut out, Bytes::from_static(b"\0\0\0\0\x02ok")).await?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            end(&mut out, Some(trailers))
        }
        "/early" => {
            let mut out = respond.send_response(response, false)?;
            send(&mut out, Bytes::from_static(b"early")).await?;
            // By letting go of the rest it says that it does not want it.
            end(&mut out, None)
        }
        "/reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "/hang" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            if matches!(reason, Ok(Reason::CANCEL)) {
                inner.cancelled.fetch_add(1, Relaxed);
            }
            Ok(())
        }
        _ => {
            let received = read(&mut body).await?;
            let headers: Vec<(&str, &str)> =
                head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
            let told = json!({
                "server": inner.id, "method": head.method.as_str(), "path": head.uri.to_string(), "headers": headers,
                "body_bytes": received,
            });
            let mut out = respond.send_response(response, false)?;
            send(&mut out, Bytes::from(told.to_string())).await?;
            end(&mut out, None)
        }
    }
}

async fn read(body: &mut RecvStream) -> Result<usize, h2::Error> {
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        received += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(received)
}

/// Sends so many bytes of a body, as fast as the other side takes them.
pub async fn send(out: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let room = match out.capacity() {
            0 => std::future::poll_fn(|cx| out.poll_capacity(cx)).await.unwrap_or(Err(Reason::CANCEL.into()))?,
            room => room,
        };
        out.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

fn end(out: &mut SendStream<Bytes>, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
    match trailers {
        Some(trailers) => out.send_trailers(trailers),
        None => out.send_data(Bytes::new(), true),
    }
}

/// Where nobody speaks HTTP/2: whatever comes is answered with this.
pub async fn speaks_something_else(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the kernel has a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { say(&mut stream, answer).await });
        }
    });
    address
}

async fn say(stream: &mut TcpStream, answer: &[u8]) {
    let _ = stream.read(&mut [0; 1024]).await;
    let _ = stream.write_all(answer).await;
}

/// Bytes of what a client sends first (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// A frame type (RFC 9113 section 6.2).
const HEADERS: u8 = 1;
const PIECE: usize = 64 * 1024;
