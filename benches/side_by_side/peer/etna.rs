//! Etna as it is: one worker, everything on that a user would have on, programmed through its own admin API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_store::seal::{KeyPair, Keyring, SealKey};
use serde_json::{Value, json};

use super::setup::Workers;
use super::{ADMIN_PREFIX, BLOG, Running, SHOP, Setup};
use crate::bed::{Bed, eventually};
use crate::http;
use crate::process::{self, Process};
use crate::tls::Pair;

pub(super) fn version(program: &Path) -> Option<String> {
    process::version(program, "--version")
}

pub(super) async fn start(bed: &Bed, home: &Path, setup: &Setup) -> anyhow::Result<Running> {
    let key = setup.key;
    let (workers, cores) = match setup.etna.workers {
        Workers::One => ("1", bed.cores.proxy.to_string()),
        Workers::Two => ("2", format!("{},{}", bed.cores.proxy, bed.cores.load)),
    };
    let mut command = Command::new(&bed.etna);
    command.arg("serve").arg("--store").arg(format!("embedded:{}", home.join("store").display()));
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", workers, "--state-dir"]).arg(home);
    if key.is_some() {
        command.args(["--listen-https", "127.0.0.1:0", "--seal-key"]).arg(seal_key(home)?);
    }
    // Nothing of the caller's settings.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETNA_")) {
        command.env_remove(name);
    }
    let mut process = Process::start(cores, command, &home.join("log"))?;
    // Written once it is ready.
    let file = home.join("addresses.json");
    eventually(&mut process, async || Ok(file.exists())).await?;
    let addresses: Value = serde_json::from_slice(&std::fs::read(&file)?).context("addresses.json")?;
    let address = |name: &str| -> anyhow::Result<SocketAddr> {
        let text = addresses.get(name).and_then(Value::as_str);
        text.and_then(|text| text.parse().ok()).with_context(|| format!("addresses.json has no address {name:?}"))
    };
    program(address("admin")?, bed, setup).await?;
    let mut secure = None;
    if let Some(key) = key {
        certify(address("admin")?, bed.pair(key), home).await?;
        let listeners = addresses.get("listeners").and_then(|listeners| listeners.get("https"));
        secure = listeners.and_then(Value::as_str).and_then(|text| text.parse().ok());
        anyhow::ensure!(secure.is_some(), "addresses.json has no https listener");
    }
    Ok(Running::at(process, address("listen")?, secure))
}

/// A new seal key's file.
fn seal_key(home: &Path) -> anyhow::Result<PathBuf> {
    let file = home.join(SEAL_KEY);
    std::fs::write(&file, &*SealKey::generate()?.to_hex())?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// A host for all names, its key sealed, as `etnactl host upsert` puts it.
async fn certify(admin: SocketAddr, pair: &Pair, home: &Path) -> anyhow::Result<()> {
    let pair = KeyPair::new(std::fs::read(&pair.certificate)?, std::fs::read(&pair.key)?);
    let sealed = STANDARD.encode(Keyring::read(&home.join(SEAL_KEY))?.seal(&pair)?);
    let host = json!({"Host": {"Name": BLOG, "Settings": {"KeyPair": sealed, "Default": true}}});
    http::post(admin, "/v2/hosts", &host.to_string()).await
}

/// Two backends and three frontends, put as an operator would.
async fn program(admin: SocketAddr, bed: &Bed, setup: &Setup) -> anyhow::Result<()> {
    let put = async |path: &str, object: Value| http::post(admin, path, &object.to_string()).await;
    for (backend, servers) in [("public", bed.public(setup)), ("admin", &[bed.admin][..])] {
        put("/v2/backends", json!({"Backend": {"Id": backend, "Type": "http"}})).await?;
        for (number, address) in servers.iter().enumerate() {
            let server = json!({"Server": {"Id": format!("s{number}"), "URL": format!("http://{address}")}});
            put(&format!("/v2/backends/{backend}/servers"), server).await?;
        }
    }
    let frontends = [
        ("blog-admin", format!("Host(\"{BLOG}\") && PathPrefix(\"{ADMIN_PREFIX}\")"), "admin"),
        ("blog", format!("Host(\"{BLOG}\")"), "public"),
        ("shop", format!("Host(\"{SHOP}\")"), "public"),
    ];
    for (id, route, backend) in frontends {
        let settings = json!({"PassHostHeader": true});
        let frontend = json!({"Id": id, "Type": "http", "BackendId": backend, "Route": route, "Settings": settings});
        put("/v2/frontends", json!({ "Frontend": frontend })).await?;
    }
    Ok(())
}

const SEAL_KEY: &str = "seal-key";
