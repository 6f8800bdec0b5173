//! An authority that issues certificates by ACME (RFC 8555, 8737, 9773), over TLS on a port of the kernel's: small, but it
//! believes nothing. Signatures, nonces, URLs and requests for certificates are checked, and names are validated by
//! asking the proxies, every one of them. It also fails as it is told to.

mod answers;
mod jws;
mod validate;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::tls::TlsClient;
use jws::token;

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Answers nothing but 503, in HTML.
    pub down: bool,
    /// Refuses orders for being too many, for so many seconds.
    pub limited: Option<u64>,
    /// Answers what is no JSON.
    pub junk: bool,
    /// Never comes to look at challenges.
    pub frozen: bool,
    /// Refuses the first use of every nonce whose number this divides.
    pub bad_nonces: u64,
    /// How long what it issues lives, from an hour ago on.
    pub life: Duration,
    /// When it wants what it issued renewed, from now on: start and end, and after how many seconds to ask again. `None`:
    /// it has no opinion.
    pub renewal: Option<(i64, i64, u64)>,
    /// Challenges that it offers.
    pub offers: Vec<&'static str>,
    /// Names that it issues nothing for.
    pub rejected: Vec<String>,
}

/// A running authority. Ends with its value.
pub struct AcmeServer {
    /// Its directory.
    pub directory: String,
    inner: Arc<Inner>,
    ca_file: PathBuf,
    _serving: AbortOnDropHandle<()>,
}

struct Inner {
    base: String,
    issuer: CertifiedIssuer<'static, rcgen::KeyPair>,
    state: Mutex<State>,
}

struct State {
    manner: Manner,
    http: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    nonces: HashSet<String>,
    refused: HashSet<String>,
    given: u64,
    /// Accounts, by thumbprint.
    accounts: Vec<Account>,
    orders: Vec<Order>,
    asked_when: u64,
    /// Requests that broke a rule.
    violations: Vec<String>,
    validated: HashMap<&'static str, u64>,
}

#[derive(Clone)]
struct Account {
    key: jws::Key,
    contact: Value,
    valid: bool,
}

#[derive(Clone)]
struct Order {
    account: usize,
    name: String,
    replaces: Option<String>,
    tokens: HashMap<&'static str, String>,
    offers: Vec<&'static str>,
    status: &'static str,
    error: Option<(&'static str, Value)>,
    chain: Option<String>,
}

type Answer = Response<Full<Bytes>>;

impl AcmeServer {
    /// One whose own certificate is signed by an authority in a file in `folder`.
    pub async fn start(folder: &Path) -> AcmeServer {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "a small authority");
        let issuer =
            CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("a key")).expect("it signs");
        let ca_file = folder.join("acme-ca.pem");
        std::fs::write(&ca_file, issuer.pem()).expect("the authority is written");
        let own = rcgen::KeyPair::generate().expect("a key");
        let certificate =
            CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address").signed_by(&own, &issuer);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let chain = vec![certificate.expect("it signs").der().clone()];
        let config = config.with_no_client_auth().with_single_cert(chain, key).expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let base = format!("https://{}", listener.local_addr().expect("it is bound"));
        let inner = Arc::new(Inner { base: base.clone(), issuer, state: Mutex::new(State::new()) });
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, acceptor, inner.clone())));
        AcmeServer { directory: format!("{base}/directory"), inner, ca_file, _serving: serving }
    }

    /// `--acme-ca` and `--acme-directory`.
    pub fn flags(&self) -> [&str; 4] {
        ["--acme-ca", self.ca_file.to_str().expect("UTF-8"), "--acme-directory", &self.directory]
    }

    /// Where names lead: to each of these it looks.
    pub fn look_at(&self, http: Vec<SocketAddr>, tls: Vec<SocketAddr>) {
        let mut state = self.inner.state();
        (state.http, state.tls) = (http, tls);
    }

    /// Changes how it behaves.
    pub fn set(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.inner.state().manner);
    }

    /// Orders so far, by name.
    pub fn orders_of(&self, name: &str) -> usize {
        self.inner.state().orders.iter().filter(|order| order.name == name).count()
    }

    /// Of these, how many were said to replace a certificate.
    pub fn replacing(&self, name: &str) -> usize {
        self.inner.state().orders.iter().filter(|order| order.name == name && order.replaces.is_some()).count()
    }

    /// Certificates issued for a name.
    pub fn issued(&self, name: &str) -> usize {
        self.inner.state().orders.iter().filter(|order| order.name == name && order.chain.is_some()).count()
    }

    /// Accounts that are valid, with their contacts.
    pub fn accounts(&self) -> Vec<Value> {
        self.inner
            .state()
            .accounts
            .iter()
            .filter(|account| account.valid)
            .map(|account| account.contact.clone())
            .collect()
    }

    /// Forgets all accounts.
    pub fn forget_accounts(&self) {
        for account in &mut self.inner.state().accounts {
            account.valid = false;
            account.key = jws::Key::default();
        }
    }

    /// Validations that went well, by challenge.
    pub fn validated(&self, kind: &str) -> u64 {
        self.inner.state().validated.get(kind).copied().unwrap_or_default()
    }

    /// Times it was asked when to renew.
    pub fn asked_when(&self) -> u64 {
        self.inner.state().asked_when
    }

    /// Requests that no client should make.
    pub fn violations(&self) -> Vec<String> {
        self.inner.state().violations.clone()
    }

    /// A client that believes what it issues.
    pub fn client(&self) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(self.inner.issuer.der().clone()).expect("it is an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        TlsClient { config: Arc::new(config) }
    }
}

impl State {
    fn new() -> State {
        let manner = Manner {
            down: false,
            limited: None,
            junk: false,
            frozen: false,
            bad_nonces: 4,
            life: Duration::from_secs(90 * 86_400),
            renewal: None,
            offers: vec!["http-01", "tls-alpn-01"],
            rejected: Vec::new(),
        };
        State {
            manner,
            http: Vec::new(),
            tls: Vec::new(),
            nonces: HashSet::new(),
            refused: HashSet::new(),
            given: 0,
            accounts: Vec::new(),
            orders: Vec::new(),
            asked_when: 0,
            violations: Vec::new(),
            validated: HashMap::new(),
        }
    }

    fn nonce(&mut self) -> String {
        let nonce = token();
        self.given += 1;
        if self.manner.bad_nonces > 0 && self.given.is_multiple_of(self.manner.bad_nonces) {
            self.refused.insert(nonce.clone());
        } else {
            self.nonces.insert(nonce.clone());
        }
        nonce
    }

    fn account_of(&self, key: &jws::Key) -> Option<usize> {
        self.accounts.iter().position(|account| account.valid && account.key == *key)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, inner: Arc<Inner>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, inner) = (acceptor.clone(), inner.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let inner = inner.clone();
                async move { Ok::<_, Infallible>(inner.answer(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
