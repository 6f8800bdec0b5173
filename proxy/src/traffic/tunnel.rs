//! A tunnel: bytes both ways after a 101, counted as long as it lives.
//!
//! It opens only after the server answered 101 to a request that asked for it; the client's bytes wait until then.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use crate::backend::InFlight;
use crate::backend::wire::Connection;
use crate::listener::io::Phase;
use crate::listener::worker::Worker;
use crate::stats::Process;

/// One tunnel: counted as long as this value lives.
pub(crate) struct Open(std::sync::Arc<Process>);

impl Open {
    fn new(process: &std::sync::Arc<Process>) -> Open {
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

/// Joins the client's connection and the server's once the client's is out of HTTP; the server's is.
pub(super) fn open(worker: &Rc<Worker>, client: OnUpgrade, server: Connection, in_flight: InFlight) {
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let _open = Open::new(&worker.process);
        let _in_flight = in_flight;
        let running = worker.running();
        running.watch().enter(Phase::Busy);
        let joined = async {
            let mut client = TokioIo::new(client.await?);
            let (mut server, early) = server.into_tunnel();
            // What the server said right after its 101 comes first. Either side may break at any time; both are closed
            // by leaving this block.
            if client.write_all(&early).await.is_ok() {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
            Ok::<(), hyper::Error>(())
        };
        tokio::select! {
            _ = joined => {}
            () = worker.cut.cancelled() => {}
        }
    });
}
