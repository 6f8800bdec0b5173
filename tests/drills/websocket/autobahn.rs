//! D11: the Autobahn test suite talks to a server of its own, directly and through the proxy: by HTTP/1.1, by HTTP/1.1
//! over TLS, and as streams of HTTP/2. What it says of every case must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use etna_tests::process::Process;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::tls::{Authority, https_listener};
use etna_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::bridge;
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let wstest = match program().await {
        Ok(wstest) => wstest,
        Err(why) => return Outcome::fail(format!("Autobahn cannot be had: {why}")),
    };
    let scene = Scene::alone("autobahn").await;
    let server = server(&wstest, scene.folder()).await;
    let authority = Authority::new(scene.folder());
    scene.put("hosts/localhost/host", authority.host(&authority.issue(&["localhost"]), true)).await;
    scene.put("listeners/https", https_listener(json!({}))).await;
    scene.put(&server_key("a", "s"), server_at(server.1)).await;
    // The server turns away who asks for another port than its own.
    let mut route = frontend("PathRegexp(`.*`)", "a");
    route["Settings"]["PassHostHeader"] = false.into();
    scene.put(&frontend_key("a"), route).await;
    let proxy = scene.proxy_with("etna", &["--seal-key", authority.seal_key()]).await;
    let streams = bridge::start(etna_tests::h2::open(&scene, &proxy).await).await;
    let https = proxy.listener("https").await;
    let ways = [
        (DIRECT, format!("ws://{}", server.1)),
        ("http1", format!("ws://{}", proxy.listen)),
        ("tls", format!("wss://localhost:{}", https.port())),
        ("http2", format!("ws://{streams}")),
    ];
    let said = match suite(&wstest, scene.folder(), &ways, length).await {
        Ok(said) => said,
        Err(why) => return Outcome::fail(why),
    };
    let mut wrong: Vec<String> = Vec::new();
    let (mut many, mut passed) = (0, 0);
    let direct = said.get(DIRECT).cloned().unwrap_or_default();
    for (case, plain) in &direct {
        many += 1;
        passed += usize::from(is_good(plain));
        for (way, _) in &ways[1..] {
            let through = said.get(*way).and_then(|cases| cases.get(case));
            if through != Some(plain) {
                wrong.push(format!("{case} by {way}: {through:?}, directly {plain:?}"));
            }
        }
    }
    let known: BTreeSet<&String> = direct.keys().collect();
    if said.values().any(|cases| cases.keys().any(|case| !known.contains(case))) {
        wrong.push("cases that were not gone through directly".into());
    }
    let chosen = std::env::var_os("ETNA_DRILLS_AUTOBAHN").is_some();
    let least = if chosen { 1 } else { length.pick(340, 247) };
    if many < least || passed * 10 < many * 9 {
        wrong.push(format!("{many} cases directly (>= {least}), of which the server passes {passed}"));
    }
    let tunnels = proxy.metrics().await.sum("etna_tunnels_total", &[]).unwrap_or_default();
    if tunnels < (many * 3) as f64 {
        wrong.push(format!("the proxy counted {tunnels} tunnels"));
    }
    let figure = format!(
        "{many} cases, the server passes {passed} of them; through HTTP/1.1, TLS and HTTP/2 the same, but for {}",
        wrong.len()
    );
    crate::protocol::outcome("one at a time, 4 ways", many * ways.len(), figure, &wrong)
}

/// wstest, installed if need be.
async fn program() -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/autobahn.sh");
    let output = tokio::process::Command::new(script).output().await.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    match output.status.success() {
        true => Ok(PathBuf::from(said.trim())),
        false => Err(said.trim().to_owned()),
    }
}

/// Autobahn's own server, which sends back every message.
async fn server(wstest: &Path, folder: &Path) -> (Process, SocketAddr) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = Command::new(wstest);
    command.args(["--mode", "testeeserver", "--wsuri"]).arg(format!("ws://{address}")).current_dir(folder);
    let process = Process::start("testee", &mut command, folder);
    eventually("Autobahn's server listens", Duration::from_secs(60), async || {
        TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    (process, address)
}

/// What is said of each case, by way.
type Said = BTreeMap<String, BTreeMap<String, Value>>;

/// Goes through all cases on all ways.
async fn suite(wstest: &Path, folder: &Path, ways: &[(&str, String)], length: Length) -> Result<Said, String> {
    let reports = folder.join("reports");
    let servers: Vec<Value> = ways.iter().map(|(way, url)| json!({ "agent": way, "url": url })).collect();
    let spec = json!({
        "outdir": reports, "servers": servers, "cases": cases(length), "exclude-cases": [], "exclude-agent-cases": {},
    });
    let file = folder.join("fuzzingclient.json");
    std::fs::write(&file, spec.to_string()).expect("its orders can be written");
    let mut command = tokio::process::Command::new(wstest);
    command.args(["--mode", "fuzzingclient", "--spec"]).arg(&file).current_dir(folder).kill_on_drop(true);
    let output = tokio::time::timeout(LONG, command.output()).await;
    let output = output.map_err(|_| "Autobahn does not come to an end")?.map_err(|error| error.to_string())?;
    let index = read(&reports.join("index.json"));
    let index = index.ok_or_else(|| format!("Autobahn: {}", String::from_utf8_lossy(&output.stdout)))?;
    let mut said = Said::new();
    for (way, cases) in index.as_object().into_iter().flatten() {
        for (case, line) in cases.as_object().into_iter().flatten() {
            let report = line["reportfile"].as_str().and_then(|file| read(&reports.join(file)));
            let report = report.ok_or_else(|| format!("there is no report of {case} by {way}"))?;
            let kept: serde_json::Map<String, Value> =
                COMPARED.iter().map(|name| ((*name).to_owned(), report[*name].clone())).collect();
            said.entry(way.clone()).or_default().insert(case.clone(), kept.into());
        }
    }
    Ok(said)
}

/// Patterns of the cases: all of 1 to 7, 9 and 10 (framing, pings, reserved bits, opcodes, fragments, UTF-8,
/// closing, limits), and those of 12 and 13 (compression, a thousand messages each) that are not of long messages.
fn cases(length: Length) -> Vec<String> {
    if let Ok(wanted) = std::env::var("ETNA_DRILLS_AUTOBAHN") {
        return wanted.split(' ').map(str::to_owned).collect();
    }
    let mut cases: Vec<String> = [1, 2, 3, 4, 5, 6, 7, 10].iter().map(|section| format!("{section}.*")).collect();
    if length == Length::Full {
        cases.push("9.*".to_owned());
        for (section, kinds) in [(12, 5), (13, 7)] {
            cases.extend((1..=kinds).flat_map(|kind| (1..=4).map(move |size| format!("{section}.{kind}.{size}"))));
        }
    }
    cases
}

/// Reads a report. Some quote surrogates that have no other half, which is no JSON: they stay as they are written.
fn read(path: &Path) -> Option<Value> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace("\\ud", "\\\\ud");
    serde_json::from_str(&text).ok()
}

fn is_good(case: &Value) -> bool {
    let is = |name: &str| matches!(case[name].as_str(), Some("OK" | "NON-STRICT" | "INFORMATIONAL"));
    is("behavior") && is("behaviorClose")
}

/// What does not differ from one direct run to the next: verdicts, messages, close codes and their reasons, how the
/// connection ended, and how many frames of which kind came.
const COMPARED: [&str; 8] = [
    "behavior",
    "behaviorClose",
    "received",
    "remoteCloseCode",
    "remoteCloseReason",
    "wasClean",
    "failedByMe",
    "rxFrameStats",
];
const DIRECT: &str = "direct";
const LONG: Duration = Duration::from_secs(3600);
