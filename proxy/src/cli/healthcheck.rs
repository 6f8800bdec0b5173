//! `etna healthcheck`: asks a running etna whether it can serve, for whoever judges by exit codes, such as Docker's
//! `HEALTHCHECK`.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use etna_proxy::config::AdminAddress;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Flags of `etna healthcheck`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etna healthcheck\n  \
    etna healthcheck --live --admin unix:/run/etna/admin.sock\n  \
    HEALTHCHECK CMD [\"etna\", \"healthcheck\"]    # in a Dockerfile\n\n\
    Exit codes: 0 it is, 1 it is not or does not answer within 2 s, 64 wrong usage.")]
pub(super) struct Flags {
    /// Address of the admin API, as `etna serve` was given it: IP:PORT, or unix:/PATH.
    #[arg(long, env = "ETNA_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:8182")]
    admin: AdminAddress,
    /// Ask whether the process lives (/healthz), not whether it can serve (/readyz): not ready is one that starts or
    /// drains, too.
    #[arg(long)]
    live: bool,
}

/// Asks, and says the answer in one line.
pub(super) fn run(flags: Flags) -> ExitCode {
    let path = if flags.live { "/healthz" } else { "/readyz" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(|error| format!("cannot start: {error}")).and_then(|runtime| {
        let within = runtime.block_on(async { tokio::time::timeout(LONGEST, ask(&flags.admin, path)).await });
        within.unwrap_or_else(|_| Err(format!("no answer within {} s", LONGEST.as_secs())))
    });
    let (code, text) = match answer {
        Ok(text) => (ExitCode::SUCCESS, text),
        Err(reason) => (ExitCode::FAILURE, format!("etna at {}: {reason}", flags.admin)),
    };
    // Docker shows what is said here, wherever it is said.
    let _ = writeln!(std::io::stdout(), "{text}");
    code
}

/// `ready` or `live`; the error says why not, in one line.
async fn ask(admin: &AdminAddress, path: &str) -> Result<String, String> {
    let (status, body) = match admin {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect(reached(*address)).await;
            exchange(stream.map_err(|error| unreached(&error))?, path).await?
        }
        AdminAddress::Unix(socket) => {
            let stream = UnixStream::connect(socket).await;
            exchange(stream.map_err(|error| unreached(&error))?, path).await?
        }
    };
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    match status {
        StatusCode::OK if said["live"] == true => Ok("live".into()),
        StatusCode::OK if said["ready"] == true => Ok("ready".into()),
        StatusCode::SERVICE_UNAVAILABLE if said["reason"].is_string() => {
            let reason = said["reason"].as_str().unwrap_or_default();
            Err(format!("not ready: {}", reason.replace(char::is_control, " ")))
        }
        _ => Err(format!("answered {status}: is it an etna's admin API?")),
    }
}

async fn exchange<S>(stream: S, path: &str) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: &dyn std::fmt::Display| format!("broke off: {error}; is it an etna's admin API?");
    let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Ends with the answer, or with the program.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
    Ok((status, body.map_err(|error| broken(&error))?.to_bytes()))
}

fn unreached(error: &std::io::Error) -> String {
    format!("{error}; is `etna serve` running there? Name its admin API with --admin or ETNA_ADMIN")
}

/// Where one that listens on every address is reached from here.
fn reached(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

const LONGEST: Duration = Duration::from_secs(2);
/// In bytes.
const LONGEST_ANSWER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_unix_socket_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let admin = AdminAddress::Unix(path.clone());
        assert!(ask(&admin, "/healthz").await.is_err(), "nobody is there");
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"live\":true}";
            stream.write_all(answer).await.unwrap();
        });
        assert_eq!(ask(&admin, "/healthz").await, Ok("live".into()));
    }

    async fn told(answer: &str) -> Result<String, String> {
        let answer = answer.to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        ask(&AdminAddress::Tcp(address), "/readyz").await
    }

    #[tokio::test]
    async fn only_an_etna_that_says_so_is_ready() {
        let ready = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"ready\":true}";
        assert_eq!(told(ready).await, Ok("ready".into()));
        let body = r#"{"ready":false,"reason":"dra\nining"}"#;
        let draining = format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(told(&draining).await, Err("not ready: dra ining".into()));
        for other in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            "220 smtp\r\n",
        ] {
            let told = told(other).await.unwrap_err();
            assert!(told.contains("an etna's admin API?"), "{other}: {told}");
        }
    }

    #[test]
    fn one_that_listens_everywhere_is_reached_here() {
        let reached = |listens: &str| reached(listens.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:8182"), "127.0.0.1:8182");
        assert_eq!(reached("[::]:8182"), "[::1]:8182");
        assert_eq!(reached("10.0.0.5:8182"), "10.0.0.5:8182");
    }
}
