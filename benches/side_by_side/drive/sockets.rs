//! WebSockets: each sends a message, waits for its echo, and sends the next.

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
use super::servers::KEY;
use super::{WARM_UP, begin, until};

/// What is sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sockets {
    pub(crate) to: SocketAddr,
    pub(crate) host: String,
    pub(crate) connections: usize,
    pub(crate) seconds: u32,
}

/// What came back.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Echoed {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
}

impl Sockets {
    pub(super) async fn run(self) -> anyhow::Result<Echoed> {
        LocalSet::new().run_until(self.all()).await
    }

    async fn all(self) -> anyhow::Result<Echoed> {
        let mut open = Vec::new();
        for _ in 0..self.connections {
            open.push(self.open().await?);
        }
        let messages = Rc::new(Cell::new(0));
        let mut connections = JoinSet::new();
        for socket in open {
            connections.spawn_local(talk(socket, messages.clone()));
        }
        until(WARM_UP, &mut connections).await?;
        begin()?;
        let (began, before) = (Instant::now(), messages.get());
        until(Duration::from_secs(self.seconds.into()), &mut connections).await?;
        Ok(Echoed { messages: messages.get() - before, seconds: began.elapsed().as_secs_f64() })
    }

    async fn open(&self) -> anyhow::Result<Incoming<TcpStream>> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let mut incoming = Incoming::new(stream);
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            self.host
        );
        incoming.stream.write_all(head.as_bytes()).await?;
        incoming.head().await?.context("closed instead of an answer")?.expect("101")?;
        Ok(incoming)
    }
}

async fn talk(mut socket: Incoming<TcpStream>, messages: Rc<Cell<u64>>) -> anyhow::Result<()> {
    // A final frame of text, masked as a client's has to be (RFC 6455, 5.2).
    let mut frame = vec![0x81, 0x80 | LENGTH as u8];
    frame.extend(MASK);
    frame.extend((0..LENGTH).map(|at| b'm' ^ MASK[at % MASK.len()]));
    let mut echo = [0; 2 + LENGTH];
    let mut expected = [b'm'; 2 + LENGTH];
    expected[..2].copy_from_slice(&[0x81, LENGTH as u8]);
    loop {
        socket.stream.write_all(&frame).await?;
        socket.take(&mut echo).await?;
        anyhow::ensure!(echo == expected, "another message came back");
        messages.set(messages.get() + 1);
    }
}

/// Bytes of a message.
const LENGTH: usize = 64;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
