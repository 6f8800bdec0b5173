//! Stand-ins for containers: child processes of this binary that answer with their id.

use std::process::Stdio;

use anyhow::Context as _;
use etna_store::{Engine, Op, Txn};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::containers::{CONTAINERS, HOSTS, SITE};
use super::step;

/// Running stand-ins. They end when this value is dropped, and also when the demo is killed: they read its pipe.
pub(super) struct Processes {
    _children: Vec<Child>,
}

/// Starts the stand-ins and registers them.
pub(super) async fn start(engine: &dyn Engine) -> anyhow::Result<Processes> {
    let mut children = Vec::new();
    let mut ops = vec![
        put(
            format!("sites/{SITE}"),
            serde_json::json!({
                "Preset": "wordpress", "Hosts": HOSTS, "Public": format!("{SITE}-public"), "Admin": format!("{SITE}-admin"),
            }),
        ),
        put(format!("backends/{SITE}-public/backend"), serde_json::json!({ "Type": "http" })),
        put(format!("backends/{SITE}-admin/backend"), serde_json::json!({ "Type": "http" })),
    ];
    for (name, role) in CONTAINERS {
        let (child, address) = stand_in(name, role).await?;
        children.push(child);
        ops.push(put(
            format!("backends/{SITE}-{role}/servers/{name}"),
            serde_json::json!({ "URL": format!("http://{address}") }),
        ));
        step(&format!("{role} stand-in"), &format!("{name} at {address}"));
    }
    engine.commit(Txn { compares: Vec::new(), ops }).await.context("cannot register the stand-ins")?;
    Ok(Processes { _children: children })
}

async fn stand_in(name: &str, role: &str) -> anyhow::Result<(Child, String)> {
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(exe)
        .args(["stand-in", "--listen", "127.0.0.1:0", "--id", name, "--role", role])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a stand-in")?;
    let stdout = child.stdout.take().context("a stand-in has no output")?;
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address).await.context("a stand-in did not say where it listens")?;
    Ok((child, address.trim().to_owned()))
}

fn put(key: String, value: serde_json::Value) -> Op {
    Op::Put(key, value.to_string().into(), None)
}
