//! Takes WebSockets by HTTP/1.1 and opens them as streams of HTTP/2 (RFC 8441): for clients that know HTTP/1.1 alone.
//!
//! All share a connection to the proxy, as long as it lives. What passes through a WebSocket is not looked at.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etna_tests::h2_server::send;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::protocol::SOON;
use crate::streaming::head;

/// Starts one before a listener that speaks HTTP/2; where it listens.
pub(super) async fn start(proxy: SocketAddr) -> SocketAddr {
    let mut client = connect(proxy).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            // The proxy closes what was idle for long.
            let ready = match client.clone().ready().await {
                Ok(ready) => ready,
                Err(_) => {
                    client = connect(proxy).await;
                    client.clone()
                }
            };
            tokio::spawn(async move {
                let _ = open(ready, stream).await;
            });
        }
    });
    address
}

async fn connect(proxy: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy).await.expect("the proxy accepts");
    stream.set_nodelay(true).expect("a TCP stream");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (client, connection) = builder.handshake::<_, Bytes>(stream).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let asking = async {
        while !client.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::time::timeout(SOON, asking).await.expect("its settings say that WebSockets may be streams");
    client
}

/// Opens what a client asks for, and joins both until both have ended, or either breaks.
async fn open(client: SendRequest<Bytes>, mut stream: TcpStream) -> Result<(), h2::Error> {
    let Some((head, early)) = head(&mut stream).await else { return Ok(()) };
    let field = |name: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let path = head.split(' ').nth(1).unwrap_or("/");
    let mut request = Request::builder().method(Method::CONNECT).uri(format!("http://{}{path}", field("host")));
    for name in ["sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol", "user-agent"] {
        if !field(name).is_empty() {
            request = request.header(name, field(name));
        }
    }
    let request = request.extension(Protocol::from_static("websocket")).body(()).expect("a request");
    let (response, mut out) = client.ready().await?.send_request(request, false)?;
    let (response, body) = response.await?.into_parts();
    let status = response.status.as_u16();
    let mut answer = format!("HTTP/1.1 {} \r\n", if status == 200 { 101 } else { status });
    for (name, value) in &response.headers {
        answer.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
    }
    if status == 200 {
        let key = field("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()));
        answer.push_str(&format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"));
    }
    answer.push_str("\r\n");
    if stream.write_all(answer.as_bytes()).await.is_err() || status != 200 {
        return Ok(());
    }
    send(&mut out, early.into()).await?;
    let (reader, writer) = stream.into_split();
    // What the server said before it was told no more still goes to the client.
    let (sent, received) = tokio::join!(up(reader, out), down(body, writer));
    sent.and(received)
}

async fn up(mut from: OwnedReadHalf, mut to: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match from.read(&mut piece).await {
            Ok(0) => return to.send_data(Bytes::new(), true),
            Ok(n) => send(&mut to, Bytes::copy_from_slice(&piece[..n])).await?,
            // What was written is no more wanted.
            Err(_) => return Err(h2::Reason::CANCEL.into()),
        }
    }
}

async fn down(mut from: RecvStream, mut to: OwnedWriteHalf) -> Result<(), h2::Error> {
    while let Some(data) = from.data().await {
        let data = data?;
        from.flow_control().release_capacity(data.len())?;
        if to.write_all(&data).await.is_err() {
            return Err(h2::Reason::CANCEL.into());
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

const PERIOD: Duration = Duration::from_millis(10);
const WINDOW: u32 = 1024 * 1024;
