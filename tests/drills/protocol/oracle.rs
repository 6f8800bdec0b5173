//! A server that reads what the proxy sends it strictly, keeps it all, and answers what it saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::strict::{self, Request};
use super::wire::find;

/// A running oracle; it closes its connections when dropped.
pub(crate) struct Oracle {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<Seen>>,
    unfinished: AtomicUsize,
}

impl Inner {
    fn note(&self, what: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// One thing it saw.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// A whole request that can be read in one way only.
    Clean(Request),
    /// One that ended early; its request line.
    Partial(String),
    /// Something else; why.
    Ambiguous(String),
}

impl Oracle {
    /// Starts one.
    pub(crate) async fn start() -> Oracle {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (inner, stop) = (Arc::<Inner>::default(), CancellationToken::new());
        tokio::spawn(accept(listener, inner.clone(), stop.clone()));
        Oracle { address, inner, stop }
    }

    /// What it saw since it was asked last.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests of which it has got a part.
    pub(crate) fn unfinished(&self) -> usize {
        self.inner.unfinished.load(Relaxed)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (inner, stop) = (inner.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = serve(stream, &inner) => {}
                    }
                });
            }
        }
    }
}

async fn serve(mut stream: TcpStream, inner: &Inner) {
    let mut buffer = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        match if may_be_whole(&buffer) { strict::request(&buffer) } else { Ok(None) } {
            Ok(Some((request, length))) => {
                let text = format!("{} {} {}", request.method, request.target, request.body.len());
                let is_head = request.method == "HEAD";
                inner.note(strict::leaks(&request).map_or(Seen::Clean(request), Seen::Ambiguous));
                let body = if is_head { "" } else { text.as_str() };
                let answer =
                    format!("HTTP/1.1 200 OK\r\nX-Saw: {text}\r\nContent-Length: {}\r\n\r\n{body}", text.len());
                buffer.drain(..length);
                if !buffer.is_empty() {
                    // The proxy never sends a second request before the first is answered.
                    inner.note(Seen::Ambiguous(format!(
                        "bytes after a request: {:?}",
                        String::from_utf8_lossy(&buffer)
                    )));
                    return;
                }
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => return inner.note(Seen::Ambiguous(why)),
        }
        let begun = !buffer.is_empty();
        inner.unfinished.fetch_add(usize::from(begun), Relaxed);
        let read = stream.read(&mut piece).await;
        let line =
            || String::from_utf8_lossy(buffer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
        if begun && !matches!(read, Ok(1..)) {
            inner.note(Seen::Partial(line()));
        }
        inner.unfinished.fetch_sub(usize::from(begun), Relaxed);
        match read {
            Ok(n @ 1..) => buffer.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
}

/// Whether it is worth reading again: a long body in chunks is not, with every piece, from its beginning.
fn may_be_whole(buffer: &[u8]) -> bool {
    let head = &buffer[..buffer.len().min(2048)];
    buffer.len() < 64 * 1024 || buffer.ends_with(b"\r\n\r\n") || find(head, b"transfer-encoding: chunked").is_none()
}
