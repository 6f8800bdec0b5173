//! Etna as it is: one worker, everything on that a user would have on, programmed through its own admin API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_store::seal::{KeyPair, Keyring, SealKey};
use serde_json::{Value, json};

use super::{ADMIN_PREFIX, BLOG, Running, SHOP, Setup, With, Workers};
use crate::bed::{Bed, eventually};
use crate::http;
use crate::process::{self, Process};
use crate::tls::Pair;

pub(super) fn version(program: &Path) -> Option<String> {
    process::version(program, "--version")
}

pub(super) async fn start(bed: &Bed, home: &Path, setup: &Setup) -> anyhow::Result<Running> {
    let store = bed.store(setup, home).await?;
    let process = spawn(bed, home, setup, &store)?;
    let (running, admin) = ready(process, home).await?;
    program(admin, bed, setup).await?;
    if let Some(key) = setup.key {
        certify(admin, bed.pair(key), home).await?;
        anyhow::ensure!(running.secure.is_some(), "addresses.json has no https listener");
    }
    Ok(running)
}

/// Starts the program on a store, with `home` as its state directory.
pub(crate) fn spawn(bed: &Bed, home: &Path, setup: &Setup, store: &str) -> anyhow::Result<Process> {
    let (workers, cores) = match setup.etna.workers {
        Workers::One => ("1", bed.cores.proxy.to_string()),
        Workers::Two => ("2", format!("{},{}", bed.cores.proxy, bed.cores.load)),
    };
    // Where what flags name by a relative path goes, too.
    let mut command = Command::new(std::path::absolute(&bed.etna)?);
    command.current_dir(home);
    command.args(["serve", "--store", store, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--workers", workers, "--state-dir"]).arg(home);
    if setup.key.is_some() {
        command.args(["--listen-https", "127.0.0.1:0", "--seal-key"]).arg(seal_key(home)?);
    }
    if let With::Flags(flags) = setup.etna.with {
        command.args(flags);
    }
    // Nothing of the caller's settings.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETNA_")) {
        command.env_remove(name);
    }
    Process::start(cores, command, &home.join("log"))
}

/// Waits until it is ready; with where its admin API is.
pub(crate) async fn ready(mut process: Process, home: &Path) -> anyhow::Result<(Running, SocketAddr)> {
    // Written once it is.
    let file = home.join(ADDRESSES);
    eventually(&mut process, async || Ok(file.exists())).await?;
    let addresses: Value = serde_json::from_slice(&std::fs::read(&file)?).context(ADDRESSES)?;
    let read = |place: Option<&Value>| place.and_then(Value::as_str).and_then(|text| text.parse::<SocketAddr>().ok());
    let address = |name| read(addresses.get(name)).with_context(|| format!("{ADDRESSES} has no address {name:?}"));
    let secure = read(addresses.get("listeners").and_then(|listeners| listeners.get("https")));
    Ok((Running::at(process, address("listen")?, secure), address("admin")?))
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
    let public = match setup.etna.with {
        // Limits that are looked at and never reached.
        With::Site => json!({"Sticky": true, "Limit": {"Requests": 1000, "Queue": 100, "Wait": "1s"}}),
        _ => json!({}),
    };
    for (backend, servers, settings) in [("public", bed.public(setup), public), ("admin", &[bed.admin][..], json!({}))]
    {
        // As many kept connections as the peers may have.
        let keep = json!({"KeepAlive": {"MaxIdleConnsPerHost": 1024}});
        let mut backend_object = json!({"Id": backend, "Type": "http", "Settings": keep});
        if let (Some(object), Some(settings)) = (backend_object.as_object_mut(), settings.as_object()) {
            object.extend(settings.clone());
        }
        put("/v2/backends", json!({ "Backend": backend_object })).await?;
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
    let is_site = setup.etna.with == With::Site;
    for (id, route, backend) in frontends.into_iter().filter(|(id, ..)| !is_site || *id == "shop") {
        let settings = json!({"PassHostHeader": true});
        let frontend = json!({"Id": id, "Type": "http", "BackendId": backend, "Route": route, "Settings": settings});
        put("/v2/frontends", json!({ "Frontend": frontend })).await?;
    }
    match setup.etna.with {
        With::Site => {
            let site = json!({"Preset": "wordpress", "Hosts": [BLOG], "Public": "public", "Admin": "admin"});
            http::put(admin, "/v3/sites/blog", &site.to_string()).await
        }
        With::Limits => {
            let rate = json!({"Requests": 1_000_000, "PeriodSeconds": 1, "Burst": 1_000_000, "Variable": "client.ip"});
            let connections = json!({"Connections": 10_000, "Variable": "client.ip"});
            for (kind, settings) in [("ratelimit", rate), ("connlimit", connections)] {
                let middleware = json!({"Id": kind, "Type": kind, "Priority": 1, "Middleware": settings});
                put("/v2/frontends/blog/middlewares", json!({ "Middleware": middleware })).await?;
            }
            Ok(())
        }
        With::Flags(_) => Ok(()),
    }
}

const ADDRESSES: &str = "addresses.json";
const SEAL_KEY: &str = "seal-key";
