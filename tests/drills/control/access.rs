//! etcd refuses: a login that ended, a password that changed, a role that lost its right, a certificate of an authority
//! that it trusts no more. Never taken for *empty*.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use etna_store::seal::KeyPair;
use etna_tests::etcd::{Settings, Tls, folder};
use etna_tests::process::signal;
use etna_tests::proxy::Proxy;
use etna_tests::relay::Manner;
use etna_tests::scene::Scene;
use etna_tests::tls::Authority;
use etna_tests::wait::{ensure, eventually};
use tempfile::TempDir;

use super::ground::{Ground, LONG, bare, held, ms, put_to_served};
use crate::bed::Rate;
use crate::drill::{Length, Outcome};

/// C16. Simple tokens that last two seconds, and are forgotten when etcd starts again; clients show certificates.
pub(super) async fn refused(length: Length) -> Outcome {
    let flags = vec!["--auth-token-ttl".into(), "2".into()];
    let shown = Shown::new();
    let settings = Settings { flags, relayed: true, tls: Some(shown.tls()), ..Settings::default() };
    let (mut scene, servers) = bare("c16", 1, settings).await;
    let file = scene.folder().join("password");
    write(&file, "first");
    set_up(&scene);
    scene.sign_in("root", "root").await;
    let credentials = ["--store-user", "proxy", "--store-password-file", file.to_str().expect("a path of ours")];
    let certificates = shown.flags();
    let flags: Vec<&str> = credentials.into_iter().chain(certificates.iter().map(String::as_str)).collect();
    let proxy = Proxy::start("etna", &scene.store(), &flags, scene.folder()).await;
    let ground = Ground::around(scene, servers, proxy, length).await;
    let (etcd, proxy) = (ground.scene.etcd.clone(), &ground.proxy);
    let traffic = ground.load(Rate::L2k).await;
    let hold = Duration::from_secs(length.pick(10, 2));

    // Idle until the token has ended.
    traffic.go_on(Duration::from_secs(4)).await;
    let expired = ground.change("expired").await;
    etcd.kill(0);
    etcd.resume(0);
    etcd.ready(0).await;
    let forgotten = ground.change("forgotten").await;

    root(&ground.scene, &["user", "passwd", "proxy", "--interactive=false"], Some("second"));
    reconnect(&ground.scene).await;
    until_refused(proxy, &DENIED).await;
    traffic.go_on(hold).await;
    let mut suspects = held(proxy).await;
    write(&file, "second");
    let back = Instant::now();
    let changed = until_back(&ground, "changed", back).await;

    root(&ground.scene, &["role", "revoke-permission", "proxy", "--prefix", &prefix(&ground.scene)], None);
    reconnect(&ground.scene).await;
    until_refused(proxy, &DENIED).await;
    traffic.go_on(hold).await;
    suspects += held(proxy).await;
    grant(&ground.scene);
    let back = Instant::now();
    let granted = until_back(&ground, "granted", back).await;

    let useless = useless_changes_nothing(&ground, &shown).await;
    shown.trust(&shown.second);
    etcd.kill(0);
    etcd.resume(0);
    etcd.ready(0).await;
    until_refused(proxy, &UNKNOWN).await;
    traffic.go_on(hold).await;
    suspects += held(proxy).await;
    shown.replace(&shown.second.issue(&["etna"]));
    let back = Instant::now();
    signal(proxy.pid(), "HUP");
    let rotated = until_back(&ground, "rotated", back).await;
    eventually("no problem is left", LONG, async || {
        let problems = proxy.problems().await;
        ensure(problems.is_empty(), format!("{problems:?}"))
    })
    .await;

    let quick = [expired, forgotten, useless].iter().all(|time| *time < Duration::from_secs(2));
    let pass = quick && [changed, granted, rotated].iter().all(|time| *time < LATE) && suspects == 0;
    let figure = format!(
        "a change live: {} after the token ended, {} after etcd forgot it, {} beside a new certificate that was of no \
         use and a problem (< 2 s); {} after the password file was right again, {} after the right was given back, {} \
         after the client certificate was replaced by one of the only authority that etcd trusted still (< 10 s); \
         {suspects} keys taken for gone",
        ms(expired),
        ms(forgotten),
        ms(useless),
        ms(changed),
        ms(granted),
        ms(rotated)
    );
    ground.outcome(traffic, figure, pass).await
}

/// Certificates that are none, or that etcd does not take, are read again; the longest a change then takes.
async fn useless_changes_nothing(ground: &Ground, shown: &Shown) -> Duration {
    let good = shown.first.issue(&["etna"]);
    let none = KeyPair::new(b"no certificate".to_vec(), good.key().to_vec());
    let mut longest = Duration::ZERO;
    for (id, useless) in [("none", none), ("unknown", shown.second.issue(&["etna"]))] {
        shown.replace(&useless);
        until_reread(&ground.proxy, true).await;
        longest = longest.max(ground.change(id).await);
        assert_eq!(ground.proxy.json("/v3/status").await["following"], true, "it shows what it has shown before");
        shown.replace(&good);
        until_reread(&ground.proxy, false).await;
    }
    longest
}

/// Has what the store is shown read again, until that is a problem or none.
async fn until_reread(proxy: &Proxy, bad: bool) {
    signal(proxy.pid(), "HUP");
    eventually("what was read again is judged", LONG, async || {
        let problems = proxy.problems().await;
        let said = problems.iter().any(|problem| problem.to_string().contains("read again for the store"));
        ensure(said == bad, format!("{problems:?}"))
    })
    .await;
}

async fn until_back(ground: &Ground, id: &str, since: Instant) -> Duration {
    put_to_served(&ground.scene, &ground.proxy, id).await;
    since.elapsed()
}

fn set_up(scene: &Scene) {
    let run = |args: &[&str]| scene.etcd.ctl(&[0], args).unwrap_or_else(|error| panic!("{error}"));
    run(&["user", "add", "root:root"]);
    run(&["user", "add", "proxy:first"]);
    run(&["role", "add", "proxy"]);
    run(&["role", "grant-permission", "proxy", "--prefix=true", "read", &prefix(scene)]);
    run(&["user", "grant-role", "proxy", "proxy"]);
    run(&["auth", "enable"]);
}

fn grant(scene: &Scene) {
    root(scene, &["role", "grant-permission", "proxy", "--prefix=true", "read", &prefix(scene)], None);
}

/// As root; what is typed where it asks.
fn root(scene: &Scene, args: &[&str], typed: Option<&str>) {
    let args = [&["--user", "root:root"], args].concat();
    let done = match typed {
        Some(text) => scene.etcd.ctl_typed(&[0], &args, text),
        None => scene.etcd.ctl(&[0], &args),
    };
    done.unwrap_or_else(|error| panic!("{error}"));
}

fn prefix(scene: &Scene) -> String {
    format!("{}/", scene.prefix)
}

/// Breaks the proxy's connections, so that it has to show again who it is.
async fn reconnect(scene: &Scene) {
    scene.etcd.relay(0).set(Manner::Refuse);
    eventually("its connections are gone", LONG, async || {
        let open = scene.etcd.relay(0).open();
        ensure(open == 0, format!("{open} open"))
    })
    .await;
    scene.etcd.relay(0).set(Manner::Pass);
}

async fn until_refused(proxy: &Proxy, words: &[&str]) {
    eventually("the proxy says that it is refused", LONG, async || {
        let status = proxy.json("/v3/status").await;
        let error = status["error"].as_str().unwrap_or_default();
        let said = words.iter().any(|word| error.contains(word));
        ensure(status["following"] == false && said, status.to_string())
    })
    .await;
}

fn write(file: &std::path::Path, text: &str) {
    fs::write(file, text).expect("the password can be written");
}

/// What etcd and the proxy show each other, and the authorities of clients, of which etcd trusts one.
struct Shown {
    files: TempDir,
    first: Authority,
    second: Authority,
}

impl Shown {
    /// The first authority is trusted, and has signed what the proxy shows.
    fn new() -> Shown {
        let files = folder("c16-shown");
        let [servers, first, second] = [(); 3].map(|()| Authority::new(files.path()));
        let shown = Shown { files, first, second };
        shown.write("servers.pem", servers.pem().as_bytes());
        shown.write_pair("etcd", &servers.issue(&["127.0.0.1"]));
        shown.trust(&shown.first);
        shown.replace(&shown.first.issue(&["etna"]));
        shown
    }

    fn tls(&self) -> Tls {
        Tls { cert: self.file("etcd.pem"), key: self.file("etcd.key"), clients: self.file("clients.pem") }
    }

    /// Of the proxy.
    fn flags(&self) -> Vec<String> {
        let files = [("--store-ca", "servers.pem"), ("--store-cert", "client.pem"), ("--store-key", "client.key")];
        files.iter().flat_map(|(flag, name)| [(*flag).into(), self.file(name).display().to_string()]).collect()
    }

    /// From when etcd is started the next time, by certificates of this authority alone.
    fn trust(&self, authority: &Authority) {
        self.write("clients.pem", authority.pem().as_bytes());
    }

    /// What the proxy finds when it reads again.
    fn replace(&self, pair: &KeyPair) {
        self.write_pair("client", pair);
    }

    fn write_pair(&self, name: &str, pair: &KeyPair) {
        self.write(&format!("{name}.pem"), pair.cert());
        self.write(&format!("{name}.key"), pair.key());
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).expect("a file of TLS can be written");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

/// What is said where etcd knows who asks, or does not believe it.
const DENIED: [&str; 4] = ["refused", "denied", "password", "authentication"];
/// What is said where etcd does not take the certificate.
const UNKNOWN: [&str; 1] = ["received fatal alert"];

/// It tries again every few seconds.
const LATE: Duration = Duration::from_secs(10);
