//! Speaking HTTP with an authority: a connection per request, each with an end, and never more than is bearable.
//!
//! It remembers when an authority that refuses wants to be asked again: the library does not tell.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A way to authorities.
#[derive(Clone)]
pub(super) struct Way {
    tls: Arc<ClientConfig>,
    told: Arc<Told>,
}

/// When the authority that last refused wants to be asked again.
#[derive(Default)]
pub(super) struct Told(Mutex<Option<SystemTime>>);

impl Told {
    /// How long from now, if it said so.
    pub(super) fn wait(&self, now: SystemTime) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.and_then(|until| until.duration_since(now).ok())
    }
}

impl Way {
    /// One that believes the authorities of a file, or those of the system. Blocks: it reads files.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub(super) fn open(ca_file: Option<&Path>) -> Result<Way, String> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(file) => {
                let wrong = |error: &dyn std::fmt::Display| format!("--acme-ca {}: {error}", file.display());
                for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
                    roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
                }
                if roots.is_empty() {
                    return Err(wrong(&"there is no certificate in it"));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    let hint = "install ca-certificates, or name a file with --acme-ca";
                    return Err(format!("the system has no certificates of authorities: {hint}"));
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(crate::tls::provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Way { tls: Arc::new(tls), told: Arc::default() })
    }

    /// The same way, with nothing told yet.
    pub(super) fn afresh(&self) -> (Way, Arc<Told>) {
        let told = Arc::<Told>::default();
        (Way { tls: self.tls.clone(), told: told.clone() }, told)
    }

    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, String> {
        let uri = request.uri().clone();
        let host = uri.host().ok_or("the URL has no host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            // A directory in the clear is only taken from this machine; what it leads to must not go further.
            Some("http") if matches!(host, "localhost" | "127.0.0.1" | "[::1]") => false,
            _ => return Err(format!("{uri} is no https URL")),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((bare.as_str(), port));
        let stream = stream.await.map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
        if !is_tls {
            return exchange(stream, request, &uri).await;
        }
        let name = ServerName::try_from(bare).map_err(|error| format!("{host}: {error}"))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
        exchange(stream.map_err(|error| format!("no TLS with {host}:{port}: {error}"))?, request, &uri).await
    }

    fn note(&self, status: StatusCode, headers: &HeaderMap) {
        let seconds = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        if !status.is_success() && status != StatusCode::BAD_REQUEST || seconds.is_some() && !status.is_success() {
            *self.told.0.lock().unwrap_or_else(PoisonError::into_inner) = seconds;
        }
    }
}

impl HttpClient for Way {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let way = self.clone();
        Box::pin(async move {
            let place = request.uri().host().unwrap_or_default().to_owned();
            let answer = timeout(LONGEST, way.ask(request)).await;
            let answer =
                answer.unwrap_or_else(|_| Err(format!("{place} did not answer within {} s", LONGEST.as_secs())));
            let answer = answer.map_err(|reason| Error::Other(reason.into()))?;
            way.note(answer.status(), answer.headers());
            let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            if !answer.status().is_success() && !kind.contains("json") {
                return Err(Error::Other(format!("{place} answered {}", answer.status()).into()));
            }
            Ok(answer.into())
        })
    }
}

/// One request and its answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<BodyWrapper<Bytes>>,
    uri: &Uri,
) -> Result<Response<Full<Bytes>>, String> {
    let broke = |error: hyper::Error| format!("the authority's answer broke off: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let (mut head, body) = request.into_parts();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    head.headers.insert(HOST, HeaderValue::from_str(authority).map_err(|error| error.to_string())?);
    head.headers.insert(http::header::USER_AGENT, HeaderValue::from_static(AGENT));
    head.uri = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
    let response = sender.send_request(Request::from_parts(head, body)).await.map_err(broke)?;
    let (head, body) = response.into_parts();
    let body =
        Limited::new(body, LARGEST).collect().await.map_err(|error| format!("the authority's answer: {error}"))?;
    drop(connection);
    Ok(Response::from_parts(head, Full::new(body.to_bytes())))
}

/// The time that a Retry-After field says (RFC 9110 section 10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<SystemTime> {
    match text.trim().parse::<u32>() {
        Ok(seconds) => Some(now + Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(text.trim()).ok(),
    }
}

const AGENT: &str = concat!("etna/", env!("CARGO_PKG_VERSION"));
/// The longest a request may take.
const LONGEST: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const LARGEST: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_ask_again() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(retry_after(" 120 ", now), Some(now + Duration::from_secs(120)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 01:00:00 GMT", now), Some(now + Duration::from_secs(3600)));
        for junk in ["", "-1", "soon", "99999999999999999999"] {
            assert_eq!(retry_after(junk, now), None, "{junk}");
        }
        let way = Way { tls: Way::open(None).map_or_else(|_| empty(), |way| way.tls), told: Arc::default() };
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
        way.note(StatusCode::OK, &headers);
        assert_eq!(way.told.wait(SystemTime::now()), None, "an order that is not ready says it, too");
        way.note(StatusCode::TOO_MANY_REQUESTS, &headers);
        assert!(way.told.wait(SystemTime::now()).unwrap() > Duration::from_secs(50));
    }

    fn empty() -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(crate::tls::provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }

    #[tokio::test]
    async fn only_this_machine_is_spoken_to_in_the_clear() {
        let way = Way { tls: empty(), told: Arc::default() };
        for url in ["http://ca.test/dir", "ftp://127.0.0.1/", "http://127.0.0.1.ca.test/"] {
            let request = Request::get(url).body(BodyWrapper::default()).unwrap();
            assert!(way.ask(request).await.unwrap_err().contains("no https URL"), "{url}");
        }
    }

    #[test]
    fn a_file_without_authorities_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let refused = |file: &Path| Way::open(Some(file)).err().unwrap();
        assert!(refused(&file).contains("--acme-ca"));
        std::fs::write(&file, "nothing").unwrap();
        assert!(refused(&file).contains("there is no certificate in it"));
    }
}
