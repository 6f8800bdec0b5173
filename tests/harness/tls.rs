//! An authority, the certificates it signs, sealed as Etna keeps them, and clients that believe it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etna_store::seal::{KeyPair, Keyring, SealKey};
use http::Request;
use http_body_util::Full;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, Connection, request};

/// Signs certificates, and seals them with a key of its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, rcgen::KeyPair>,
    ring: Keyring,
    seal_key: PathBuf,
}

impl Authority {
    /// A new one, whose seal key lies in a file in `folder`.
    pub fn new(folder: &Path) -> Authority {
        let key = SealKey::generate().expect("there is randomness");
        let seal_key = folder.join("seal-key");
        std::fs::write(&seal_key, &*key.to_hex()).expect("the seal key is written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&seal_key, private).expect("the seal key is made private");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named("an authority of tests");
        let key_pair = rcgen::KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key_pair).expect("it signs itself");
        Authority { issuer, ring: Keyring::new(key), seal_key }
    }

    /// The file with the seal key: `--seal-key`.
    pub fn seal_key(&self) -> &str {
        self.seal_key.to_str().expect("UTF-8")
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for names, that holds today.
    pub fn issue(&self, names: &[&str]) -> KeyPair {
        self.issue_until(names, 2999)
    }

    /// One that ends as a year begins.
    pub fn issue_until(&self, names: &[&str], year: i32) -> KeyPair {
        let mut params = params(names);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(&params, &rcgen::KeyPair::generate().expect("a key"))
    }

    /// One that holds since yesterday, and for so long from now on.
    pub fn issue_for(&self, names: &[&str], time: Duration, kind: KeyKind) -> KeyPair {
        let mut params = params(names);
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(86_400)).into();
        params.not_after = (now + time).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name = named(names.first().copied().unwrap_or_default());
        let key = match kind {
            KeyKind::Ecdsa => rcgen::KeyPair::generate(),
            KeyKind::Rsa => rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
        };
        self.sign(&params, &key.expect("a key"))
    }

    /// One that ends in so many days.
    pub fn issue_for_days(&self, names: &[&str], days: u64) -> KeyPair {
        self.issue_for(names, Duration::from_secs(days * 86_400), KeyKind::Ecdsa)
    }

    fn sign(&self, params: &CertificateParams, key: &rcgen::KeyPair) -> KeyPair {
        let certificate = params.signed_by(key, &self.issuer).expect("it is signed");
        KeyPair::new((certificate.pem() + &self.pem()).into_bytes(), key.serialize_pem().into_bytes())
    }

    /// A host's value with this pair.
    pub fn host(&self, pair: &KeyPair, default: bool) -> Value {
        json!({ "Settings": { "KeyPair": self.sealed(pair), "Default": default } })
    }

    /// The pair, sealed and in base64, as vulcand stores it.
    pub fn sealed(&self, pair: &KeyPair) -> String {
        STANDARD.encode(self.ring.seal(pair).expect("it is sealed"))
    }

    /// A client that believes this authority.
    pub fn client(&self) -> TlsClient {
        self.client_of(rustls::DEFAULT_VERSIONS)
    }

    /// How a server with this certificate speaks TLS; where `clients` is given, with those alone whom it has signed.
    pub fn server(pair: &KeyPair, clients: Option<&Authority>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.expect("known versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let roots = Arc::new(authority.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.expect("there is an authority"))
            }
        };
        let chain = CertificateDer::pem_slice_iter(pair.cert()).collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(pair.key()).expect("PEM");
        let mut config = builder.with_single_cert(chain, key).expect("the key is of the certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    /// The same, speaking only these versions.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> TlsClient {
        let config = self.believers(versions).with_no_client_auth();
        TlsClient { config: Arc::new(config) }
    }

    /// A client that shows a certificate.
    pub fn client_with(&self, pair: &KeyPair) -> TlsClient {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.cert()).collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key()).expect("a key");
        let builder = self.believers(rustls::DEFAULT_VERSIONS);
        let config = builder.with_client_auth_cert(chain.expect("PEM"), key).expect("they fit");
        TlsClient { config: Arc::new(config) }
    }

    fn believers(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let roots = self.roots();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        builder.expect("known versions").with_root_certificates(roots)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("the authority is one");
        roots
    }
}

/// What kind of key a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA of 2048 bits.
    Rsa,
}

/// The certificate of a pair itself, DER.
pub fn leaf(pair: &KeyPair) -> Vec<u8> {
    let first = CertificateDer::pem_slice_iter(pair.cert()).next();
    first.expect("a certificate").expect("PEM").to_vec()
}

fn named(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("valid names")
}

/// A client that speaks TLS. Its sessions go on as long as it lives.
#[derive(Clone)]
pub struct TlsClient {
    /// What it wants.
    pub config: Arc<ClientConfig>,
}

impl TlsClient {
    /// The same, every session a new one.
    pub fn forgetful(&self) -> TlsClient {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::disabled();
        TlsClient { config: Arc::new(config) }
    }

    /// A handshake, asking for a name.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
        let connecting = async {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(self.config.clone()).connect(name, stream).await
        };
        let within = tokio::time::timeout(PATIENCE, connecting).await;
        within.map_err(|_| "the handshake took too long")?.map_err(|error| error.to_string())
    }

    /// A kept connection, for HTTP/1.1.
    pub async fn open(&self, to: SocketAddr, name: &str) -> Result<Connection, String> {
        Connection::over(self.connect(to, name).await?).await
    }

    /// `GET` on a connection of its own, made for the same host.
    pub async fn get(&self, to: SocketAddr, host: &str, path: &str) -> Result<Answer, String> {
        self.send(to, host, request("GET", host, path).body(Full::default()).expect("a valid request")).await
    }

    /// Any request on a connection of its own, made for a name.
    pub async fn send(&self, to: SocketAddr, name: &str, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        self.open(to, name).await?.send(request).await
    }

    /// The certificate that a name gets, DER.
    pub async fn certificate(&self, to: SocketAddr, name: &str) -> Result<Vec<u8>, String> {
        let stream = self.connect(to, name).await?;
        let chain = stream.get_ref().1.peer_certificates().ok_or("no certificate")?;
        Ok(chain.first().ok_or("an empty chain")?.to_vec())
    }
}

/// A stored listener that speaks TLS, on a port of the kernel's choice.
pub fn https_listener(settings: Value) -> Value {
    json!({ "Protocol": "https", "Address": { "Network": "tcp", "Address": "127.0.0.1:0" }, "Settings": settings })
}

/// The longest a handshake of a test may take.
const PATIENCE: Duration = Duration::from_secs(20);
