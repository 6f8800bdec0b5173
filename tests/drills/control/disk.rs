//! The last table on disk: what a start without etcd serves, and what damage must not make it serve.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use etna_tests::etcd::Settings;
use etna_tests::process::try_output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};

use super::ground::{Ground, LONG, bare, ms, put_to_served, state_of};
use crate::bed::{HOST, Rate};
use crate::drill::{Length, Outcome};

/// C6. With a table on disk it serves at once; without one it listens, says why it serves nothing, and waits.
pub(super) async fn cold_start(length: Length) -> Outcome {
    let mut ground = Ground::open("c6", 1, Settings::default(), length).await;
    ground.proxy.until_kept(1).await;
    ground.scene.etcd.kill(0);
    ground.proxy.kill();
    let began = Instant::now();
    ground.proxy = Proxy::launch("etna", &ground.scene.store(), &[], ground.scene.folder(), LONG).await;
    eventually("a request is served", LONG, async || {
        let answer = ground.proxy.get(HOST, "/").await?;
        ensure(answer.status == 200, format!("{}", answer.status))
    })
    .await;
    let first = began.elapsed();
    let (scene, proxy) = (&ground.scene, &ground.proxy);
    let traffic = ground.load(Rate::L2k).await;
    let status = proxy.json("/v3/status").await;
    let stale = status["stale"] == true;

    let mut empty = Proxy::launch("empty", &scene.store(), &[], scene.folder(), LONG).await;
    let ready = empty.admin_get("/readyz").await.expect("it answers");
    let asked = empty.get(HOST, "/").await.expect("it listens");
    let says = ready.status == 503 && ready.text().contains("store") && asked.status == 503 && !asked.body.is_empty();
    traffic.go_on(Duration::from_secs(length.pick(10, 1))).await;
    scene.etcd.resume(0);
    scene.etcd.ready(0).await;
    let back = Instant::now();
    empty.until_ready(LONG).await;
    let became = back.elapsed();
    let served = empty.get(HOST, "/").await.map_or(0, |answer| answer.status);
    put_to_served(scene, proxy, "back").await;
    let figure = format!(
        "with a table: first 200 after {}, stale={stale}; without: 503 and says {:?}, the same process ready {} after \
         etcd is there, then {served}",
        ms(first),
        ready.text().chars().take(60).collect::<String>(),
        ms(became)
    );
    ground.outcome(traffic, figure, stale && says && served == 200 && empty.runs() && length.fast(first < LATE)).await
}

/// C7. The newest of two generations is damaged in every way; the older one, which leads elsewhere, must serve.
pub(super) async fn damaged(length: Length) -> Outcome {
    let scene = Scene::with_etcd("c7", 1).await;
    let (older, newer) = (StandIn::start("older").await, StandIn::start("newer").await);
    scene.route("a", "a.test", &[("s", older.address)]).await;
    let mut proxy = scene.proxy("etna").await;
    proxy.until_kept(1).await;
    proxy.until_kept(scene.route("a", "a.test", &[("s", newer.address)]).await).await;
    proxy.kill();
    scene.etcd.kill(0);
    let newest = proxy.last_table().expect("it is kept");
    let previous = newest.with_extension("1");
    let (whole, before) = (read(&newest), read(&previous));
    let mode = mode(&newest);

    let cases = length.pick(200, 8);
    let mut damage: Vec<(String, Vec<u8>)> = Vec::new();
    for n in 0..cases {
        let at = n * whole.len() / cases;
        damage.push((format!("cut off at {at}"), whole[..at].to_vec()));
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (n % 8);
        damage.push((format!("bit {} of byte {at} flipped", n % 8), flipped));
    }
    for version in [0, 2, 255] {
        let mut other = whole.clone();
        other[VERSION] = version;
        damage.push((format!("version {version}"), other));
    }
    damage.push(("longer".into(), [&whole[..], b"x"].concat()));
    let mut wrong = Vec::new();
    for (what, bytes) in &damage {
        write(&newest, bytes);
        write(&previous, &before);
        let got = start_on(&scene, true).await;
        if got != "200 older" {
            wrong.push(format!("{what}: {got}"));
        }
    }
    // Whole, it serves; both damaged, nothing does.
    write(&newest, &whole);
    let intact = start_on(&scene, true).await;
    for (what, bytes) in damage.iter().step_by(damage.len().div_ceil(length.pick(20, 3))) {
        write(&newest, bytes);
        write(&previous, bytes);
        let got = start_on(&scene, false).await;
        if got != "503 " {
            wrong.push(format!("both generations, {what}: {got}"));
        }
    }
    drop(scene);
    let disk = match length {
        Length::Full => no_disk().await,
        Length::Short => Ok("disk full and read-only: at full length".into()),
    };
    let pass = wrong.is_empty() && intact == "200 newer" && mode == 0o600 && disk.is_ok();
    let figure = format!(
        "{} ways of damage, {} wrong {:?}; undamaged: {intact}; mode {mode:o}; {}",
        damage.len(),
        wrong.len(),
        wrong.iter().take(3).collect::<Vec<_>>(),
        disk.unwrap_or_else(|error| error)
    );
    Outcome { load: "starts without etcd".into(), requests: damage.len() as u64, figure, pass, ..Outcome::default() }
}

/// Starts on what lies there, without etcd; what a client gets, or how it ended.
async fn start_on(scene: &Scene, ready: bool) -> String {
    let flags = ["--workers", "1"];
    let mut proxy = Proxy::launch("etna", &scene.store(), &flags, scene.folder(), LONG).await;
    if ready {
        let until = Instant::now() + LONG;
        while Instant::now() < until && proxy.admin_get("/readyz").await.is_ok_and(|ready| ready.status == 503) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    } else {
        // By then it has looked.
        eventually("it has seen that the store is away", LONG, async || {
            let status = proxy.json("/v3/status").await;
            ensure(!status["error"].is_null(), status.to_string())
        })
        .await;
    }
    let answer = proxy.get("a.test", "/").await;
    let (runs, panicked) = (proxy.runs(), proxy.said().contains("panicked"));
    proxy.kill();
    match answer {
        _ if panicked || !runs => "panicked or ended".into(),
        Ok(answer) => format!("{} {}", answer.status, answer.server()),
        Err(error) => error,
    }
}

/// A disk that is full, then one that is read-only, under a load: told, and nothing that was on it is lost.
async fn no_disk() -> Result<String, String> {
    let (scene, servers) = bare("c7-disk", 1, Settings::default()).await;
    let state = state_of(&scene, "etna");
    std::fs::create_dir_all(&state).map_err(|error| error.to_string())?;
    let Ok(disk) = Mounted::small(&state) else {
        return Ok("disk full and read-only: not tried, mounting needs root".into());
    };
    let proxy = scene.proxy("etna").await;
    proxy.until_kept(1).await;
    let mut ground = Ground::around(scene, servers, proxy, Length::Full).await;
    let (scene, proxy) = (&ground.scene, &ground.proxy);
    let traffic = ground.load(Rate::L2k).await;
    let filler = state.join("filler");
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    put_to_served(scene, proxy, "full").await;
    until_errors(proxy, 1.0).await;
    std::fs::remove_file(&filler).map_err(|error| error.to_string())?;
    let errors = proxy.metrics().await.sum("etna_last_table_errors_total", &[]).unwrap_or_default();
    disk.remount("ro")?;
    put_to_served(scene, proxy, "readonly").await;
    until_errors(proxy, errors + 1.0).await;
    let outcome = ground.outcome(traffic, "", true).await;
    ground.proxy.kill();
    disk.remount("rw")?;
    let scene = &ground.scene;
    scene.etcd.kill(0);
    let proxy = Proxy::launch("etna", &scene.store(), &[], scene.folder(), LONG).await;
    proxy.until_ready(LONG).await;
    let status = proxy.get(HOST, "/").await?.status;
    drop(proxy);
    let text = format!(
        "disk full, then read-only: {} of {} requests failed, told by a metric, what was kept serves: {status}",
        outcome.failed, outcome.requests
    );
    if outcome.pass && status == 200 { Ok(text) } else { Err(text) }
}

async fn until_errors(proxy: &Proxy, count: f64) {
    eventually("it tells that the table cannot be written", LONG, async || {
        let errors = proxy.metrics().await.sum("etna_last_table_errors_total", &[]);
        ensure(errors >= Some(count), format!("{errors:?}"))
    })
    .await;
}

/// A small file system of its own, for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn small(at: &Path) -> Result<Mounted, String> {
        let mut mount = Command::new("mount");
        try_output_of(mount.args(["-t", "tmpfs", "-o", "size=128k", "etna-drill"]).arg(at))?;
        Ok(Mounted(at.to_owned()))
    }

    fn remount(&self, how: &str) -> Result<(), String> {
        let mut mount = Command::new("mount");
        try_output_of(mount.args(["-o", &format!("remount,{how}")]).arg(&self.0)).map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = try_output_of(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Who may read a file.
pub(super) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).map_or(0, |about| about.permissions().mode() & 0o777)
}

/// Where the version lies in the file.
const VERSION: usize = 16;
/// Until the first answer of a cold start.
const LATE: Duration = Duration::from_millis(500);
