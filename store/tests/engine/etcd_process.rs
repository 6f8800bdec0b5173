//! A real etcd of one member, that can be killed, frozen and started again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::Client;
use etna_store::Engine;
use etna_store::engine::Options;
use tempfile::TempDir;

/// A running etcd. It ends when dropped.
pub struct Etcd {
    child: Option<Child>,
    data: TempDir,
    pub port: u16,
    peer: u16,
    scheme: &'static str,
    extra: Vec<String>,
    /// A further URL to listen on.
    also: Option<String>,
}

impl Etcd {
    /// One without TLS.
    pub async fn start() -> Etcd {
        Etcd::start_with("http", &[]).await
    }

    /// One with further flags; with `https` they name the certificates.
    pub async fn start_with(scheme: &'static str, extra: &[&str]) -> Etcd {
        let extra = extra.iter().map(|flag| (*flag).to_owned()).collect();
        let mut etcd = Etcd::new(scheme, extra, None);
        etcd.run().await;
        etcd
    }

    /// One that listens on another URL too.
    pub async fn start_also_at(url: &str) -> Etcd {
        let mut etcd = Etcd::new("http", Vec::new(), Some(url.to_owned()));
        etcd.run().await;
        etcd
    }

    fn new(scheme: &'static str, extra: Vec<String>, also: Option<String>) -> Etcd {
        let data = tempfile::tempdir().unwrap();
        Etcd { child: None, data, port: free_port(), peer: free_port(), scheme, extra, also }
    }

    /// Starts it on the data and the ports it had.
    pub async fn run(&mut self) {
        let client = format!("{}://127.0.0.1:{}", self.scheme, self.port);
        let listen = match &self.also {
            Some(also) => format!("{client},{also}"),
            None => client.clone(),
        };
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let child = Command::new("etcd")
            .args(["--name", "m1", "--logger", "zap", "--log-level", "error"])
            .arg("--data-dir")
            .arg(self.data.path())
            .args(["--listen-client-urls", &listen, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m1={peer}")])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("cannot run etcd ({error}); these tests need a real one: apt-get install etcd-server")
        }));
        let end = Instant::now() + Duration::from_secs(30);
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while !self.answers().await {
            assert!(Instant::now() < end, "etcd does not start");
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "etcd ended: {ended:?}");
            pause.tick().await;
        }
    }

    /// Starts it empty, as another history on the same address.
    pub async fn run_empty(&mut self) {
        self.data = tempfile::tempdir().unwrap();
        self.run().await;
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    pub fn url(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.port)
    }

    /// An engine below the default prefix.
    pub async fn engine(&self) -> Arc<dyn Engine> {
        etna_store::open(&self.url(), &Options::default()).await.unwrap()
    }

    /// etcd itself, for what the engine does not do.
    pub async fn client(&self) -> Client {
        Client::connect([format!("127.0.0.1:{}", self.port)], None).await.unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    async fn answers(&self) -> bool {
        if self.scheme == "https" {
            return tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok();
        }
        let mut client = self.client().await;
        tokio::time::timeout(Duration::from_secs(1), client.status()).await.is_ok_and(|status| status.is_ok())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Below the ports that the kernel gives to connections: one of these might take it before etcd does.
fn free_port() -> u16 {
    let bound = || TcpListener::bind(("127.0.0.1", fastrand::u16(10_000..32_000))).ok();
    std::iter::from_fn(|| Some(bound())).flatten().next().unwrap().local_addr().unwrap().port()
}
