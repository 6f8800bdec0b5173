//! USR2: another binary takes over, and nobody notices; one that cannot changes nothing.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use etna_tests::binaries::binary;
use etna_tests::client::{Connection, request, send};
use etna_tests::etcd::folder;
use etna_tests::load::Load;
use etna_tests::process::{Process, is_running, signal};
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::Scene;
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::turn::Turn;
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixDatagram, UnixStream};

async fn all_right(what: &str, loads: [Load; 2]) {
    for (kind, load) in ["kept", "new"].into_iter().zip(loads) {
        let report = load.stop().await;
        measured(&format!("{what}, {kind} connections: {}", report.summary()));
        report.assert_all_right();
    }
}

/// Puts a program where another one lies that may be running.
fn put(program: &Path, content: &[u8]) {
    let new = program.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, program).unwrap();
}

async fn ended(pid: u32, within: Duration) {
    eventually("the former process ends", within, async || ensure(!is_running(pid), "it runs")).await;
}

async fn tunnel(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

async fn echo(stream: &mut TcpStream) {
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    tokio::time::timeout(SOON, stream.read_exact(&mut back)).await.expect("it comes back").expect("it is open");
    assert_eq!(&back, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_upgrades_under_load_fail_nothing() {
    let scene = Scene::alone("upgrade").await;
    let (a, slow) = (StandIn::start("a").await, StandIn::start("slow").await);
    slow.set(Manner::Slow(Duration::from_secs(3)));
    scene.route("a", "a.test", &[("s", a.address)]).await;
    scene.route("slow", "slow.test", &[("s", slow.address)]).await;
    scene
        .put("listeners/web", json!({"Protocol": "http", "Address": {"Network": "tcp", "Address": "127.0.0.1:0"}}))
        .await;
    let (mut proxy, _) = scene.upgradable("etna", &[]).await;
    let listeners = proxy.json("/v3/status").await["listeners"].clone();
    assert!(listeners["web"].is_string(), "{listeners}");

    let load = Load::both(proxy.listen, [300, 60], 32);
    load[0].more(100).await;
    let mut formers = Vec::new();
    let mut open = tunnel(proxy.listen).await;
    for n in 1..=3 {
        let mut idle = Connection::open(proxy.listen).await.unwrap();
        assert_eq!(idle.get("a.test", "/idle").await.unwrap().status, 200);
        let listen = proxy.listen;
        let running = tokio::spawn(async move { etna_tests::client::get(listen, "slow.test", "/").await });
        eventually("the slow server has it", SOON, async || ensure(slow.requests() == n, "not yet")).await;
        formers.push(proxy.upgrade().await);
        // A connection of the former process has one more answer, and is told to go.
        eventually("it is told to go", SOON, async || {
            let last = idle.get("a.test", "/last").await.expect("an answer");
            assert_eq!(last.status, 200);
            ensure(last.header("connection") == "close", "not yet")
        })
        .await;
        assert_eq!(running.await.unwrap().unwrap().status, 200);
        assert_eq!(proxy.json("/v3/status").await["listeners"], listeners);
        load[0].more(200).await;
    }
    echo(&mut open).await;
    all_right("three upgrades", load).await;

    assert_eq!(proxy.metrics().await.sum("etna_upgrades_total", &[("result", "ok")]), Some(3.0));
    let status = proxy.json("/v3/status").await;
    assert_eq!((&status["last_upgrade"]["ok"], &status["last_upgrade"]["from"]), (&json!(true), &json!(formers[2])));
    // They end when they have nothing left: the first one with its tunnel.
    ended(formers[1], SOON).await;
    ended(formers[2], SOON).await;
    assert!(is_running(formers[0]));
    drop(open);
    assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
    let last = proxy.pid();
    proxy.terminate();
    ended(last, LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_that_cannot_serve_changes_nothing() {
    let scene = Scene::alone("badbinary").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let (mut proxy, program) = scene.upgradable("etna", &["--upgrade-timeout", "10"]).await;
    let real = binary("etna");
    let real = real.to_str().unwrap();
    let load = Load::both(proxy.listen, [300, 60], 32);
    load[0].more(100).await;
    let cases = [
        ("#!/bin/sh\nexit 3\n".to_owned(), "exit status: 3"),
        ("#!/bin/sh\nkill -SEGV $$\n".to_owned(), "signal: 11"),
        ("#!/bin/sh\nexec sleep 600\n".to_owned(), "not ready within 10s"),
        ("#!/bin/sh\nexec 0</dev/null\nexec sleep 600\n".to_owned(), "the new process went wrong"),
        ("no program".to_owned(), "cannot start"),
        // A configuration that it does not understand, and a store that does not answer.
        (format!("#!/bin/sh\nexec {real} serve --no-such-flag\n"), "exit status: 64"),
        (format!("#!/bin/sh\nexec {real} \"$@\" --store nonsense:\n"), "exit status: "),
        (format!("#!/bin/sh\nETNA_STORE_PASSWORD_FILE=/nowhere exec {real} \"$@\" --store-user x\n"), "exit status: 1"),
    ];
    let pid = proxy.pid();
    let mut failed = 0;
    for (content, why) in &cases {
        put(&program, content.as_bytes());
        proxy.replace();
        failed += 1;
        let reason = proxy.not_replaced(failed).await;
        assert!(reason.contains(why), "{content}: {reason}");
        assert_eq!(proxy.pid(), pid);
    }
    std::fs::remove_file(&program).unwrap();
    proxy.replace();
    let reason = proxy.not_replaced(failed + 1).await;
    assert!(reason.contains("cannot start"), "{reason}");
    assert_eq!(proxy.metrics().await.sum("etna_upgrades_total", &[("result", "failed")]), Some((failed + 1) as f64));

    // The next attempt works.
    put(&program, &std::fs::read(real).unwrap());
    proxy.upgrade().await;
    load[0].more(100).await;
    all_right("upgrades that fail", load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_goes_over_and_comes_back() {
    let _turn = Turn::shared().await;
    let folder = folder("upgrade-embedded");
    let a = StandIn::start("a").await;
    let program = folder.path().join("bin-etna");
    std::fs::copy(binary("etna"), &program).unwrap();
    let store = format!("embedded:{}", folder.path().join("store").display());
    let mut proxy = Proxy::start_upgradable("etna", &program, &store, &[], folder.path()).await;
    let put_backend = async |proxy: &Proxy, id: &str| {
        let body = json!({ "Backend": { "Id": id, "Type": "http" } });
        let body = Full::from(body.to_string());
        let to = proxy.admin;
        let request = request("POST", &to.to_string(), "/v2/backends").header("content-type", "application/json");
        let answer = send(to, request.body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    put_backend(&proxy, "one").await;

    // It opens the store, and then cannot listen.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let real = binary("etna");
    let (real, taken) = (real.display(), taken.local_addr().unwrap());
    put(&program, format!("#!/bin/sh\nexec {real} \"$@\" --listen {taken}\n").as_bytes());
    proxy.replace();
    let reason = proxy.not_replaced(1).await;
    assert!(reason.contains("exit status: 1"), "{reason}");
    proxy.until_said("cannot listen on").await;
    put_backend(&proxy, "two").await;

    put(&program, &std::fs::read(binary("etna")).unwrap());
    for id in ["three", "four"] {
        let former = proxy.upgrade().await;
        put_backend(&proxy, id).await;
        ended(former, SOON).await;
    }
    let stored = proxy.json("/v2/backends").await.to_string();
    for id in ["one", "two", "three", "four"] {
        assert!(stored.contains(id), "{stored}");
    }
    drop(a);
}

#[tokio::test]
async fn the_admin_apis_unix_socket_goes_over() {
    let _turn = Turn::shared().await;
    let folder = folder("upgrade-unix");
    let (path, state) = (folder.path().join("etna.sock"), folder.path().join("state"));
    let program = folder.path().join("bin-etna");
    std::fs::copy(binary("etna"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["serve", "--store", "memory:", "--listen", "127.0.0.1:0", "--workers", "1", "--admin"]);
    command.arg(format!("unix:{}", path.display())).arg("--state-dir").arg(&state).stdin(Stdio::null());
    let process = Process::start_group("etna", &mut command, folder.path());
    let serving = async |pid: Option<u32>| {
        eventually("it answers on its path", Duration::from_secs(20), async || {
            let mut stream = UnixStream::connect(&path).await.map_err(|error| error.to_string())?;
            let asked = b"GET /v3/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(asked).await.map_err(|error| error.to_string())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
            let body = answer.split_once("\r\n\r\n").ok_or("no answer")?.1;
            let status: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
            ensure(status["ready"] == true, "not ready")?;
            let now = status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).ok_or("no pid")?;
            ensure(pid.is_none_or(|former| former != now), format!("still {now}; {}", process.said()))?;
            Ok::<u32, String>(now)
        })
        .await
    };
    let first = serving(None).await;
    assert_eq!(first, process.pid());
    signal(first, "USR2");
    let second = serving(Some(first)).await;
    ended(first, SOON).await;
    put(&program, b"#!/bin/sh\nexit 1\n");
    signal(second, "USR2");
    process.until_said("not replaced").await;
    assert_eq!(serving(None).await, second);
    signal(second, "TERM");
    ended(second, LONG).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn what_drains_is_not_replaced() {
    let scene = Scene::open("draining-upgrade").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let (mut proxy, _) = scene.upgradable("etna", &[]).await;
    let former = proxy.pid();
    proxy.terminate();
    proxy.until_said("draining").await;
    proxy.replace();
    assert_eq!(proxy.end(LONG).await.code(), Some(0), "{}", proxy.said());
    proxy.until_said("while draining: refused").await;
    assert!(!is_running(former) && !proxy.said().contains("took over"));
}

#[tokio::test]
async fn what_is_told_to_stop_while_it_is_replaced_stops_and_leaves_no_process() {
    let scene = Scene::open("stop-upgrade").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let (mut proxy, program) = scene.upgradable("etna", &["--drain-grace", "0"]).await;
    let file = scene.folder().join("pid");
    put(&program, format!("#!/bin/sh\necho $$ >{0}.new; mv {0}.new {0}; exec sleep 600\n", file.display()).as_bytes());
    proxy.replace();
    let new: u32 = eventually("the new binary runs", SOON, async || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        text.trim().parse::<u32>().map_err(|error| error.to_string())
    })
    .await;
    proxy.terminate();
    assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
    ended(new, SOON).await;
}

#[tokio::test]
async fn a_new_process_carries_on_when_the_old_one_is_killed_meanwhile() {
    let scene = Scene::open("orphan").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let (mut proxy, program) = scene.upgradable("etna", &[]).await;
    // It waits for a file before it becomes the real one.
    let (began, go) = (scene.folder().join("began"), scene.folder().join("go"));
    let script = format!(
        "#!/bin/sh\ntouch {}\nuntil [ -e {} ]; do sleep 0.05; done\nexec {} \"$@\"\n",
        began.display(),
        go.display(),
        binary("etna").display()
    );
    put(&program, script.as_bytes());
    let (listen, former) = (proxy.listen, proxy.pid());
    proxy.replace();
    eventually("the new binary runs", SOON, async || ensure(began.exists(), "not yet")).await;
    proxy.until_said("the sockets were given to the new process").await;
    signal(former, "KILL");
    assert!(!proxy.end(SOON).await.success());
    // Nobody accepts, and nobody is refused: the sockets are held.
    let waiting = tokio::spawn(async move { etna_tests::client::get(listen, "a.test", "/").await });
    std::fs::write(&go, "").unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status, 200, "{}", proxy.said());
}

/// What a service manager hears, until something is said.
async fn hear(from: &UnixDatagram, said: &mut Vec<String>, word: &str) {
    let mut buffer = [0; 4096];
    while !said.iter().any(|said| said == word) {
        let got = tokio::time::timeout(Duration::from_secs(20), from.recv(&mut buffer)).await;
        let length = got.unwrap_or_else(|_| panic!("{word} is not said: {said:?}")).unwrap();
        said.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
    }
}

#[tokio::test]
async fn the_service_manager_is_told_who_serves_and_its_watchdog_is_fed() {
    let _turn = Turn::shared().await;
    let folder = folder("upgrade-notify");
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let program = folder.path().join("bin-etna");
    std::fs::copy(binary("etna"), &program).unwrap();
    let script = format!(
        "export WATCHDOG_PID=$$ WATCHDOG_USEC=900000; exec {} serve --store memory: --listen 127.0.0.1:0 \
         --admin 127.0.0.1:0 --workers 1 --state-dir {}",
        program.display(),
        folder.path().join("state").display()
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).env("NOTIFY_SOCKET", folder.path().join("notify")).stdin(Stdio::null());
    let mut process = Process::start_group("etna", &mut command, folder.path());
    let mut said = Vec::new();
    hear(&manager, &mut said, "READY=1").await;
    hear(&manager, &mut said, "WATCHDOG=1").await;

    said.clear();
    process.signal("USR2");
    hear(&manager, &mut said, "RELOADING=1").await;
    said.clear();
    hear(&manager, &mut said, "READY=1").await;
    let successor = said.iter().find_map(|said| said.strip_prefix("MAINPID=")).expect("it names its successor");
    let successor: u32 = successor.parse().unwrap();
    assert_ne!(successor, process.pid());
    assert_eq!(process.end(SOON).await.code(), Some(0), "{}", process.said());
    assert!(!said.iter().any(|said| said == "STOPPING=1"), "{said:?}");
    // The former process is gone: it is the new one that feeds it.
    while manager.try_recv(&mut [0; 4096]).is_ok() {}
    said.clear();
    hear(&manager, &mut said, "WATCHDOG=1").await;

    put(&program, b"#!/bin/sh\nexit 1\n");
    signal(successor, "USR2");
    said.clear();
    hear(&manager, &mut said, "RELOADING=1").await;
    hear(&manager, &mut said, "READY=1").await;
    assert!(!said.iter().any(|said| said.starts_with("MAINPID=")), "{said:?}");
    signal(successor, "INT");
    hear(&manager, &mut said, "STOPPING=1").await;
    ended(successor, SOON).await;
}

/// Until something has happened, on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(30);
/// Until a process has ended that lets idle connections stand for some seconds.
const LONG: Duration = Duration::from_secs(60);
