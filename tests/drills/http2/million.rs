//! H1: a million requests of other people's clients, each answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use etna_tests::process::try_output_of;
use etna_tests::scene::Scene;
use etna_tests::tls::{Authority, https_listener};
use serde_json::json;

use crate::denial::Memory;
use crate::drill::{Length, Outcome};
use crate::streaming::quick_server;

pub(super) async fn run(length: Length) -> Outcome {
    let wanted: u64 = length.pick(1_000_000, 20_000);
    let scene = Scene::alone("million").await;
    let authority = Authority::new(scene.folder());
    scene.put("hosts/localhost/host", authority.host(&authority.issue(&["localhost"]), true)).await;
    scene.put("listeners/https", https_listener(json!({}))).await;
    scene.route("a", "localhost", &[("s", quick_server().await)]).await;
    let roots = scene.folder().join("authority.pem");
    std::fs::write(&roots, authority.pem()).expect("the authority can be written");
    let roots = roots.display().to_string();
    let proxy = scene.proxy_with("etna", &["--seal-key", authority.seal_key()]).await;
    let at = proxy.listener("https").await;
    let mut wrong: Vec<String> = Vec::new();
    for (program, arguments, holds) in others(at, &roots) {
        match said(program, arguments).await {
            Ok(text) if text.contains(holds) => {}
            other => wrong.push(format!("{program}: {other:?}")),
        }
    }
    let memory = Memory::watch(proxy.pid());
    let url = format!("https://localhost:{}/", at.port());
    let load = format!("--requests={wanted} --clients={CLIENTS} --max-concurrent-streams={STREAMS} --threads=1");
    let arguments = load.split(' ').map(str::to_owned).chain(["--header=:authority:localhost".to_owned(), url]);
    let text = said("h2load", arguments.collect()).await.unwrap_or_else(|why| why);
    let grown = memory.stop().await / 1024.0 / 1024.0;
    let counts = counts(&text);
    let count = |name: &str| counts.get(name).copied().unwrap_or_default();
    let failed = wanted - count("succeeded").min(wanted);
    if failed > 0 || count("failed") + count("errored") + count("timeout") > 0 || count("2xx") != wanted {
        wrong.push(format!("h2load: {}", lines(&text, &["requests:", "status codes:"])));
    }
    let streams = proxy.metrics().await.sum("etna_http2_streams_total", &[]).unwrap_or_default();
    if streams < wanted as f64 {
        wrong.push(format!("the proxy counted {streams} streams"));
    }
    let figure = format!(
        "curl and nghttp served; {} of {wanted} answered 2xx, {} failed, {} errored; {}; memory +{grown:.1} MB",
        count("2xx"),
        count("failed"),
        count("errored"),
        lines(&text, &["finished in"]),
    );
    let mut outcome = crate::protocol::outcome(
        &format!("{CLIENTS} connections x {STREAMS} streams, TLS"),
        usize::try_from(wanted).unwrap_or(usize::MAX),
        figure,
        &wrong,
    );
    outcome.failed = outcome.failed.max(failed);
    outcome
}

/// Clients that nobody here wrote, what they are told, and what they must say.
fn others(at: SocketAddr, roots: &str) -> [(&'static str, Vec<String>, &'static str); 2] {
    let port = at.port();
    let url = format!("https://localhost:{port}/");
    let curl = ["--silent", "--show-error", "--http2", "--cacert", roots, "--resolve"];
    let resolved = format!("localhost:{port}:{}", at.ip());
    let curl = curl.into_iter().chain([
        &*resolved,
        "--header",
        "Host: localhost",
        "--write-out",
        "%{http_version} %{http_code}",
        &url,
    ]);
    let nghttp = ["--verbose", "--header=:authority: localhost", &*url];
    [
        ("curl", curl.map(str::to_owned).collect(), "ok2 200"),
        ("nghttp", nghttp.map(str::to_owned).to_vec(), ":status: 200"),
    ]
}

/// What a program says, while the server in this process goes on.
async fn said(program: &'static str, arguments: Vec<String>) -> Result<String, String> {
    let running = tokio::task::spawn_blocking(move || try_output_of(Command::new(program).args(arguments)));
    running.await.expect("it was run")
}

/// The numbers that h2load gives, by what they count: `20000 succeeded`.
fn counts(text: &str) -> BTreeMap<&str, u64> {
    let told = text.lines().filter(|line| line.starts_with("requests:") || line.starts_with("status codes:"));
    let pairs = told.flat_map(|line| line.split_once(':').map_or("", |(_, rest)| rest).split(','));
    pairs.filter_map(|pair| pair.trim().split_once(' ')).filter_map(|(n, what)| Some((what, n.parse().ok()?))).collect()
}

fn lines(text: &str, beginnings: &[&str]) -> String {
    let wanted = |line: &&str| beginnings.iter().any(|beginning| line.starts_with(beginning));
    text.lines().filter(wanted).collect::<Vec<_>>().join(" · ")
}

const CLIENTS: u32 = 20;
const STREAMS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_counts_is_read() {
        let text = "requests: 20 total, 20 started, 20 done, 19 succeeded, 1 failed, 0 errored, 0 timeout\n\
            status codes: 19 2xx, 0 3xx, 0 4xx, 1 5xx\n";
        let counts = counts(text);
        assert_eq!((counts["succeeded"], counts["failed"], counts["2xx"], counts["5xx"]), (19, 1, 19, 1));
    }
}
