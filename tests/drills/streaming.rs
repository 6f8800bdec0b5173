//! Drills: bodies that are long, slow, or never end.

mod continuing;
mod events;
mod leaving;
mod tunnels;
mod uploads;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::drill::Drill;
use crate::protocol::wire::find;

pub(crate) const DRILLS: &[Drill] = &[
    Drill {
        id: "F1",
        what: "four uploads of 2 GiB to a slow server",
        quick: true,
        run: |length| Box::pin(uploads::slow_server(length)),
    },
    Drill { id: "F2", what: "1,000 clients that leave", quick: true, run: |length| Box::pin(leaving::run(length)) },
    Drill {
        id: "F3",
        what: "Expect: 100-continue, every answer",
        quick: true,
        run: |length| Box::pin(continuing::run(length)),
    },
    Drill { id: "F5", what: "1,000 idle WebSockets", quick: true, run: |length| Box::pin(tunnels::run(length)) },
    Drill {
        id: "F6",
        what: "clients that have said all they will",
        quick: true,
        run: |_| Box::pin(leaving::half_closed()),
    },
    Drill {
        id: "F7",
        what: "413 to a client that goes on sending",
        quick: true,
        run: |length| Box::pin(uploads::refused(length)),
    },
    Drill { id: "F8", what: "events pass as they come", quick: true, run: |length| Box::pin(events::run(length)) },
];

/// A server that does with a connection what it is told to.
pub(crate) async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server that answers `ok` to every request without a body, and does little else.
pub(crate) async fn quick_server() -> SocketAddr {
    server(|mut stream| async move {
        while head(&mut stream).await.is_some() {
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Reads a request's head, and what came with it of its body.
pub(crate) async fn head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        all.extend_from_slice(&piece[..n]);
        if let Some(end) = find(&all, b"\r\n\r\n") {
            let rest = all.split_off(end + 4);
            return Some((String::from_utf8_lossy(&all).into_owned(), rest));
        }
    }
}
