//! A tunnel: bytes both ways after a 101, counted as long as it lives.
//!
//! It opens only after the server answered 101 to a request that asked for it; the client's bytes wait until then.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::h1::wire::{Scratch, Wire};
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
            join_both(client, server, &of.worker.scratch).await;
            io::Result::Ok(())
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
async fn join_both(
    client: impl AsyncRead + AsyncWrite + Unpin,
    server: impl AsyncRead + AsyncWrite + Unpin,
    scratch: &Scratch,
) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    match select(pin!(bring(from_client, to_server, scratch)), pin!(bring(from_server, to_client, scratch))).await {
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
async fn bring(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, scratch: &Scratch) -> Way {
    loop {
        let rest = match poll_fn(|cx| poll_pass(&mut from, &mut to, scratch, cx)).await {
            Ok(Some(rest)) => rest,
            Ok(None) => {
                let _ = to.shutdown().await;
                return Way::Ended;
            }
            Err(_) => return Way::Broken,
        };
        let written = async {
            to.write_all(&rest?).await?;
            to.flush().await
        };
        if written.await.is_err() {
            let _ = timeout(LAST_WORDS, copy(&mut from, &mut sink())).await;
            return Way::Broken;
        }
    }
}

/// Reads something and passes it on; what of it was not taken at once, or why nothing is taken any more. `None` when
/// nothing more comes. Where most tunnels wait, none has a buffer of its own.
fn poll_pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    scratch: &Scratch,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<io::Result<Vec<u8>>>>> {
    let mut room = scratch.room();
    let mut room = ReadBuf::new(&mut room);
    ready!(Pin::new(from).poll_read(cx, &mut room))?;
    let read = room.filled();
    if read.is_empty() {
        return Poll::Ready(Ok(None));
    }
    Poll::Ready(Ok(Some(match Pin::new(to).poll_write(cx, read) {
        Poll::Ready(Ok(written)) => Ok(read[written..].to_vec()),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(read.to_vec()),
    })))
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
