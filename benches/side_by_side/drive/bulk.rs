//! Big bodies, one after the other on each of some connections. Bytes are counted as they move, so that a body that is
//! on its way when the time is over counts for what of it has arrived.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use super::http::Incoming;
use super::{WARM_UP, begin, until};

/// What is moved.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Bulk {
    pub(crate) to: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
    /// Bytes of the body of each request; none: the answers' are counted.
    pub(crate) upload: u64,
    pub(crate) connections: usize,
    pub(crate) seconds: u32,
}

/// What was moved.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

impl Bulk {
    pub(super) async fn run(self) -> anyhow::Result<Moved> {
        LocalSet::new().run_until(self.all()).await
    }

    async fn all(self) -> anyhow::Result<Moved> {
        let moved = Rc::new(Cell::new(0));
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            connections.spawn_local(self.clone().one(moved.clone()));
        }
        until(WARM_UP, &mut connections).await?;
        begin()?;
        let (began, before) = (Instant::now(), moved.get());
        until(Duration::from_secs(self.seconds.into()), &mut connections).await?;
        Ok(Moved { bytes: moved.get() - before, seconds: began.elapsed().as_secs_f64() })
    }

    async fn one(self, moved: Rc<Cell<u64>>) -> anyhow::Result<()> {
        let count = |bytes: u64| moved.set(moved.get() + bytes);
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let mut incoming = Incoming::new(stream);
        let piece = vec![b'x'; PIECE];
        let (host, path) = (&self.host, &self.path);
        let head = match self.upload {
            0 => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            length => format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"),
        };
        loop {
            incoming.stream.write_all(head.as_bytes()).await?;
            let mut left = self.upload;
            while left > 0 {
                let most = left.min(PIECE as u64) as usize;
                let written = incoming.stream.write(&piece[..most]).await?;
                left -= written as u64;
                count(written as u64);
            }
            let answer = incoming.head().await?.context("closed instead of an answer")?;
            answer.expect("200")?;
            let counts = self.upload == 0;
            incoming
                .skip(answer.length()?, |bytes| {
                    if counts {
                        count(bytes)
                    }
                })
                .await?;
        }
    }
}

const PIECE: usize = 256 * 1024;
