//! Hellos that arrive in pieces: records and segments cut at every byte. Each must lead to an answer, and a clean end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use etna_tests::tls::TlsClient;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Stream};

use super::hello::record;
use crate::bed::HOST;
use crate::drill::Length;

/// How a hello is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pieces {
    /// In two records, the first of so many bytes.
    Records(usize),
    /// In two segments, the first of so many bytes.
    Segments(usize),
    /// A record a byte.
    Bytes,
    /// A record a byte, a segment each.
    Crumbs,
}

/// All of them; how many, and what went wrong.
pub(super) async fn all(client: &TlsClient, at: SocketAddr, length: Length) -> (usize, Vec<String>) {
    let config = client.config.clone();
    let step = length.pick(1, 97);
    let trying = tokio::task::spawn_blocking(move || {
        let size = hello(&config).len();
        let cut = (1..size - 5).step_by(step).map(Pieces::Records);
        let split = (1..size).step_by(step).map(Pieces::Segments);
        let mut tried = 0;
        let mut wrong = Vec::new();
        for pieces in cut.chain(split).chain([Pieces::Bytes, Pieces::Crumbs]) {
            tried += 1;
            if let Err(why) = shake(&config, at, pieces) {
                wrong.push(format!("a hello as {pieces:?}: {why}"));
            }
        }
        (tried, wrong)
    });
    trying.await.expect("they were tried")
}

/// What a client sends first.
pub(super) fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    begun(config).1
}

fn begun(config: &Arc<ClientConfig>) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::try_from(HOST).expect("a name");
    let mut connection = ClientConnection::new(config.clone(), name).expect("a client");
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).expect("memory can be written");
    }
    (connection, bytes)
}

/// Shakes hands after a hello in pieces, asks once, and reads to the end.
pub(super) fn shake(config: &Arc<ClientConfig>, at: SocketAddr, pieces: Pieces) -> Result<(), String> {
    let (mut connection, bytes) = begun(config);
    let mut stream = TcpStream::connect(at).map_err(|error| error.to_string())?;
    let limits = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
    limits.map_err(|error| error.to_string())?;
    for piece in cut(&bytes, pieces) {
        stream.write_all(&piece).map_err(|error| error.to_string())?;
        if matches!(pieces, Pieces::Segments(_)) {
            #[expect(clippy::disallowed_methods, reason = "so that it is read before the rest is there")]
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    connection.complete_io(&mut stream).map_err(|error| format!("handshake: {error}"))?;
    let mut stream = Stream::new(&mut connection, &mut stream);
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("request: {error}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| format!("answer: {error}"))?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err("not answered 200".into()) }
}

/// What is written at a time.
fn cut(bytes: &[u8], pieces: Pieces) -> Vec<Vec<u8>> {
    let content = &bytes[5..];
    let crumbs = || content.chunks(1).map(|byte| record(22, 0x0301, byte));
    match pieces {
        Pieces::Records(at) => vec![[&content[..at], &content[at..]].map(|part| record(22, 0x0301, part)).concat()],
        Pieces::Segments(at) => vec![bytes[..at].to_vec(), bytes[at..].to_vec()],
        Pieces::Bytes => vec![crumbs().flatten().collect()],
        Pieces::Crumbs => crumbs().collect(),
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
