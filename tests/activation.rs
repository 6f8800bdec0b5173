//! Listening sockets that a service manager holds.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use etna_tests::binaries::binary;
use etna_tests::process::Process;
use etna_tests::scene::Scene;
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use serde_json::{Value, json};

/// Starts `etna` as systemd does for a `.socket` unit; connections may wait before it runs.
fn activated(name: &str, socket: TcpListener, scene: &Scene, flags: &str) -> Process {
    let (etna, store) = (binary("etna"), scene.store());
    let state = scene.folder().join("state");
    let script = format!(
        "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_FDNAMES={name} LISTEN_PID=$$; \
         exec {} serve --store {store} --admin 127.0.0.1:0 --workers 2 --state-dir {} {flags}",
        etna.display(),
        state.display()
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).stdin(Stdio::from(OwnedFd::from(socket)));
    Process::start_group("etna", &mut command, scene.folder())
}

/// Waits until it says that it listens there: first it says so of the command line's, then of the store's, too.
async fn until_listening(scene: &Scene, process: &Process, name: &str, address: SocketAddr) {
    let file = scene.folder().join("state/addresses.json");
    eventually("it says its addresses", Duration::from_secs(20), async || {
        let text = std::fs::read(&file).map_err(|error| error.to_string())?;
        let said: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let there = said["listeners"][name] == address.to_string();
        ensure(there && said["pid"] == process.pid(), said.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_socket_of_the_service_manager_is_served_before_and_after_a_restart() {
    let scene = Scene::open("activation").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    for name in ["default", "etna.socket"] {
        // Sent before the process runs; it waits for the first table, too.
        let early = tokio::spawn(async move { etna_tests::client::get(address, "a.test", "/").await });
        let mut process = activated(name, socket.try_clone().unwrap(), &scene, "");
        assert_eq!(early.await.unwrap().unwrap().status, 200, "{}", process.said());
        until_listening(&scene, &process, "default", address).await;
        process.signal("INT");
        assert_eq!(process.end(Duration::from_secs(30)).await.code(), Some(0), "{}", process.said());
    }
}

#[tokio::test]
async fn a_stored_listener_gets_the_socket_of_its_name() {
    let scene = Scene::open("activation-named").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    scene
        .put("listeners/web", json!({"Protocol": "http", "Address": {"Network": "tcp", "Address": "127.0.0.1:1"}}))
        .await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let process = activated("web", socket, &scene, "--listen 127.0.0.1:0");
    assert_eq!(etna_tests::client::get(address, "a.test", "/").await.unwrap().status, 200, "{}", process.said());
    until_listening(&scene, &process, "web", address).await;
}

/// The service manager tries again what failed, but not what cannot work.
#[tokio::test]
async fn settings_that_cannot_work_are_another_exit_code_and_leave_nothing_behind() {
    let scene = Scene::open("unusable").await;
    let state = scene.folder().join("never");
    let run = |flags: &[&str]| {
        let mut command = Command::new(binary("etna"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--state-dir"]).arg(&state).args(flags);
        let output = command.output().expect("etna runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (flags, said) in [
        (["--store", "foo", "--admin", "127.0.0.1:0"], "no such kind of store"),
        (["--store", "memory:", "--admin", "0.0.0.0:0"], "--admin-token-file"),
    ] {
        let (code, text) = run(&flags);
        assert_eq!(code, Some(64), "{text}");
        assert!(text.contains(said), "{text}");
    }
    assert!(!state.exists(), "something was made before the settings were looked at");
}
