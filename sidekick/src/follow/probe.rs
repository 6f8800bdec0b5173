//! Asks a server whether it speaks HTTP yet.
//!
//! Docker's port proxy accepts connections for a container in which nobody listens, so only a status line counts;
//! which status does not matter. Health checks proper are the proxy's.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// How long one question may take: a cold PHP renders a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, with pauses between, until there is an answer (`true`), at most for `limit` (`false`).
pub(super) async fn until_answered(address: SocketAddr, host: &str, limit: Duration, pause: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        if answers(address, host).await {
            return true;
        }
        if Instant::now() + pause >= end {
            return false;
        }
        sleep(pause).await;
    }
}

/// Asks once, within five seconds.
pub async fn answers(address: SocketAddr, host: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: etna-sidekick\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        // "HTTP/1.1 200" is all there is to read.
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        std::io::Result::Ok(is_status_line(&line))
    };
    timeout_at(Instant::now() + PATIENCE, ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}

fn is_status_line(line: &[u8; 12]) -> bool {
    line.starts_with(b"HTTP/1.") && line[8] == b' ' && line[9..].iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn only_a_status_line_counts() {
        assert!(answers(server(b"HTTP/1.1 301 Moved\r\n\r\n").await, "a.b").await);
        assert!(answers(server(b"HTTP/1.0 500 Oh\r\n\r\n").await, "a.b").await);
        assert!(!answers(server(b"").await, "a.b").await);
        assert!(!answers(server(b"220 smtp ready for you\r\n").await, "a.b").await);
    }

    #[tokio::test]
    async fn gives_up_in_time() {
        let address = server(b"").await;
        assert!(!until_answered(address, "a.b", Duration::from_millis(300), Duration::from_millis(50)).await);
    }
}
