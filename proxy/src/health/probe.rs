//! One check: a connection, perhaps a request, an answer of bounded size, all within the check's time limit.
//!
//! A connection of its own each time: whether one can be made is half of the question.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use etna_store::object::{CheckKind, HealthCheck, HttpVersion, ProxyVersion};
use http::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::http2;
use super::verdict::{self, Answer, Visitor};
use crate::backend::health::{Finding, Reason};
use crate::backend::pool::announce;
use crate::backend::secure::secure;
use crate::backend::stream::Stream;
use crate::backend::{Address, Live};
use crate::tls::servers::ServerTls;

/// What came of a check.
#[derive(Debug)]
pub(super) struct Probed {
    /// What was found; `None` if the check could not be made for a reason of our own.
    pub(super) finding: Option<Finding>,
    /// The visitor that the server wants to see.
    pub(super) visitor: Visitor,
}

/// A server, and how it wants to be told whose a connection is.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    pub(super) live: &'a Live,
    /// How it is spoken to, where that is encrypted.
    pub(super) tls: Option<&'a Arc<ServerTls>>,
    /// Ours, says the header then.
    pub(super) proxy_protocol: Option<ProxyVersion>,
    /// What it is to speak.
    pub(super) protocol: HttpVersion,
}

/// Checks a server as the visitor that it wanted to see the last time.
pub(super) async fn probe(server: Checked<'_>, check: &HealthCheck, visitor: Visitor) -> Probed {
    match tokio::time::timeout(check.timeout, attempt(server, check, visitor)).await {
        Ok(probed) => probed,
        Err(_) => {
            let detail = format!("no answer within {}", etna_store::duration::format(check.timeout));
            Probed { finding: Some(verdict::ill(Reason::Timeout, detail)), visitor }
        }
    }
}

async fn attempt(server: Checked<'_>, check: &HealthCheck, visitor: Visitor) -> Probed {
    let found = |finding| Probed { finding, visitor };
    let answer = match ask(server, check, visitor).await {
        Ok(None) => return found(Some(verdict::well())),
        Ok(Some(answer)) => answer,
        Err(Failure::Own) => return found(None),
        Err(Failure::Its(finding)) => return found(Some(finding)),
    };
    let finding = verdict::judge(check, &answer);
    // A site behind a proxy that terminates TLS, or on a port of its own, shows itself only to those who come from there.
    let wanted = verdict::wanted(check, &answer).filter(|wanted| *wanted != visitor);
    let Some(wanted) = wanted.filter(|_| finding.reason == Reason::SchemeMismatch) else { return found(Some(finding)) };
    let Ok(Some(answer)) = ask(server, check, wanted).await else { return found(Some(finding)) };
    let other = verdict::judge(check, &answer);
    match other.reason {
        Reason::SchemeMismatch => found(Some(finding)),
        _ => Probed { finding: Some(other), visitor: wanted },
    }
}

/// Why there is no answer.
enum Failure {
    /// We lack something.
    Own,
    /// The server is ill.
    Its(Finding),
}

/// Connects and asks; without an answer where a connection is all that is wanted.
async fn ask(server: Checked<'_>, check: &HealthCheck, visitor: Visitor) -> Result<Option<Answer>, Failure> {
    let Checked { live, tls, proxy_protocol, protocol } = server;
    let http2 = protocol == HttpVersion::H2;
    // Who answers on another port is not who takes the requests.
    let proxy_protocol = proxy_protocol.filter(|_| check.port.is_none());
    let failure = |reason, word: &str, error: io::Error| match is_own(&error) {
        true => Failure::Own,
        false => Failure::Its(verdict::ill(reason, format!("{word}: {error}"))),
    };
    let stream = dial(&live.address, check.port, proxy_protocol)
        .await
        .map_err(|error| failure(Reason::Unreachable, "cannot connect", error))?;
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => secure(live, tls, stream, !http2, check.timeout)
            .await
            .map_err(|error| failure(Reason::Tls, "TLS handshake", error))?,
    };
    if check.kind == CheckKind::Tcp {
        return Ok(None);
    }
    // As with requests: over TLS the server settles which version it is.
    let http2 = http2 && (tls.is_none() || stream.protocol() == Some(b"h2"));
    let request = request(live, check, visitor);
    let answer = if http2 {
        http2::exchange(stream, request, |status| verdict::needs_body(check, status)).await
    } else {
        exchange(stream, request, check).await.map_err(|error| error.to_string())
    };
    answer.map(Some).map_err(|error| Failure::Its(verdict::ill(Reason::Broken, format!("no good answer: {error}"))))
}

async fn exchange(stream: Stream, request: Request<()>, check: &HealthCheck) -> Result<Answer, hyper::Error> {
    let _ = stream.tcp().set_nodelay(true);
    let mut client = http1::Builder::new();
    client.max_buf_size(LONGEST_HEAD).max_headers(MOST_FIELDS);
    let (mut sender, connection) = client.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut response = sender.send_request(request.map(|()| Empty::new())).await?;
    let mut body = Vec::new();
    if verdict::needs_body(check, response.status()) {
        while body.len() < LONGEST_BODY
            && let Some(frame) = response.body_mut().frame().await
        {
            if let Some(data) = frame?.data_ref() {
                let room = LONGEST_BODY - body.len();
                body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
    }
    let (head, _) = response.into_parts();
    Ok(Answer { status: head.status, fields: head.headers, body })
}

fn request(live: &Live, check: &HealthCheck, visitor: Visitor) -> Request<()> {
    let mut request = Request::new(());
    // What cannot be written was refused when the settings were read.
    *request.method_mut() = check.method.parse().unwrap_or(Method::GET);
    *request.uri_mut() = check.path.parse().unwrap_or_default();
    let host = check.host.as_deref().map(|host| match visitor.port {
        Some(port) => format!("{}:{port}", verdict::bare(host)),
        None => host.to_owned(),
    });
    let host = host.and_then(|host| HeaderValue::from_str(&host).ok());
    let fields = request.headers_mut();
    fields.insert(HOST, host.unwrap_or_else(|| live.authority.clone()));
    fields.insert(USER_AGENT, HeaderValue::from_static("etna-health/1"));
    fields.insert(ACCEPT, HeaderValue::from_static("*/*"));
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    fields.insert("x-forwarded-proto", HeaderValue::from_static(if visitor.https { "https" } else { "http" }));
    request
}

async fn dial(address: &Address, port: Option<u16>, proxy_protocol: Option<ProxyVersion>) -> io::Result<TcpStream> {
    let mut stream = connect(address, port).await?;
    if let Some(version) = proxy_protocol {
        announce(&mut stream, version, None).await?;
    }
    Ok(stream)
}

async fn connect(address: &Address, port: Option<u16>) -> io::Result<TcpStream> {
    match address {
        Address::Ip(address) => TcpStream::connect(SocketAddr::new(address.ip(), port.unwrap_or(address.port()))).await,
        Address::Name(host, own) => TcpStream::connect((host.as_str(), port.unwrap_or(*own))).await,
    }
}

/// Whether an error says something about us and nothing about the server: no file descriptors, ports or memory left.
fn is_own(error: &io::Error) -> bool {
    // ENOMEM, ENFILE, EMFILE, EADDRNOTAVAIL, ENOBUFS.
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 99 | 105))
}

/// Longest head of an answer, in bytes.
pub(super) const LONGEST_HEAD: usize = 64 * 1024;
const MOST_FIELDS: usize = 200;
/// What is read of an answer's body, in bytes.
pub(super) const LONGEST_BODY: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each connection with the next of these, and what it was asked.
    async fn server(answers: Vec<&'static str>) -> (Live, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(r#"{{"URL":"http://{}"}}"#, listener.local_addr().unwrap());
        let spec = etna_store::Server::decode("s".into(), url.as_bytes(), &mut Vec::new()).unwrap();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                asked.push(String::from_utf8(head).unwrap().to_lowercase());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (Live::new(1, "b", &spec), asked)
    }

    fn plain(live: &Live) -> Checked<'_> {
        Checked { live, tls: None, proxy_protocol: None, protocol: HttpVersion::Http1 }
    }

    fn wordpress() -> HealthCheck {
        HealthCheck { host: Some("blog.test".into()), ..HealthCheck::of(CheckKind::WordPress) }
    }

    const HTTPS: &str = "HTTP/1.1 301 Moved\r\nLocation: https://blog.test/\r\nContent-Length: 0\r\n\r\n";
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    #[tokio::test]
    async fn a_site_that_lives_on_https_is_told_what_it_wants_to_hear() {
        let (live, asked) = server(vec![HTTPS, PAGE, PAGE]).await;
        let probed = probe(plain(&live), &wordpress(), Visitor::default()).await;
        assert!(probed.visitor.https && probed.finding.as_ref().unwrap().well, "{probed:?}");
        assert_eq!(probe(plain(&live), &wordpress(), probed.visitor).await.finding.unwrap().reason, Reason::Ok);
        let asked = asked.await.unwrap();
        assert!(
            asked[0].contains("x-forwarded-proto: http\r\n") && asked[0].contains("host: blog.test\r\n"),
            "{asked:?}"
        );
        assert!(
            asked[1].contains("x-forwarded-proto: https\r\n") && asked[2].contains("proto: https\r\n"),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_site_on_a_port_of_its_own_is_asked_there() {
        let elsewhere = "HTTP/1.1 301 Moved\r\nLocation: http://blog.test:8888/\r\nContent-Length: 0\r\n\r\n";
        let (live, asked) = server(vec![elsewhere, PAGE]).await;
        let probed = probe(plain(&live), &wordpress(), Visitor::default()).await;
        assert_eq!((probed.visitor.port, probed.finding.unwrap().reason), (Some(8888), Reason::Ok));
        assert!(asked.await.unwrap()[1].contains("host: blog.test:8888\r\n"));
    }

    #[tokio::test]
    async fn a_site_that_redirects_to_itself_for_ever_is_said_to() {
        let (live, _asked) = server(vec![HTTPS, HTTPS]).await;
        let finding = probe(plain(&live), &wordpress(), Visitor::default()).await.finding.unwrap();
        assert_eq!((finding.well, finding.reason), (true, Reason::SchemeMismatch));
    }

    #[tokio::test]
    async fn bad_answers_are_told_from_none() {
        let quick = HealthCheck { timeout: Duration::from_secs(5), ..HealthCheck::default() };
        let with_body = HealthCheck { body: Some("end".into()), ..quick.clone() };
        for (answer, check, reason) in [
            ("SSH-2.0-OpenSSH\r\n", &quick, Reason::Broken),
            ("", &quick, Reason::Broken),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nend", &with_body, Reason::Broken),
            ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", &quick, Reason::Status),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &quick, Reason::Ok),
        ] {
            let (live, _asked) = server(vec![answer]).await;
            assert_eq!(
                probe(plain(&live), check, Visitor::default()).await.finding.unwrap().reason,
                reason,
                "{answer:?}"
            );
        }
        let (live, asked) = server(Vec::new()).await;
        asked.await.unwrap();
        assert_eq!(probe(plain(&live), &quick, Visitor::default()).await.finding.unwrap().reason, Reason::Unreachable);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_has_so_much_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(r#"{{"URL":"http://{}"}}"#, listener.local_addr().unwrap());
        let spec = etna_store::Server::decode("s".into(), url.as_bytes(), &mut Vec::new()).unwrap();
        let live = Live::new(1, "b", &spec);
        let check = HealthCheck { timeout: Duration::from_millis(50), ..HealthCheck::default() };
        assert_eq!(probe(plain(&live), &check, Visitor::default()).await.finding.unwrap().reason, Reason::Timeout);
        let tcp = HealthCheck { timeout: Duration::from_secs(2), ..HealthCheck::of(CheckKind::Tcp) };
        assert!(probe(plain(&live), &tcp, Visitor::default()).await.finding.unwrap().well);
    }

    #[tokio::test]
    async fn a_server_that_wants_a_header_gets_one_that_says_it_is_ours() {
        let (live, asked) = server(vec![PAGE]).await;
        let checked = Checked { proxy_protocol: Some(ProxyVersion::V1), ..plain(&live) };
        assert!(probe(checked, &HealthCheck::default(), Visitor::default()).await.finding.unwrap().well);
        let asked = asked.await.unwrap();
        assert!(asked[0].starts_with("proxy unknown\r\nget / http/1.1\r\n"), "{asked:?}");
    }
}
