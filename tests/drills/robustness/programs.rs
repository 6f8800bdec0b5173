//! What other programs find: fuzzers, cargo-deny, unit tests with injected panics, valgrind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use etna_tests::process::try_output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;

use crate::drill::{Length, Outcome};
use crate::protocol::oracle::Oracle;
use crate::protocol::wire::Wire;

/// Every fuzz target was run and found nothing, as `fuzz/README.md` says, and its seeds find nothing now. With
/// `ETNA_DRILLS_FUZZ_SECONDS` each is run for so long again.
pub(super) async fn fuzz() -> Outcome {
    let readme = std::fs::read_to_string(root().join("fuzz/README.md")).unwrap_or_default();
    let (listed, last) = readme.split_once("## Last runs").unwrap_or((&readme, ""));
    let names = |text: &str, begins: &str| -> BTreeSet<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix(begins)?.split(['`', '|']).next());
        rows.map(|name| name.trim().to_owned())
            .filter(|name| name.bytes().any(|byte| byte.is_ascii_lowercase()))
            .collect()
    };
    let listed = names(listed, "| `");
    let runs = last.lines().filter(|line| line.contains("| none")).collect::<Vec<_>>().join("\n");
    let clean = names(&runs.replace('`', ""), "| ");
    let mut wrong: Vec<String> =
        listed.difference(&clean).map(|name| format!("{name}: no clean run is told of")).collect();
    if listed.is_empty() {
        wrong.push("fuzz/README.md lists no targets".into());
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--quiet", "--test", "seeds"]);
    for package in ["etna-store", "etna-proxy", "etna-sidekick"] {
        command.args(["--package", package]);
    }
    let (mut figure, pass) = told(run(&mut command).await, "their seeds");
    if !pass {
        wrong.push(figure.clone());
    }
    if let Ok(seconds) = std::env::var("ETNA_DRILLS_FUZZ_SECONDS") {
        let (said, pass) = told(run(Command::new("scripts/fuzz.sh").arg(&seconds)).await, "each again");
        figure = format!("{figure}; {seconds} s {said}");
        if !pass {
            wrong.push(said);
        }
    }
    let figure = format!("{} targets, {} with a clean run; {figure}", listed.len(), clean.len());
    crate::protocol::outcome("seeds", listed.len(), figure, &wrong)
}

/// Licences, sources, known vulnerabilities; and no `unsafe` in what is ours.
pub(super) async fn dependencies() -> Outcome {
    let mut wrong = Vec::new();
    let mut files = 0;
    for package in ["store", "proxy", "sidekick", "ctl", "tests", "benches"] {
        rust_files(&root().join(package), &mut |path, text| {
            files += 1;
            let is_code =
                |line: &&str| !line.trim_start().starts_with("//") && !line.contains('"') && !line.contains('`');
            let found = text
                .lines()
                .filter(is_code)
                .find(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe"));
            if let Some(line) = found {
                wrong.push(format!("{}: {line}", path.display()));
            }
        });
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap_or_default();
    if !manifest.contains("unsafe_code = \"forbid\"") {
        wrong.push("the workspace does not forbid unsafe code".into());
    }
    let checked = run(&mut Command::new("scripts/deny.sh")).await;
    let unchecked = checked.as_ref().is_ok_and(|said| said.contains("NOT CHECKED"));
    let (said, passed) = told(checked, "cargo deny");
    if !passed {
        wrong.push(said.clone());
    }
    let vulnerabilities =
        if unchecked { ", known vulnerabilities NOT CHECKED: their list cannot be fetched" } else { "" };
    let figure = format!("no unsafe in {files} files; {said}{vulnerabilities}");
    crate::protocol::outcome("-", files, figure, &wrong)
}

/// The proxy's own tests with injected panics: in a request's handler, in the store's watch, in what is asked of the
/// admin API.
pub(super) async fn panics() -> Outcome {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--quiet", "--package", "etna-proxy", "--lib", "--test", "panics", "--", "panic"]);
    let run = run(&mut command).await;
    let tests = run.as_ref().map_or(0, |said| said.matches("... ok").count().max(said.matches(" passed").count()));
    let (figure, pass) = told(run, "injected panics");
    Outcome { load: "cargo test panic".into(), requests: tests as u64, failed: u64::from(!pass), figure, pass }
}

/// Memory errors in a run under valgrind, slow as it is. Of the heap it sees only what does not come from mimalloc.
pub(super) async fn valgrind(length: Length) -> Outcome {
    if try_output_of(Command::new("valgrind").arg("--version")).is_err() {
        return Outcome { pass: true, figure: "not checked: there is no valgrind here".into(), ..Outcome::default() };
    }
    let many = length.pick(1000, 50);
    let scene = Scene::alone("valgrind").await;
    let server = Oracle::start().await;
    scene.route("a", "a.test", &[("s", server.address)]).await;
    let log = scene.folder().join("valgrind.log");
    let plain = Proxy::command("etna", &scene.store(), &["--workers", "1"], scene.folder());
    let mut command = Command::new("valgrind");
    command.arg(format!("--log-file={}", log.display())).args(["--error-exitcode=99", "--leak-check=no"]);
    command.arg(plain.get_program()).args(plain.get_args());
    let mut proxy = Proxy::run("etna", command, scene.folder(), Duration::from_secs(180)).await;
    proxy.until_ready(Duration::from_secs(180)).await;
    let mut wrong = Vec::new();
    let mut wire = Wire::open(proxy.listen).await;
    let mut served = 0;
    for n in 0..many {
        let request = match n % 4 {
            0 => format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello"),
            1 => format!(
                "POST /{n} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
            2 => format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5, 5\r\n\r\n"),
            _ => format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\nCookie: {}\r\n\r\n", "x".repeat(n)),
        };
        let expected = if n % 4 == 2 { 400 } else { 200 };
        wire.send(request.as_bytes()).await;
        match wire.reply(false, Duration::from_secs(60)).await {
            // So slow that it sheds some.
            Ok(reply) if reply.status == expected || reply.status == 503 => {
                served += usize::from(reply.status == expected);
                if reply.closes() {
                    wire = Wire::open(proxy.listen).await;
                }
            }
            other => {
                wrong.push(format!("{n}: {other:?}"));
                wire = Wire::open(proxy.listen).await;
            }
        }
    }
    proxy.terminate();
    let status = proxy.end(Duration::from_secs(180)).await;
    let report = std::fs::read_to_string(&log).unwrap_or_default();
    let summary = report.lines().rev().find_map(|line| Some(line.split_once("ERROR SUMMARY: ")?.1.to_owned()));
    let summary = summary
        .unwrap_or_else(|| format!("no summary: {}", report.lines().rev().take(3).collect::<Vec<_>>().join(" / ")));
    if !summary.starts_with("0 errors") {
        wrong.push(report.lines().filter(|line| line.contains("Invalid") || line.contains("uninit")).take(3).collect());
    }
    if served < many / 2 {
        wrong.push(format!("only {served} were served"));
    }
    if !status.success() {
        wrong.push(format!("ended with {status}"));
    }
    crate::protocol::outcome("one at a time", many, format!("{summary}; {served} served, others shed"), &wrong)
}

/// Runs a program in the workspace; what it said on both channels, or that it failed and what it said last.
async fn run(command: &mut Command) -> Result<String, String> {
    command.current_dir(root());
    let mut owned = std::mem::replace(command, Command::new("true"));
    let joined = tokio::task::spawn_blocking(move || {
        let output = owned.stdin(std::process::Stdio::null()).output().map_err(|error| error.to_string())?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        if output.status.success() { Ok(said) } else { Err(format!("{}: {said}", output.status)) }
    });
    joined.await.expect("it ran")
}

fn told(run: Result<String, String>, what: &str) -> (String, bool) {
    match run {
        Ok(_) => (format!("{what}: ok"), true),
        Err(why) => {
            let lines: Vec<&str> = why.lines().filter(|line| !line.trim().is_empty()).collect();
            (format!("{what}: {}", lines[lines.len().saturating_sub(12)..].join("\n")), false)
        }
    }
}

fn rust_files(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_owned()
}
