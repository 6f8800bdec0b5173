//! A proxy under valgrind, and what its worker does while a script runs.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::callgrind::Profile;
use crate::script::{Script, Way, connect, post};

/// What a worker did.
#[derive(Debug)]
pub(crate) struct Counted {
    /// Instructions by function of our own program, the most first.
    pub(crate) functions: Vec<(String, u64)>,
    pub(crate) allocations: u64,
    /// System calls, without those that follow.
    pub(crate) system_calls: u64,
    /// Waits for anything to happen.
    pub(crate) waits: u64,
    /// Readings of a clock; system calls under valgrind alone.
    pub(crate) clocks: u64,
}

/// A proxy with one worker that leads one host to one server.
pub(crate) struct Proxy {
    child: Child,
    listen: SocketAddr,
    program: String,
    home: TempDir,
}

impl Proxy {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(etna: &Path, script: &Script, server: SocketAddr) -> anyhow::Result<Proxy> {
        ensure!(etna.is_file(), "{} is not there: make build", etna.display());
        let home = tempfile::tempdir()?;
        let at = |name: &str| home.path().join(name);
        let said = File::create(at("said"))?;
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--separate-threads=yes", "--trace-syscalls=yes"])
            .arg(format!("--callgrind-out-file={}", at("profile").display()))
            .arg(format!("--log-file={}", at("calls").display()))
            .arg(etna)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"])
            .arg(format!("--store=embedded:{}", at("store").display()))
            .arg(format!("--state-dir={}", at("state").display()))
            .args(script.flags)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        // Nothing of the caller's settings.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETNA_")) {
            command.env_remove(name);
        }
        let child = command.spawn().context("valgrind cannot be started: install it (apt-get install valgrind)")?;
        let program = etna.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut proxy = Proxy { child, listen: SocketAddr::from(([0; 4], 0)), program, home };
        let (listen, admin) = proxy.addresses()?;
        proxy.listen = listen;
        post(admin, "/v2/backends", &json!({ "Backend": (script.backend)() }))?;
        let url = format!("http://{server}");
        post(admin, "/v2/backends/b/servers", &json!({"Server": {"Id": "s", "URL": url}}))?;
        let settings = json!({"PassHostHeader": true});
        let route = "Host(\"www.example.test\")";
        let frontend = json!({"Id": "f", "Type": "http", "BackendId": "b", "Route": route, "Settings": settings});
        post(admin, "/v2/frontends", &json!({ "Frontend": frontend }))?;
        if script.way == Way::Http2 {
            proxy.listen = free_address()?;
            let address = json!({"Network": "tcp", "Address": proxy.listen.to_string()});
            let listener = json!({"Id": "h2c", "Protocol": "http", "Address": address, "Settings": {"H2C": true}});
            post(admin, "/v2/listeners", &json!({ "Listener": listener }))?;
            proxy.listening()?;
        }
        Ok(proxy)
    }

    /// Waits until something listens where clients go.
    #[expect(clippy::disallowed_methods, reason = "between two attempts; there is no runtime here")]
    fn listening(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while connect(self.listen).is_err() {
            ensure!(Instant::now() < deadline, "nothing listens on {}: {}", self.listen, self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "between two looks at a file; there is no runtime here")]
    fn addresses(&mut self) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let deadline = Instant::now() + PATIENCE;
        let file = self.home.path().join("state/addresses.json");
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}: {}", self.said());
            }
            let said = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            let address = |name: &str| said.as_ref()?.get(name)?.as_str()?.parse().ok();
            if let (Some(listen), Some(admin)) = (address("listen"), address("admin")) {
                return Ok((listen, admin));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("it does not get ready: {}", self.said())
    }

    /// Runs a script, after it ran for a while uncounted.
    pub(crate) fn count(&mut self, script: &Script, requests: u32) -> anyhow::Result<Counted> {
        script.ask(self.listen, WARM_UP)?;
        self.order("zero")?;
        let before = self.calls()?.len();
        script.ask(self.listen, requests)?;
        let calls = self.calls()?;
        self.order("dump")?;
        let mut most: Option<(u32, Profile, u64)> = None;
        for (thread, file) in self.profiles()? {
            let profile = Profile::parse(&String::from_utf8_lossy(&std::fs::read(&file)?));
            let instructions = profile.within(&self.program).iter().map(|(_, count)| count).sum();
            if most.as_ref().is_none_or(|(_, _, most)| instructions > *most) {
                most = Some((thread, profile, instructions));
            }
        }
        // Whoever did most of it is the worker.
        let (thread, profile, _) = most.context("callgrind has written no profile")?;
        let mut counted = Counted {
            functions: profile.within(&self.program),
            allocations: profile.allocations(),
            system_calls: 0,
            waits: 0,
            clocks: 0,
        };
        for call in calls[before.min(calls.len())..].lines().filter_map(|line| call_of(line, thread)) {
            match call {
                "sys_clock_gettime" => counted.clocks += 1,
                "sys_epoll_wait" | "sys_epoll_pwait" => counted.waits += 1,
                // A timer that has run out wakes the worker's own loop by its eventfd; connections are never written to so.
                "sys_write" => {}
                _ => counted.system_calls += 1,
            }
        }
        ensure!(counted.waits > 0, "valgrind has told of no system calls");
        Ok(counted)
    }

    /// Has callgrind do something.
    fn order(&self, order: &str) -> anyhow::Result<()> {
        let told = Command::new("vgdb").arg(format!("--pid={}", self.child.id())).arg(order).output();
        let told = told.context("vgdb, which comes with valgrind, cannot be started")?;
        ensure!(told.status.success(), "vgdb {order}: {}", String::from_utf8_lossy(&told.stderr));
        Ok(())
    }

    /// What valgrind has told of system calls so far.
    fn calls(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.home.path().join("calls"))?).into_owned())
    }

    /// The profiles of the first dump, by thread.
    fn profiles(&self) -> anyhow::Result<Vec<(u32, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.home.path())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(thread) = name.strip_prefix("profile.1-").and_then(|thread| thread.parse().ok()) {
                found.push((thread, path));
            }
        }
        Ok(found)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.path().join("said")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address where nobody listens.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The call in `SYSCALL[PID,THREAD](NUMBER) NAME(…`, if it is that thread's.
fn call_of(line: &str, thread: u32) -> Option<&str> {
    let (who, rest) = line.strip_prefix("SYSCALL[")?.split_once(']')?;
    let (_, by) = who.split_once(',')?;
    let (_, call) = rest.split_once(") ")?;
    let name = call.trim_start().split([' ', '(']).next()?;
    (by.trim() == thread.to_string() && name.starts_with("sys_")).then_some(name)
}

const PATIENCE: Duration = Duration::from_secs(120);
/// Requests that are not counted: connections are opened by them, and tables filled.
const WARM_UP: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_thread() {
        let line = "SYSCALL[28235,6](228) sys_clock_gettime( 1, 0x5781c90 )[sync] --> Success(0x0) ";
        assert_eq!(call_of(line, 6), Some("sys_clock_gettime"));
        assert_eq!(call_of(line, 5), None);
        assert_eq!(call_of("SYSCALL[1,6]( 45) sys_recvfrom ( 3, 0x1 )", 6), Some("sys_recvfrom"));
        assert_eq!(call_of("SYSCALL[1,6](232) ... [async] --> Success(0x0) ", 6), None);
        assert_eq!(call_of("==1== Callgrind", 6), None);
    }
}
