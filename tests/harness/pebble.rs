//! Pebble: the ACME authority with which Let's Encrypt tests clients. It refuses nonces at random and forgets
//! authorizations, so that clients may not rely on what they need not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;

use crate::process::Process;
use crate::tls::TlsClient;
use crate::wait::eventually;

/// An authority that is to be started, so that proxies can be told of it.
pub struct Pebble {
    /// Its directory.
    pub directory: String,
    ca_file: PathBuf,
    folder: PathBuf,
    api: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    running: Vec<Process>,
}

impl Pebble {
    /// One whose files lie in a folder.
    pub fn new(folder: &Path) -> Pebble {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer =
            CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("a key")).expect("it signs");
        let key = rcgen::KeyPair::generate().expect("a key");
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address").signed_by(&key, &issuer);
        let ca_file = folder.join("pebble-ca.pem");
        std::fs::write(&ca_file, issuer.pem()).expect("files can be written");
        std::fs::write(folder.join("pebble.pem"), own.expect("it signs").pem()).expect("files can be written");
        std::fs::write(folder.join("pebble-key.pem"), key.serialize_pem()).expect("files can be written");
        let [api, management, dns] = free();
        let directory = format!("https://{api}/dir");
        Pebble { directory, ca_file, folder: folder.to_owned(), api, management, dns, running: Vec::new() }
    }

    /// `--acme-ca` and `--acme-directory`.
    pub fn flags(&self) -> [&str; 4] {
        ["--acme-ca", self.ca_file.to_str().expect("UTF-8"), "--acme-directory", &self.directory]
    }

    /// Starts it: every name leads to these.
    pub async fn start(&mut self, http: SocketAddr, tls: SocketAddr) {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let config = json!({ "pebble": {
            "listenAddress": self.api.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": path("pebble.pem"),
            "privateKey": path("pebble-key.pem"),
            "httpPort": http.port(),
            "tlsPort": tls.port(),
        } });
        std::fs::write(self.folder.join("pebble.json"), config.to_string()).expect("files can be written");
        let [unused] = free();
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &self.dns.to_string(), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", &unused.to_string()]);
        self.running.push(Process::start("pebble-names", &mut names, &self.folder));
        let mut pebble = Command::new("pebble");
        pebble.args(["-strict", "-config", &path("pebble.json"), "-dnsserver", &self.dns.to_string()]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "20").env("PEBBLE_AUTHZREUSE", "0");
        self.running.push(Process::start("pebble", &mut pebble, &self.folder));
        eventually("pebble answers", Duration::from_secs(20), async || self.client().await.map(drop)).await;
    }

    /// A client that believes what it issues.
    pub async fn client(&self) -> Result<TlsClient, String> {
        let own = believing(&std::fs::read(&self.ca_file).map_err(|error| error.to_string())?)?;
        let root = own.get(self.management, "127.0.0.1", "/roots/0").await?;
        believing(&root.body)
    }
}

fn believing(pem: &[u8]) -> Result<TlsClient, String> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    roots.add(root).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsClient { config: Arc::new(config) })
}

/// Addresses that nobody listens on.
fn free<const N: usize>() -> [SocketAddr; N] {
    let held: [std::net::TcpListener; N] =
        std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    held.map(|listener| listener.local_addr().expect("it is bound"))
}
