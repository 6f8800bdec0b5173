//! The attackers' connection: it sends the same again and again, reads what comes or does not, until it is ended.
//!
//! What is sent before the answer is read is in the kernel's buffers, too; so little is sent at a time, and where
//! streams are opened, the answer itself says how many were looked at.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use etna_tests::h2::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Poured {
    /// How often it was sent.
    pub(super) times: u32,
    /// Bytes of all of it.
    pub(super) bytes: usize,
    /// How the connection ended, if it did.
    pub(super) ended: Option<Outcome>,
    /// The last stream that was looked at, as its end says.
    pub(super) last_stream: u32,
    /// Streams that were reset.
    pub(super) resets: u32,
    /// Answers.
    pub(super) statuses: BTreeMap<u16, u32>,
    /// Until it was closed.
    pub(super) lived: Duration,
}

impl Poured {
    /// Whether it was told to go, and was left.
    pub(super) fn was_told_to_go(&self) -> bool {
        matches!(self.ended, Some(Outcome::GoAway(code)) if code != NO_ERROR)
    }

    /// Reads what comes until then; `false` when it is the end.
    async fn read(&mut self, wire: &mut Wire, until: Instant) -> bool {
        loop {
            let Ok(frame) = wire.next(until).await else { return true };
            let Some(frame) = frame else {
                self.ended.get_or_insert(Outcome::Closed);
                return false;
            };
            match frame.kind {
                RST_STREAM => self.resets += 1,
                HEADERS => *self.statuses.entry(frame.status().unwrap_or(0)).or_default() += 1,
                GOAWAY => {
                    let last = frame.payload.get(..4).and_then(|bytes| bytes.try_into().ok());
                    self.last_stream = u32::from_be_bytes(last.unwrap_or_default());
                    self.ended = frame.code().map(Outcome::GoAway);
                }
                _ => {}
            }
            if self.ended.is_some() && Instant::now() > until {
                return true;
            }
        }
    }
}

/// A way to attack: its name, and what is sent the n-th time or on a stream.
pub(super) type Way = (&'static str, fn(u32) -> Vec<u8>);

/// Sends `opening`, then `each` up to so often, and reads what comes; stays until the connection is closed. Where `each`
/// is nothing, it pauses.
pub(super) async fn pour(to: SocketAddr, opening: &[u8], most: u32, mut each: impl FnMut(u32) -> Vec<u8>) -> Poured {
    let began = Instant::now();
    let mut poured = Poured::default();
    let mut wire = Wire::open(to).await;
    let mut more = wire.send(opening).await.is_ok();
    let mut batch = Vec::new();
    while more && poured.times < most && poured.ended.is_none() {
        batch.clear();
        for _ in 0..BATCH {
            let piece = each(poured.times);
            batch.extend(&piece);
            poured.times += 1;
            if piece.is_empty() || batch.len() >= BATCH_BYTES || poured.times == most {
                break;
            }
        }
        poured.bytes += batch.len();
        more = matches!(timeout(PATIENCE, wire.send(&batch)).await, Ok(Ok(())))
            && poured.read(&mut wire, Instant::now() + PACE).await;
    }
    let end = Instant::now() + PATIENCE;
    while poured.read(&mut wire, end).await && Instant::now() < end {}
    poured.lived = began.elapsed();
    poured
}

/// The same over several connections at once.
pub(super) async fn pour_many(
    to: SocketAddr,
    many: usize,
    opening: &[u8],
    most: u32,
    each: impl Fn(u32) -> Vec<u8> + Clone + Send + 'static,
) -> Vec<Poured> {
    let mut tasks = JoinSet::new();
    for _ in 0..many {
        let (opening, each) = (opening.to_vec(), each.clone());
        tasks.spawn(async move { pour(to, &opening, most, each).await });
    }
    tasks.join_all().await
}

/// Sends the same again and again for so long and never reads, with as little room for what comes as can be; whether
/// the connection was broken off.
pub(super) async fn pour_unread(to: SocketAddr, opening: Vec<u8>, each: Vec<u8>, time: Duration) -> bool {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(to).await.expect("the proxy accepts");
    let until = Instant::now() + time;
    let pouring = async {
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &opening].concat()).await?;
        let batch = each.repeat(BATCH as usize);
        loop {
            stream.write_all(&batch).await?;
            tokio::time::sleep(PACE).await;
        }
    };
    let broken: Result<Result<(), std::io::Error>, _> = tokio::time::timeout_at(until, pouring).await;
    tokio::time::sleep_until(until).await;
    broken.is_ok()
}

/// A request to a host, with no body.
pub(super) fn begin(stream: u32, host: &str) -> Vec<u8> {
    get(stream, host, "/")
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

pub(super) fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// Sent at a time, whichever is less.
const BATCH: u32 = 50;
const BATCH_BYTES: usize = 16 * 1024;
/// Between those.
const PACE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(5);
