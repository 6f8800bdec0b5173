//! T1. A session goes on at another proxy, and after a restart, as long as its ticket's key is kept; the proxies' clocks
//! are set forward, by libfaketime, until it is not. Whoever has another seal key shares nothing, and says so.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_proxy::tls::tickets::Epoch;
use etna_store::seal::{Keyring, SealKey};
use etna_tests::client::Connection;
use etna_tests::proxy::Proxy;
use etna_tests::scene::server_at;
use etna_tests::tls::TlsClient;
use etna_tests::wait::{ensure, eventually};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use serde_json::json;

use super::ground::{Ground, panics};
use crate::bed::HOST;
use crate::control::{faked, set_clock};
use crate::drill::{Length, Outcome};
use crate::protocol;

/// A session that was begun: the client that has its ticket.
struct Session {
    version: &'static str,
    client: TlsClient,
}

/// What sessions came to.
#[derive(Default)]
struct Judged {
    tried: usize,
    wrong: Vec<String>,
}

pub(super) async fn run(_: Length) -> Outcome {
    let ground = Ground::open("sessions", json!({})).await;
    let clock = ground.scene.folder().join("clock");
    // In the middle of an epoch, so that none ends meanwhile.
    let skew = to_the_middle();
    set_clock(&clock, &format!("+{skew}"));
    let seal_key = PathBuf::from(ground.authority.seal_key());
    let start = async |name: &str, seal_key: &Path| timed(&ground, name, seal_key, &clock).await;
    let ((one, at_one), (mut other, at_other)) = match (start("etna", &seal_key).await, start("other", &seal_key).await)
    {
        (Ok(one), Ok(other)) => (one, other),
        (Err(why), _) | (_, Err(why)) => return Outcome::fail(why),
    };
    stored(&ground, 2).await;
    told(&ground, &[&one, &other]).await;

    let mut judged = Judged::default();
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(begin(&ground, at_one).await);
    }
    let mut next = || sessions.pop().unwrap_or_default();
    judged.judge("at another proxy", HandshakeKind::Resumed, &next(), at_other).await;
    other.kill();
    let (again, at_again) = match start("other", &seal_key).await {
        Ok(again) => again,
        Err(why) => return Outcome::fail(why),
    };
    judged.judge("after a restart", HandshakeKind::Resumed, &next(), at_again).await;

    let (stranger_key, stranger_says) = stranger(&ground);
    ground.scene.put("hosts/stranger.test/host", stranger_says).await;
    let (stranger, at_stranger) = match start("stranger", &stranger_key).await {
        Ok(stranger) => stranger,
        Err(why) => return Outcome::fail(why),
    };
    judged.judge("where the seal key is another", HandshakeKind::Full, &next(), at_stranger).await;
    stranger.until_said("sealed with another seal key").await;
    let problems = stranger.problems().await;
    let of_host = |problem: &serde_json::Value| problem.to_string().contains("no key of the seal key file opens it");
    judged.expect(problems.iter().any(of_host), "no problem says that a certificate cannot be opened");

    let epoch = Epoch::LENGTH.as_secs();
    set_clock(&clock, &format!("+{}", skew + epoch));
    // Made ahead, by whichever is first.
    stored(&ground, 3).await;
    told(&ground, &[&one, &again]).await;
    judged.judge("an epoch later", HandshakeKind::Resumed, &next(), at_again).await;
    set_clock(&clock, &format!("+{}", skew + 2 * epoch));
    told(&ground, &[&one, &again]).await;
    judged.judge("two epochs later", HandshakeKind::Full, &next(), at_again).await;
    judged.judge("begun then", HandshakeKind::Resumed, &begin(&ground, at_one).await, at_again).await;

    let keys = ground.scene.below("tickets/").await;
    let sealed = keys.iter().all(|(_, value)| value.starts_with(b"{\"Encryption\""));
    judged.expect(sealed && keys.len() >= 3, "keys are missing in etcd, or not sealed");
    judged.expect(panics(&one).await + panics(&again).await == 0.0, "panics");
    let figure = format!(
        "TLS 1.2 and 1.3: resumed at another proxy, after a restart, 6 h later; in full 12 h later, and where the seal \
         key is another, which says so; {} keys in etcd, sealed: {sealed}; {} wrong",
        keys.len(),
        judged.wrong.len()
    );
    protocol::outcome("one at a time", judged.tried, figure, &judged.wrong)
}

impl Judged {
    async fn judge(&mut self, what: &str, wanted: HandshakeKind, sessions: &[Session], at: SocketAddr) {
        self.expect(!sessions.is_empty(), "no session is left");
        for session in sessions {
            self.tried += 1;
            let kind = go_on(session, at).await;
            self.expect(kind == Ok(wanted), &format!("{what}, {}: {kind:?}, not {wanted:?}", session.version));
        }
    }

    fn expect(&mut self, holds: bool, otherwise: &str) {
        self.wrong.extend((!holds).then(|| otherwise.to_owned()));
    }
}

/// A proxy whose clock is set by a file, and where it speaks TLS.
async fn timed(ground: &Ground, name: &str, seal_key: &Path, clock: &Path) -> Result<(Proxy, SocketAddr), String> {
    let seal_key = seal_key.to_str().ok_or("a path that is no text")?;
    let scene = &ground.scene;
    let mut command = Proxy::command(name, &scene.store(), &["--seal-key", seal_key], scene.folder());
    faked(&mut command, clock)?;
    let proxy = Proxy::run(name, command, scene.folder(), SOON).await;
    proxy.until_ready(SOON).await;
    let at = proxy.listener("https").await;
    Ok((proxy, at))
}

/// Waits until so many keys are shared.
async fn stored(ground: &Ground, many: usize) {
    eventually("the keys of tickets are shared", SOON, async || {
        let keys = ground.scene.below("tickets/").await.len();
        ensure(keys == many, format!("{keys} keys"))
    })
    .await;
}

/// Has proxies look at their keys: they do whenever something changes, and have once the next change is in force.
async fn told(ground: &Ground, proxies: &[&Proxy]) {
    for port in [1, 2] {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let revision = ground.scene.put("backends/told/servers/s", server_at(address)).await;
        for proxy in proxies {
            proxy.until_revision(revision).await;
        }
    }
}

/// A session of each version.
async fn begin(ground: &Ground, at: SocketAddr) -> Vec<Session> {
    let versions: [(&str, &[&SupportedProtocolVersion]); 2] =
        [("TLS 1.2", &[&rustls::version::TLS12]), ("TLS 1.3", &[&rustls::version::TLS13])];
    let mut sessions = Vec::new();
    for (version, spoken) in versions {
        let client = ground.authority.client_of(spoken);
        // Tickets come with the first answer.
        let answer = client.get(at, HOST, "/").await.expect("a session begins");
        assert_eq!(answer.status, 200);
        sessions.push(Session { version, client });
    }
    sessions
}

/// How a session goes on; a request must be answered, whichever way.
async fn go_on(session: &Session, at: SocketAddr) -> Result<HandshakeKind, String> {
    let stream = session.client.connect(at, HOST).await?;
    let kind = stream.get_ref().1.handshake_kind().ok_or("no handshake")?;
    let answer = Connection::over(stream).await?.get(HOST, "/").await?;
    if answer.status == 200 { Ok(kind) } else { Err(format!("answered {}", answer.status)) }
}

/// Another seal key's file, and a host that only it opens, whose certificate serves the same name.
fn stranger(ground: &Ground) -> (PathBuf, serde_json::Value) {
    let key = SealKey::generate().expect("there is randomness");
    let file = ground.scene.folder().join("other-seal-key");
    std::fs::write(&file, &*key.to_hex()).expect("a seal key is written");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).expect("it is made private");
    let sealed = Keyring::new(key).seal(&ground.authority.issue(&[HOST])).expect("it is sealed");
    (file, json!({ "Settings": { "KeyPair": STANDARD.encode(sealed) } }))
}

/// Seconds from now to the middle of an epoch.
fn to_the_middle() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let epoch = Epoch::LENGTH.as_secs();
    (epoch + epoch / 2 - now % epoch) % epoch
}

const SOON: Duration = Duration::from_secs(20);
