//! What HTTPS needs: certificates for all peers alike, and a load that does nothing but shake hands.
//!
//! The load is this program itself, in a process of its own on the load's core (`--shake`), on rustls. Of handshakes it
//! counts only those that the peer has seen to their end: each client says that it is done, and waits until the peer
//! has closed, too.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::load::Counted;
use crate::peer::{BLOG, SHOP};

/// What kind of key a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA of 2048 bits.
    Rsa,
}

/// A certificate for both hosts and its key, in files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// PEM.
    pub(crate) certificate: PathBuf,
    /// PEM.
    pub(crate) key: PathBuf,
    /// Both, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

impl Pair {
    /// Makes one in a directory.
    pub(crate) fn make(kind: Key, dir: &Path) -> anyhow::Result<Pair> {
        let key = match kind {
            Key::Ecdsa => KeyPair::generate()?,
            Key::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?,
        };
        let mut params = CertificateParams::new(vec![BLOG.to_owned(), SHOP.to_owned()])?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2999, 1, 1);
        let certificate = params.self_signed(&key)?.pem();
        let pair =
            Pair { certificate: dir.join("certificate.pem"), key: dir.join("key.pem"), both: dir.join("both.pem") };
        std::fs::write(&pair.certificate, &certificate)?;
        std::fs::write(&pair.key, key.serialize_pem())?;
        std::fs::write(&pair.both, certificate + &key.serialize_pem())?;
        Ok(pair)
    }
}

/// Handshakes, one after the other on each of some connections at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shake {
    /// TLS 1.3, or else 1.2.
    pub(crate) is_13: bool,
    /// Whether each goes on with a session of one before.
    pub(crate) resumes: bool,
}

impl Shake {
    /// Runs for whole seconds, Any failure is an error: a peer that fails is not compared.
    pub(crate) async fn run(self, core: usize, to: SocketAddr, seconds: u32, pair: &Pair) -> anyhow::Result<Counted> {
        let order = json!({
            "to": to, "is_13": self.is_13, "resumes": self.resumes, "seconds": seconds, "roots": pair.certificate,
        });
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(core.to_string()).arg(std::env::current_exe()?);
        command.arg("--shake").arg(order.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = timeout(Duration::from_secs(u64::from(seconds) + 15), command.output())
            .await
            .context("the handshakes do not end")?
            .context("cannot start taskset (package util-linux)")?;
        let counted: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("handshakes: {}", String::from_utf8_lossy(&output.stderr)))?;
        let number = |name: &str| counted.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok(Counted { requests: number("handshakes"), failed: 0, duration: Duration::from_micros(number("duration")) })
    }
}

/// The load itself, in a process of its own: does what it was ordered, prints what it counted.
pub(crate) async fn shake(order: &str) -> anyhow::Result<()> {
    let order: Value = serde_json::from_str(order).context("--shake")?;
    let text = |name: &str| order.get(name).and_then(Value::as_str).unwrap_or_default();
    let is = |name: &str| order.get(name).and_then(Value::as_bool).unwrap_or_default();
    let (to, resumes): (SocketAddr, bool) = (text("to").parse()?, is("resumes"));
    let seconds = order.get("seconds").and_then(Value::as_u64).unwrap_or_default();
    let config = config(is("is_13"), Path::new(text("roots")))?;
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let mut config = config.clone();
        if resumes {
            // Sessions of its own for each: none is waited for.
            config.resumption = Resumption::in_memory_sessions(8);
        }
        clients.spawn(client(Arc::new(config), to, until, resumes));
    }
    let mut handshakes = 0;
    while let Some(done) = clients.join_next().await {
        handshakes += done??;
    }
    let counted = json!({ "handshakes": handshakes, "duration": began.elapsed().as_micros() as u64 });
    std::io::Write::write_all(&mut std::io::stdout(), counted.to_string().as_bytes())?;
    Ok(())
}

/// A client that agrees with every peer on the same: X25519, AES-128-GCM.
pub(crate) fn config(is_13: bool, roots: &Path) -> anyhow::Result<ClientConfig> {
    use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider, kx_group};
    let mut provider = default_provider();
    // The second only because OpenSSL looks there for the curve of the certificate.
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    provider.cipher_suites = vec![
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    let version: &SupportedProtocolVersion = if is_13 { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots).map_err(|error| anyhow::anyhow!("{error}"))? {
        store.add(certificate.map_err(|error| anyhow::anyhow!("{error}"))?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version])?;
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

async fn client(config: Arc<ClientConfig>, to: SocketAddr, until: Instant, resumes: bool) -> anyhow::Result<u64> {
    let name = ServerName::try_from(BLOG)?;
    let connector = TlsConnector::from(config);
    let mut done = 0;
    let mut rest = [0; 256];
    while Instant::now() < until {
        let stream = TcpStream::connect(to).await.context("connect")?;
        stream.set_nodelay(true)?;
        let mut stream = connector.connect(name.clone(), stream).await.context("handshake")?;
        let connection = stream.get_ref().1;
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        anyhow::ensure!(is_resumed == (resumes && done > 0), "a session was, or was not, gone on with");
        let group = connection.negotiated_key_exchange_group().map(|group| group.name());
        anyhow::ensure!(group.is_none_or(|group| group == NamedGroup::X25519), "agreed on {group:?}");
        stream.shutdown().await.context("close_notify")?;
        // Tickets come before the end. How the peer ends is its own business.
        while let Ok(1..) = stream.read(&mut rest).await {}
        done += 1;
    }
    Ok(done)
}

/// Connections at a time.
const AT_ONCE: usize = 32;
