//! A4, A5: the running binary is replaced, by one that works and by some that do not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use etna_tests::binaries::binary;
use etna_tests::process::output_of;
use etna_tests::wait::{always, ensure, eventually};
use serde_json::Value;

use crate::bed::{Bed, Needs, Rate};
use crate::drill::{Length, Outcome};

/// The processes that came after the one the bed started: they end with this.
struct Heirs {
    file: PathBuf,
    first: u32,
    seen: Vec<u32>,
}

impl Heirs {
    fn of(bed: &Bed) -> Heirs {
        Heirs { file: bed.proxy.state_dir.join("addresses.json"), first: bed.proxy.pid(), seen: Vec::new() }
    }

    /// Who serves, as it says itself.
    fn now(&self) -> u32 {
        let text = std::fs::read(&self.file).unwrap_or_default();
        let said: Value = serde_json::from_slice(&text).unwrap_or_default();
        said["pid"].as_u64().map_or(0, |pid| pid as u32)
    }

    /// Tells who serves to replace its binary.
    fn ask(&self) {
        output_of(Command::new("kill").args(["-USR2", &self.serving().to_string()]));
    }

    fn serving(&self) -> u32 {
        self.seen.last().copied().unwrap_or(self.first)
    }

    /// Waits until another process serves; how long that took.
    async fn replaced(&mut self) -> Duration {
        let (began, before) = (Instant::now(), self.serving());
        let pid = eventually("a new process serves", Duration::from_secs(20), async || {
            let now = self.now();
            ensure(now != 0 && now != before, format!("process {before} does")).map(|()| now)
        })
        .await;
        self.seen.push(pid);
        began.elapsed()
    }

    /// Those that still run beside the last one.
    fn left(&self) -> Vec<u32> {
        let all = std::iter::once(self.first).chain(self.seen.iter().copied());
        all.filter(|pid| *pid != self.serving() && runs(*pid)).collect()
    }
}

impl Drop for Heirs {
    fn drop(&mut self) {
        let last = Some(self.now()).filter(|pid| *pid != 0 && *pid != self.first);
        for pid in self.seen.iter().copied().chain(last).filter(|pid| runs(*pid)) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }
}

/// Whether a process runs; one that nobody has buried does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A4: the binary is replaced again and again, by itself.
pub(crate) async fn often(length: Length) -> Outcome {
    let bed = Bed::start("a4", length).await;
    let mut heirs = Heirs::of(&bed);
    let mut mix = bed.mix(Rate::L5k).await;
    mix.fresh = length.pick(200, 50);
    let load = bed.load_of(mix).await;
    let (times, apart) = length.pick((10, Duration::from_secs(5)), (1, Duration::from_millis(500)));
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        heirs.ask();
        longest = longest.max(heirs.replaced().await);
        load.go_on(apart).await;
    }
    let traffic = bed.finish(load).await;
    // Its clients have gone: nothing keeps an old process.
    let began = Instant::now();
    while !heirs.left().is_empty() && began.elapsed() < GONE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = heirs.left();
    let figure = format!(
        "{times} upgrades, each within {longest:.1?}; {} old processes left after {:.1?}; {}",
        left.len(),
        began.elapsed(),
        traffic.report.summary()
    );
    traffic.outcome(figure, left.is_empty())
}

/// A5: the new binary fails in three ways; the old one stays, says so, and can still be replaced by one that works.
pub(crate) async fn broken(length: Length) -> Outcome {
    // One that works must be ready by then, though nothing be optimised.
    let within = length.pick("2", "15");
    let needs = Needs { flags: vec!["--upgrade-timeout".into(), within.into()], ..Needs::default() };
    let (scene, servers) = Bed::parts("a5", &needs).await;
    let program = scene.folder().join("etna");
    std::fs::copy(binary("etna"), &program).expect("the program can be copied");
    let proxy = needs.proxy(&scene).await;
    let bed = Bed::around(scene, servers, proxy, length).await;
    let mut heirs = Heirs::of(&bed);
    let load = bed.load(Rate::L2k).await;
    let bad_flag = format!("#!/bin/sh\nexec {} \"$@\" --no-such-flag\n", binary("etna").display());
    let bad_store = format!("#!/bin/sh\nexec {} serve --store etcd://127.0.0.1:1/nowhere\n", binary("etna").display());
    let failures = [
        ("ends at once", "#!/bin/sh\necho panicked >&2\nexit 101\n"),
        ("is never ready", "#!/bin/sh\nexec sleep 600\n"),
        ("does not like its flags", &bad_flag),
        ("cannot read its store", &bad_store),
    ];
    let mut told = Vec::new();
    let failures = &failures[..length.pick(failures.len(), 1)];
    for (number, (what, script)) in failures.iter().enumerate() {
        put_program(&program, script.as_bytes());
        heirs.ask();
        eventually(&format!("the operator is told that a binary that {what} does not serve"), SOON, async || {
            let status = bed.proxy.json("/v3/status").await;
            let failed = status["upgrades"]["failed"].as_u64();
            told.truncate(number);
            told.push(status["last_upgrade"]["reason"].as_str().unwrap_or_default().to_owned());
            ensure(failed == Some(number as u64 + 1), format!("upgrades: {}", status["upgrades"]))
        })
        .await;
        always("the old process serves", Duration::from_millis(200), async || {
            ensure(heirs.now() == bed.proxy.pid() && runs(bed.proxy.pid()), "it does not")
        })
        .await;
    }
    std::fs::copy(binary("etna"), program.with_extension("new")).expect("the program can be copied");
    std::fs::rename(program.with_extension("new"), &program).expect("the program can be replaced");
    heirs.ask();
    heirs.replaced().await;
    load.go_on(Duration::from_millis(500)).await;
    let figure =
        format!("{} broken binaries refused ({}), then one that works took over", failures.len(), told.join("; "));
    bed.outcome(load, figure, told.iter().all(|reason| !reason.is_empty())).await
}

/// As a package manager does: another file, in place of the old one at once.
fn put_program(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("the program can be written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).expect("it can be made executable");
    std::fs::rename(&new, path).expect("the program can be replaced");
}

/// Until a replaced process without clients has ended.
const GONE: Duration = Duration::from_secs(30);
/// Until a failed upgrade is told.
const SOON: Duration = Duration::from_secs(20);
