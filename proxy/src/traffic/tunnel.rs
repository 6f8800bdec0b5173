//! A tunnel: bytes both ways after a 101, counted as long as it lives.
//!
//! It opens only after the server answered 101 to a request that asked for it; the client's bytes wait until then.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

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
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await
        };
        // Either side may break at any time; both are closed by leaving.
        tokio::select! {
            _ = joined => if let Some(access) = &of.access {
                access.ended(None);
            },
            () = of.worker.cut.cancelled() => {}
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
/// Bytes on their way, each way.
const BUFFER: usize = 4 * 1024;
