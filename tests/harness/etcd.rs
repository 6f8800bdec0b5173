//! Real etcd: one member that all tests of a run share, or a cluster of a test's own; members can be killed with -9,
//! frozen, cut off, wiped, put back to a backup, and started again on the data they had.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;

use crate::process::{Process, output_of, try_output_of};
use crate::relay::{Manner, Relay};
use crate::wait::eventually;

/// One member or several.
pub struct Etcd {
    members: Vec<Member>,
    initial: String,
    settings: Settings,
    folder: TempDir,
}

/// How a cluster of a test's own is run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// More flags for every member.
    pub flags: Vec<String>,
    /// Whether [`Etcd::store`] leads, and members speak to each other, through relays, which can be cut.
    pub relayed: bool,
    /// More variables of every member's environment.
    pub environment: Vec<(String, String)>,
    /// Whether [`Etcd::store`] leads to TLS; clients of the tests' own go without, to another port.
    pub tls: Option<Tls>,
}

/// PEM files for TLS, which a member reads when it is started.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate that members show.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority by which clients must show a certificate.
    pub clients: PathBuf,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    /// Where it takes clients that speak TLS.
    tls_port: Option<u16>,
    process: Mutex<Option<Process>>,
    /// What clients and what other members go through.
    relays: Option<(Relay, Relay)>,
}

impl Member {
    /// Where our proxies find it.
    fn offered(&self) -> u16 {
        let own = self.tls_port.unwrap_or(self.client_port);
        self.relays.as_ref().map_or(own, |(clients, _)| clients.address.port())
    }

    /// Where other members find it.
    fn peer(&self) -> u16 {
        self.relays.as_ref().map_or(self.peer_port, |(_, peers)| peers.address.port())
    }
}

impl Etcd {
    /// The member that all tests share. It ends with the last test that holds it.
    pub async fn shared() -> Arc<Etcd> {
        // Held until it answers, so that the second test waits instead of starting another.
        let mut shared = SHARED.lock().await;
        if let Some(etcd) = shared.upgrade() {
            return etcd;
        }
        let etcd = Arc::new(Etcd::start(1).await);
        *shared = Arc::downgrade(&etcd);
        etcd
    }

    /// A cluster of one's own.
    pub async fn start(size: usize) -> Etcd {
        Etcd::start_with(size, Settings::default()).await
    }

    /// The same, run otherwise.
    pub async fn start_with(size: usize, settings: Settings) -> Etcd {
        let ports = free_ports(size * 3);
        let members: Vec<Member> = ports
            .chunks(3)
            .map(|ports| {
                let (client_port, peer_port) = (ports[0], ports[1]);
                let tls_port = settings.tls.as_ref().map(|_| ports[2]);
                let relay = |port: u16| Relay::start(SocketAddr::from(([127, 0, 0, 1], port)));
                let relays = settings.relayed.then(|| (relay(tls_port.unwrap_or(client_port)), relay(peer_port)));
                Member { client_port, peer_port, tls_port, process: Mutex::default(), relays }
            })
            .collect();
        let initial: Vec<String> =
            members.iter().enumerate().map(|(i, m)| format!("m{i}=http://127.0.0.1:{}", m.peer())).collect();
        let etcd = Etcd { initial: initial.join(","), members, settings, folder: folder("etcd") };
        for i in 0..size {
            etcd.resume(i);
        }
        for i in 0..size {
            etcd.ready(i).await;
        }
        etcd
    }

    /// `--store` for a prefix, naming every member.
    pub fn store(&self, prefix: &str) -> String {
        let hosts: Vec<String> = self.members.iter().map(|m| format!("127.0.0.1:{}", m.offered())).collect();
        let scheme = if self.settings.tls.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}/{}", hosts.join(","), prefix.trim_matches('/'))
    }

    /// A client of the tests' own, which goes through no relay.
    pub async fn client(&self) -> Client {
        self.client_of(&(0..self.members.len()).collect::<Vec<_>>()).await
    }

    /// One that speaks to these members alone.
    pub async fn client_of(&self, members: &[usize]) -> Client {
        self.connect(members, ConnectOptions::new()).await
    }

    /// One that shows who it is.
    pub async fn client_as(&self, user: &str, password: &str) -> Client {
        let options = ConnectOptions::new().with_user(user, password).with_auto_token_refresh(true);
        self.connect(&(0..self.members.len()).collect::<Vec<_>>(), options).await
    }

    async fn connect(&self, members: &[usize], options: ConnectOptions) -> Client {
        let urls: Vec<String> = members.iter().map(|member| self.url(*member)).collect();
        let options = options.with_connect_timeout(LONG).with_timeout(LONG);
        Client::connect(urls, Some(options)).await.expect("etcd takes connections")
    }

    /// Where a member listens itself.
    pub fn url(&self, member: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[member].client_port)
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// What clients go through to a member.
    pub fn relay(&self, member: usize) -> &Relay {
        &self.members[member].relays.as_ref().expect("a relayed cluster").0
    }

    /// Cuts a member off from the others, both ways; clients still reach it.
    pub fn isolate(&self, member: usize) {
        let pid = self.process(member).as_ref().expect("it runs").pid();
        for (i, other) in self.members.iter().enumerate() {
            let peers = &other.relays.as_ref().expect("a relayed cluster").1;
            peers.set(if i == member { Manner::Refuse } else { Manner::RefuseProcess(pid) });
        }
    }

    /// Undoes it.
    pub fn rejoin(&self) {
        self.members.iter().filter_map(|member| member.relays.as_ref()).for_each(|(_, peers)| peers.set(Manner::Pass));
    }

    /// Runs etcdctl on some members; what it printed.
    pub fn ctl(&self, members: &[usize], args: &[&str]) -> Result<String, String> {
        let urls: Vec<String> = members.iter().map(|member| self.url(*member)).collect();
        let mut command = etcdctl();
        command.args(["--endpoints", &urls.join(","), "--command-timeout", "10s"]).args(args);
        try_output_of(&mut command)
    }

    /// The same, with a line typed where it asks for one.
    pub fn ctl_typed(&self, members: &[usize], args: &[&str], typed: &str) -> Result<String, String> {
        let urls: Vec<String> = members.iter().map(|member| self.url(*member)).collect();
        let mut command = Command::new("sh");
        command.env("ETCDCTL_API", "3").args([
            "-c",
            "typed=$1; shift; printf '%s\\n' \"$typed\" | etcdctl \"$@\"",
            "sh",
        ]);
        command.args([typed, "--endpoints", &urls.join(","), "--command-timeout", "10s"]).args(args);
        try_output_of(&mut command)
    }

    /// The member that leads, if one does.
    pub async fn leader(&self) -> Option<usize> {
        for member in 0..self.members.len() {
            let options = ConnectOptions::new().with_connect_timeout(SHORT).with_timeout(SHORT);
            let Ok(mut client) = Client::connect([self.url(member)], Some(options)).await else { continue };
            let Ok(status) = client.status().await else { continue };
            if status.leader() != 0 && status.header().is_some_and(|header| header.member_id() == status.leader()) {
                return Some(member);
            }
        }
        None
    }

    /// Ends a member as a power cut does.
    pub fn kill(&self, member: usize) {
        self.process(member).take();
    }

    /// Stops a member in its tracks; its connections stay open.
    pub fn freeze(&self, member: usize) {
        self.process(member).as_ref().expect("it runs").signal("STOP");
    }

    /// Lets a frozen member go on.
    pub fn thaw(&self, member: usize) {
        self.process(member).as_ref().expect("it runs").signal("CONT");
    }

    /// Starts a killed member again, on the data it had.
    pub fn resume(&self, member: usize) {
        let m = &self.members[member];
        let mut clients = format!("http://127.0.0.1:{}", m.client_port);
        if let Some(port) = m.tls_port {
            clients.push_str(&format!(",https://127.0.0.1:{port}"));
        }
        let scheme = if m.tls_port.is_some() { "https" } else { "http" };
        let offered = format!("{scheme}://127.0.0.1:{}", m.offered());
        let peer = format!("http://127.0.0.1:{}", m.peer_port);
        let offered_peer = format!("http://127.0.0.1:{}", m.peer());
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{member}"), "--initial-cluster", &self.initial])
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &offered])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &offered_peer])
            .args(["--max-request-bytes", "4194304", "--max-txn-ops", "10000"])
            .args(&self.settings.flags)
            .envs(self.settings.environment.iter().map(|(name, value)| (name, value)))
            .arg("--data-dir")
            .arg(self.data(member));
        if let Some(tls) = &self.settings.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.clients);
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
        }
        let process = Process::start(&format!("etcd-m{member}"), &mut command, self.folder.path());
        *self.process(member) = Some(process);
    }

    /// Forgets what a killed member had.
    pub fn wipe(&self, member: usize) {
        std::fs::remove_dir_all(self.data(member)).expect("its data can be removed");
    }

    /// Saves a backup of all it holds, as operators do.
    pub fn back_up(&self, member: usize) -> PathBuf {
        let file = self.folder.path().join("backup");
        let endpoint = format!("http://127.0.0.1:{}", self.members[member].client_port);
        let mut command = etcdctl();
        output_of(command.args(["--endpoints", &endpoint, "snapshot", "save"]).arg(&file));
        file
    }

    /// Makes a backup the data of a killed member, which is alone.
    pub fn restore(&self, member: usize, backup: &Path) {
        self.wipe(member);
        let peer = format!("http://127.0.0.1:{}", self.members[member].peer());
        let mut command = etcdctl();
        command.args(["snapshot", "restore"]).arg(backup).arg("--data-dir").arg(self.data(member));
        command.args(["--name", &format!("m{member}"), "--initial-cluster", &self.initial]);
        output_of(command.args(["--initial-advertise-peer-urls", &peer]));
    }

    /// Where one member takes clients.
    pub fn address(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].client_port)
    }

    /// Waits until a member answers from a quorum.
    pub async fn ready(&self, member: usize) {
        let url = format!("http://127.0.0.1:{}", self.members[member].client_port);
        eventually("etcd answers", LONG, async || {
            if let Some(status) = self.process(member).as_mut().and_then(Process::ended) {
                panic!("etcd ended: {status}");
            }
            let options = ConnectOptions::new().with_connect_timeout(SHORT).with_timeout(SHORT);
            let mut client = Client::connect([&url], Some(options)).await?;
            match client.get("ready", None).await {
                // With authentication on, a refusal is an answer too.
                Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("user name is empty") => {
                    Ok(())
                }
                result => result.map(drop),
            }
        })
        .await;
    }

    fn data(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("m{member}"))
    }

    fn process(&self, member: usize) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.members[member].process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn etcdctl() -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3");
    command
}

/// A folder that goes when dropped.
pub fn folder(name: &str) -> TempDir {
    tempfile::Builder::new().prefix(&format!("etna-test-{name}-")).tempdir().expect("a temporary folder can be made")
}

/// Ports that were free a moment ago, below those that the kernel gives to connections: one of these might take it
/// before the one that it is for does.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        held.extend(TcpListener::bind(("127.0.0.1", fastrand::u16(10_000..32_000))));
    }
    held.iter().map(|listener: &TcpListener| listener.local_addr().expect("it is bound").port()).collect()
}

static SHARED: tokio::sync::Mutex<Weak<Etcd>> = tokio::sync::Mutex::const_new(Weak::new());
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_member_comes_back_with_what_it_had() {
        let etcd = Etcd::start(3).await;
        let client = etcd.client().await;
        client.kv_client().put("key", "value", None).await.unwrap();
        etcd.kill(0);
        etcd.freeze(1);
        etcd.thaw(1);
        etcd.resume(0);
        etcd.ready(0).await;
        let got = client.kv_client().get("key", None).await.unwrap();
        assert_eq!(got.kvs()[0].value(), b"value");
    }
}
