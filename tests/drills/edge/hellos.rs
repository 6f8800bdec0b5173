//! D12. Hellos in pieces, of odd names, of old versions, and bytes that are none; what comes after one must hold, too.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use etna_tests::tls::{TlsClient, https_listener, leaf};
use etna_tests::wait::{ensure, eventually};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::ground::{Ground, panics, policy};
use super::hello::{Hello, Said, alpn, extension, length16, record, said_to};
use super::pieces;
use super::scanners;
use crate::bed::HOST;
use crate::drill::{Length, Outcome};
use crate::protocol;

/// Whose names nobody has.
const DEFAULT: &str = "other.test";

/// What must be said.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// This host's certificate.
    Be(&'static str),
    /// This alert.
    Alert(u8),
    /// The default host's certificate, or any alert, or silence's end: but nobody else's certificate.
    BeHarmless,
}

pub(super) async fn run(length: Length) -> Outcome {
    let ground = Ground::open("hellos", policy("intermediate")).await;
    let other = ground.authority.issue(&[DEFAULT]);
    ground.scene.put(&format!("hosts/{DEFAULT}/host"), ground.authority.host(&other, true)).await;
    ground.scene.put("listeners/modern", https_listener(policy("modern"))).await;
    ground.scene.put("listeners/refuse", https_listener(serde_json::json!({ "UnknownHost": "refuse" }))).await;
    let (mut proxy, at) = ground.proxy("etna").await;
    let (modern, refuse) = (proxy.listener("modern").await, proxy.listener("refuse").await);
    let client = ground.client();
    let live =
        eventually("the certificate", Duration::from_secs(20), async || client.certificate(at, HOST).await).await;
    let whose = HashMap::from([(live, HOST), (leaf(&other), DEFAULT)]);

    let mut wrong = Vec::new();
    let mut tried = 0;
    for (name, hello, usual, refusing) in names() {
        for (listener, to, must) in [("default", at, usual), ("refuse", refuse, refusing)] {
            tried += 1;
            wrong.extend(judge(&whose, to, &hello.bytes(), must).await.map(|why| format!("{name}, {listener}: {why}")));
        }
    }
    for (name, bytes, must) in versions() {
        tried += 1;
        wrong.extend(judge(&whose, at, &bytes, must).await.map(|why| format!("{name}: {why}")));
    }
    tried += 2;
    wrong.extend(
        judge(&whose, modern, &Hello::of(HOST.as_bytes()).bytes(), Must::Alert(70))
            .await
            .map(|why| format!("TLS 1.2 at modern: {why}")),
    );
    wrong.extend(heartbeat(at).await.err());
    wrong.extend(spoken(&client, at).await);
    wrong.extend(renegotiation(at).await.err());
    let (pieces, broken) = pieces::all(&client, at, length).await;
    wrong.extend(broken);
    let mutated = mutated(&client, at, length).await;
    tried += pieces + mutated;

    let scanned = match length {
        Length::Full => scanners::run(&ground, &proxy).await,
        Length::Short => scanners::Scanned::default(),
    };
    wrong.extend(scanned.findings);
    let alive = proxy.runs() && client.get(at, HOST, "/").await.is_ok_and(|answer| answer.status == 200);
    let panics = panics(&proxy).await;
    if !alive || panics != 0.0 {
        wrong.push(format!("alive: {alive}, {panics} panics"));
    }
    let figure = format!(
        "{pieces} hellos in pieces all answered, {mutated} changed by a bit; 0 panics, alive: {alive}; {}{} wrong",
        scanned.said,
        wrong.len()
    );
    protocol::outcome("one at a time", tried, figure, &wrong)
}

async fn judge(whose: &HashMap<Vec<u8>, &str>, to: SocketAddr, bytes: &[u8], must: Must) -> Option<String> {
    let (said, _) = said_to(to, bytes, SOON).await;
    let shown = match &said {
        Said::Certificate(leaf) => whose.get(leaf).map_or("nobody's certificate", |name| name).to_owned(),
        other => format!("{other:?}"),
    };
    let right = match must {
        Must::Be(name) => shown == name,
        Must::Alert(number) => said == Said::Alert(number),
        Must::BeHarmless => shown == DEFAULT || matches!(said, Said::Alert(_) | Said::Closed),
    };
    (!right).then(|| format!("{shown}, not {must:?}"))
}

/// What names clients ask for, what they must get usually, and where unknown names are refused.
fn names() -> Vec<(&'static str, Hello, Must, Must)> {
    use Must::{Alert, Be, BeHarmless};
    let long = |length: usize| -> Vec<u8> {
        let labels = [b'x'; 60].iter().copied().chain([b'.']).cycle();
        let mut name: Vec<u8> = labels.take(length).collect();
        if let Some(last) = name.last_mut() {
            *last = b'x';
        }
        name
    };
    let raw = |names: &[u8]| Hello { names: Some(names.to_vec()), ..Hello::default() };
    let (known, unknown) = (Be(HOST), Be(DEFAULT));
    vec![
        ("no name", Hello::default(), unknown, Alert(UNKNOWN)),
        ("the name", Hello::of(b"live.test"), known, known),
        ("the name in capitals", Hello::of(b"LIVE.Test"), known, known),
        ("the name and a dot", Hello::of(b"live.test."), known, known),
        ("an unknown name", Hello::of(b"unknown.test"), unknown, Alert(UNKNOWN)),
        ("one byte", Hello::of(b"x"), unknown, Alert(UNKNOWN)),
        ("253 bytes", Hello::of(&long(253)), unknown, Alert(UNKNOWN)),
        ("255 bytes", Hello::of(&long(255)), BeHarmless, BeHarmless),
        ("16,000 bytes", Hello::of(&long(16_000)), BeHarmless, BeHarmless),
        ("an empty name", Hello::of(b""), BeHarmless, BeHarmless),
        ("an address", Hello::of(b"127.0.0.1"), unknown, Alert(UNKNOWN)),
        ("an address of IPv6", Hello::of(b"::1"), BeHarmless, BeHarmless),
        ("no text", Hello::of(b"\xff\x00\xfe"), BeHarmless, BeHarmless),
        ("a zero in the name", Hello::of(b"live.test\0.evil"), BeHarmless, BeHarmless),
        ("a wildcard", Hello::of(b"*.test"), BeHarmless, BeHarmless),
        ("a path", Hello::of(b"../../live.test"), BeHarmless, BeHarmless),
        ("an empty list", raw(&[0, 0]), BeHarmless, BeHarmless),
        ("nothing at all", raw(&[]), BeHarmless, BeHarmless),
        ("a list that ends late", raw(&[0, 200, 0, 0, 1, b'x']), BeHarmless, BeHarmless),
        ("a name that ends late", raw(&[0, 4, 0, 0, 9, b'x']), BeHarmless, BeHarmless),
        ("a name of another kind", raw(&length16(&[7, 0, 1, b'x'])), BeHarmless, BeHarmless),
    ]
}

/// Hellos of other versions, and what is none.
fn versions() -> Vec<(&'static str, Vec<u8>, Must)> {
    let named = Hello::of(HOST.as_bytes());
    let of = |version: u16| Hello { version, record_version: version.min(0x0301), ..named.clone() }.bytes();
    let with = |more: Vec<u8>| Hello { more, ..named.clone() }.bytes();
    let whole = named.bytes();
    // SSL 2: its own head, one cipher, a challenge.
    let ssl2 = [&[0x80, 0x2e, 1, 0, 2, 0, 3, 0, 0, 0, 0x10][..], &[1, 0, 0x80], &[7; 16]].concat();
    vec![
        ("SSL 2", ssl2, Must::BeHarmless),
        ("SSL 3", of(0x0300), Must::Alert(70)),
        ("TLS 1.0", of(0x0301), Must::Alert(70)),
        ("TLS 1.1", of(0x0302), Must::Alert(70)),
        ("TLS 1.2", of(0x0303), Must::Be(HOST)),
        ("a version to come, without the extension", of(0x0305), Must::Be(HOST)),
        ("supported_versions without any of ours", with(extension(43, &[4, 3, 2, 3, 1])), Must::Alert(70)),
        ("no suite of ours", Hello { suites: vec![0x0005, 0x002f], ..named.clone() }.bytes(), Must::Alert(40)),
        ("compression", Hello { compressions: vec![1], ..named.clone() }.bytes(), Must::Alert(47)),
        ("ALPN of another protocol", with(alpn(&[b"imap"])), Must::Alert(120)),
        ("ALPN of nothing", with(alpn(&[])), Must::BeHarmless),
        ("ALPN with an empty name", with(alpn(&[b""])), Must::BeHarmless),
        ("an unknown extension", with(extension(0x0a0a, b"grease")), Must::Be(HOST)),
        ("an extension twice", with([extension(23, &[]), extension(23, &[])].concat()), Must::BeHarmless),
        (
            "fallback of a client that could more",
            {
                let suites = [&named.suites[..], &[0x5600]].concat();
                Hello { suites, ..named.clone() }.bytes()
            },
            Must::Be(HOST),
        ),
        ("an empty record", record(22, 0x0301, &[]), Must::BeHarmless),
        ("a record of 64 KiB", [&[22, 3, 1, 0xff, 0xff][..], &[1; 40_000]].concat(), Must::BeHarmless),
        ("a message of 16 MiB", record(22, 0x0301, &[1, 0xff, 0xff, 0xff, 3, 3]), Must::BeHarmless),
        ("application data first", record(23, 0x0303, b"GET / HTTP/1.1\r\n\r\n"), Must::BeHarmless),
        ("a ServerHello first", record(22, 0x0303, &[2, 0, 0, 4, 3, 3, 0, 0]), Must::BeHarmless),
        ("change_cipher_spec first", record(20, 0x0303, &[1]), Must::BeHarmless),
        ("an alert first", record(21, 0x0303, &[2, 40]), Must::BeHarmless),
        ("heartbeat first", record(24, 0x0303, &[1, 0x40, 0]), Must::BeHarmless),
        ("HTTP in the clear", b"GET / HTTP/1.1\r\nHost: live.test\r\n\r\n".to_vec(), Must::BeHarmless),
        ("two hellos", [whole.clone(), whole].concat(), Must::Be(HOST)),
    ]
}

/// Heartbeats (RFC 6520) that ask for more than they bring: never answered, whether they were agreed on or not.
async fn heartbeat(at: SocketAddr) -> Result<(), String> {
    let hello = Hello { more: extension(15, &[1]), ..Hello::of(HOST.as_bytes()) }.bytes();
    let (said, stream) = said_to(at, &hello, SOON).await;
    let (Said::Certificate(_), Some(mut stream)) = (said.clone(), stream) else {
        return Err(format!("heartbeat: {said:?} to a hello that offers it"));
    };
    let _ = stream.write_all(&record(24, 0x0303, &[1, 0x40, 0])).await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    match rest.windows(3).any(|window| window == [24, 3, 3]) {
        true => Err("heartbeat: it was answered".into()),
        false => Ok(()),
    }
}

/// What is said inside TLS must be what was agreed on; and it must be for the host of the certificate.
async fn spoken(client: &TlsClient, at: SocketAddr) -> Vec<String> {
    let mut wrong = Vec::new();
    let request = "GET / HTTP/1.1\r\nHost: live.test\r\nConnection: close\r\n\r\n";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (protocol, bytes) in [("h2", request), ("http/1.1", preface)] {
        let mut config = (*client.config).clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let client = TlsClient { config: Arc::new(config) };
        let said = match client.connect(at, HOST).await {
            Ok(mut stream) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                let mut said = Vec::new();
                let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await;
                said
            }
            Err(_) => Vec::new(),
        };
        if said.starts_with(b"HTTP/1.1 2") || said.windows(7).any(|window| window == b"x-saw: ") {
            wrong.push(format!("{protocol} agreed on, {:?} answered with 200", bytes.lines().next()));
        }
    }
    match client.open(at, HOST).await {
        Err(why) => wrong.push(why),
        Ok(mut connection) => match connection.get(DEFAULT, "/").await.map(|answer| answer.status) {
            Ok(421) => {}
            other => wrong.push(format!("a host of another certificate: {other:?}, not 421")),
        },
    }
    wrong
}

/// OpenSSL's client is told to shake hands again.
async fn renegotiation(at: SocketAddr) -> Result<(), String> {
    let mut command = tokio::process::Command::new("openssl");
    command.args(["s_client", "-tls1_2", "-servername", HOST, "-connect", &at.to_string()]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().ok_or("no input")?;
    stdin.write_all(b"R\n").await.map_err(|error| error.to_string())?;
    let output = tokio::time::timeout(Duration::from_secs(15), child.wait_with_output()).await;
    drop(stdin);
    let output = output.map_err(|_| "renegotiation: it hangs")?.map_err(|error| error.to_string())?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let refused = said.contains("RENEGOTIATING") && (said.contains("no renegotiation") || said.contains("alert"));
    ensure(refused, format!("renegotiation: not refused: {}", said.lines().last().unwrap_or_default()))
}

/// Hellos in which one bit is another: whatever is said, nothing breaks. How many.
async fn mutated(client: &TlsClient, at: SocketAddr, length: Length) -> usize {
    let hello = pieces::hello(&client.config);
    let mut trying = JoinSet::new();
    let mut tried = 0;
    for bit in (0..hello.len() * 8).step_by(length.pick(1, 61)) {
        let mut changed = hello.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        trying.spawn(async move { said_to(at, &changed, Duration::from_millis(500)).await });
        tried += 1;
        while trying.len() >= AT_ONCE {
            trying.join_next().await;
        }
    }
    trying.join_all().await;
    tried
}

const AT_ONCE: usize = 200;
/// `unrecognized_name` (RFC 6066 section 3).
const UNKNOWN: u8 = 112;
const SOON: Duration = Duration::from_secs(3);
