//! Where the admin API can be reached, and by whom.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etna_tests::binaries::binary;
use etna_tests::process::Process;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::wait::eventually;

use crate::drill::{Length, Outcome};

/// S2. Loopback by default; beyond it only with a token; a unix socket for its owner and group, who are told apart.
pub(super) async fn guarded(_length: Length) -> Outcome {
    let scene = Scene::open("s2").await;
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    let help = Command::new(binary("etna")).args(["serve", "--help"]).output().expect("etna runs");
    expect(String::from_utf8_lossy(&help.stdout).contains("127.0.0.1:8182"), "the default is not loopback");
    for open in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"] {
        let ended = refused_to_start(&scene, open, &[]).await;
        expect(ended.is_some_and(|said| said.contains("token")), &format!("{open} without a token starts"));
    }
    let file = scene.folder().join("token");
    std::fs::write(&file, TOKEN).expect("a token can be written");
    let token = ["--admin-token-file", file.to_str().expect("a path of ours")];
    std::fs::write(scene.folder().join("short"), "short").expect("a token can be written");
    let short = scene.folder().join("short");
    let flags = ["--admin-token-file", short.to_str().expect("a path of ours")];
    let ended = refused_to_start(&scene, "0.0.0.0:0", &flags).await;
    expect(ended.is_some(), "a token of five characters will do");

    let flags = [&["--admin", "0.0.0.0:0"][..], &token].concat();
    let open = Proxy::launch("open", &scene.store(), &flags, scene.folder(), Duration::from_secs(20)).await;
    let status = etna_tests::client::get(([127, 0, 0, 1], open.admin.port()).into(), "127.0.0.1", "/v3/status").await;
    expect(status.is_ok_and(|answer| answer.status == 401), "who shows no token sees the status");

    let socket = scene.folder().join("etna.sock");
    let mut command = Command::new(binary("etna"));
    command.args(["serve", "--store", &scene.store(), "--listen", "127.0.0.1:0", "--workers", "1"]);
    command
        .args(["--admin", &format!("unix:{}", socket.display()), "--state-dir"])
        .arg(scene.folder().join("unix-state"));
    let mut process = Process::start("unix", &mut command, scene.folder());
    eventually("the socket answers", Duration::from_secs(20), async || ask(&socket, "GET", "/healthz")).await;
    let about = std::fs::metadata(&socket).expect("the socket is there");
    let mode = about.mode() & 0o777;
    expect(about.file_type().is_socket() && mode == 0o660, "the socket's mode is not 0660");
    let _ = ask(&socket, "DELETE", "/v2/backends/none");
    let me = format!("unix uid={} pid={}", about.uid(), std::process::id());
    eventually("the audit names user and process", Duration::from_secs(20), async || {
        let said = process.said();
        if said.contains(&me) { Ok(()) } else { Err(said) }
    })
    .await;
    let stranger = as_stranger(&socket);
    expect(stranger != Some(true), "another user gets in");
    process.kill();
    let figure = format!(
        "socket mode {mode:o}, audit says {me:?}; another user: {}; {}",
        match stranger {
            Some(true) => "let in",
            Some(false) => "turned away",
            None => "not tried, that needs root and setpriv",
        },
        if wrong.is_empty() { "non-loopback without token refused".into() } else { wrong.join("; ") }
    );
    Outcome { load: "none".into(), figure, pass: wrong.is_empty(), ..Outcome::default() }
}

/// What it said when it ended with a failure; `None` if it did not end, or was content.
async fn refused_to_start(scene: &Scene, admin: &str, flags: &[&str]) -> Option<String> {
    let mut command = Command::new(binary("etna"));
    command.args(["serve", "--store", &scene.store(), "--listen", "127.0.0.1:0", "--admin", admin, "--state-dir"]);
    command.arg(scene.folder().join("open-state")).args(flags);
    let name = format!("refused-{}", admin.len());
    let mut process = Process::start(&name, &mut command, scene.folder());
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if let Some(status) = process.ended() {
            return (!status.success()).then(|| process.said());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// One request over a unix socket.
pub(super) fn ask(socket: &Path, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: etna\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Whether somebody who is neither its owner nor of its group can connect; `None` if that cannot be tried.
fn as_stranger(socket: &Path) -> Option<bool> {
    // The folders above are private, too; here it is the socket's own mode that counts.
    let open = Path::new("/tmp").join(format!("etna-drill-{}", std::process::id()));
    std::fs::create_dir(&open).ok()?;
    let link = open.join("sock");
    let made = std::fs::hard_link(socket, &link);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "--silent", "--max-time", "5"]);
    command.arg("--unix-socket").arg(&link).arg("http://etna/healthz");
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let _ = std::fs::set_permissions(&open, open_to_all);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = std::fs::remove_dir_all(&open);
    made.ok()?;
    match status.ok()?.code()? {
        0 => Some(true),
        // curl: could not connect.
        7 => Some(false),
        _ => None,
    }
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
