//! What the demo's containers have in common: who they are, and when they are served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The demo's containers: name and role.
pub(super) const CONTAINERS: [(&str, &str); 3] = [("public-1", "public"), ("public-2", "public"), ("admin", "admin")];
/// The site they serve.
pub(super) const SITE: &str = "demo";
/// Names under which a browser on this machine may ask for it.
pub(super) const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "wordpress.local"];

/// Waits until the public and the admin side answer through the proxy.
pub(super) async fn wait_until_served(proxy: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while !(answers(proxy, "/").await && answers(proxy, "/wp-admin/").await) {
        if started.elapsed() > PATIENCE {
            bail!("the containers are not served after {} s", PATIENCE.as_secs());
        }
        tick.tick().await;
    }
    Ok(())
}

async fn answers(proxy: SocketAddr, path: &str) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(proxy).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), exchange).await, Ok(Ok(true)))
}

const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST_ANSWER: u64 = 64 * 1024;
