//! A tunnel: bytes both ways after a 101, counted as long as it lives.
//!
//! It opens only after the server answered 101 to a request that asked for it; the client's bytes wait until then.

use std::any::Any;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::h1::wire::Wire;
use super::recorded::Counted;
use crate::access::record::Broken;
use crate::backend::InFlight;
use crate::backend::wire::Connection;
use crate::listener::conn::Client;
use crate::listener::watch::Phase;
use crate::stats::Process;

/// A server that has switched protocols, before its client is joined to it.
pub struct Tunnel {
    server: Connection,
    _in_flight: InFlight,
    /// What middlewares hold until here.
    _guard: Option<Box<dyn Any + Send>>,
}

/// One tunnel: counted as long as this value lives.
struct Open(Arc<Process>);

impl Open {
    fn new(process: &Arc<Process>) -> Open {
        process.tunnels.up();
        process.tunnels_opened.add(1);
        Open(process.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.tunnels.down();
    }
}

impl Tunnel {
    /// The server's side.
    pub fn new(server: Connection, in_flight: InFlight) -> Tunnel {
        Tunnel { server, _in_flight: in_flight, _guard: None }
    }

    /// The same, holding what middlewares guard it by.
    pub(super) fn guarded(self, guard: Option<Box<dyn Any + Send>>) -> Tunnel {
        Tunnel { _guard: guard, ..self }
    }

    /// Joins the client's connection and the server's until both have ended, either breaks, or a drain's time is over.
    pub(super) async fn run(self, client: &Client, wire: Rc<Wire>) {
        let _open = Open::new(&client.worker.process);
        wire.watch.enter(Phase::Busy);
        let Some((stream, ahead)) = wire.into_tunnel() else { return };
        ask_whether_there(stream.tcp());
        self.join(client, stream, &ahead).await;
    }

    /// The same for a client that has more on its connection than this.
    pub(super) async fn run_over(self, client: &Client, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let _open = Open::new(&client.worker.process);
        self.join(client, stream, &[]).await;
    }

    async fn join(self, of: &Client, client: impl AsyncRead + AsyncWrite + Unpin, ahead: &[u8]) {
        let mut client = Counted::new(client, of);
        if let Some(access) = &of.access {
            access.received(ahead.len());
            access.ended(Some(Broken::Client));
        }
        let (mut server, early) = self.server.into_tunnel();
        ask_whether_there(server.tcp());
        let joined = async {
            // What either said right after the switch comes first.
            client.write_all(&early).await?;
            client.flush().await?;
            server.write_all(ahead).await?;
            server.flush().await?;
            join_both(client, server).await;
            std::io::Result::Ok(())
        };
        // Both sides are closed by leaving.
        tokio::select! {
            _ = joined => if let Some(access) = &of.access {
                access.ended(None);
            },
            () = of.worker.cut.cancelled() => {}
        }
    }
}

/// Brings bytes both ways until both have ended, or one side is gone.
async fn join_both(client: impl AsyncRead + AsyncWrite + Unpin, server: impl AsyncRead + AsyncWrite + Unpin) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    match select(pin!(bring(from_client, to_server)), pin!(bring(from_server, to_client))).await {
        Either::Left((Way::Ended, down)) => drop(down.await),
        Either::Right((Way::Ended, up)) => drop(up.await),
        _ => {}
    }
}

/// How one way of a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As it was wished: the other way may go on.
    Ended,
    /// Nothing comes from there any more, and nothing can be told.
    Broken,
}

/// Brings bytes one way. Who takes no more may have said something last, which is still on its way back, and is lost
/// if the one it goes to is not listened to any more: that goes on for a while.
async fn bring(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Way {
    let mut buffer = [0; BUFFER];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return Way::Ended;
            }
            Ok(read) => read,
            Err(_) => return Way::Broken,
        };
        let written = async {
            to.write_all(&buffer[..read]).await?;
            to.flush().await
        };
        if written.await.is_err() {
            let rest = async { while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
            let _ = timeout(LAST_WORDS, rest).await;
            return Way::Broken;
        }
    }
}

/// Nothing need be said in a tunnel for hours: the kernel asks whether the other side is still there.
pub(crate) fn ask_whether_there(side: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY);
    let _ = SockRef::from(side).set_tcp_keepalive(&keepalive);
}

const ASK_AFTER: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long what a side said last may take that takes no more.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes on their way, each way.
const BUFFER: usize = 4 * 1024;
