//! The users and roles of etcd that `units/README.md` tells operators to make, made by its own lines.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use etna_tests::etcd::Etcd;
use etna_tests::process::try_output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use serde_json::json;

use crate::drill::{Length, Outcome};

/// S7. What each role may and may not write; what a program with it says when it may not.
pub(super) async fn denied(_length: Length) -> Outcome {
    let etcd = Arc::new(Etcd::start(1).await);
    let scene = Scene::alone_on("s7", etcd.clone()).await;
    for (name, password) in PASSWORDS {
        std::fs::write(scene.folder().join(name), format!("{password}\n")).expect("a password can be written");
    }
    let script = match documented(&scene) {
        Ok(script) => script,
        Err(error) => return Outcome::fail(error),
    };
    let mut command = Command::new("sh");
    command.args(["-euc", &script]).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", etcd.url(0));
    if let Err(error) = try_output_of(&mut command) {
        return Outcome::fail(format!("the documented commands fail: {error}"));
    }

    let all = ["acme/x", "bans/x", "purges/x", "tickets/x", "proxies/x"];
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (user, password) in USERS {
        let client = etcd.client_as(user, password).await;
        for key in OBJECTS.into_iter().chain(all).chain(["/other"]) {
            let may = match user {
                "root" => true,
                "operator" => key != "/other",
                "etna" => all.contains(&key),
                _ => key.starts_with("backends/") || key.starts_with("sites/"),
            };
            let path = if key == "/other" { key.to_owned() } else { format!("{}/{key}", scene.prefix) };
            let put = client.kv_client().put(path.clone(), "x", None).await.map(drop);
            let delete = client.kv_client().delete(path, None).await.map(drop);
            for did in [put, delete] {
                tried += 1;
                let right = match &did {
                    Ok(()) => may,
                    Err(error) => !may && error.to_string().contains("permission denied"),
                };
                if !right {
                    wrong.push(format!("{user} {key}: {did:?}"));
                }
            }
        }
    }
    for (args, what) in [
        (vec!["get", "--prefix", "/"], "a stranger reads"),
        (vec!["put", "/x", "x"], "a stranger writes"),
        (vec!["--user", "etna:wrong", "get", "--prefix", "/"], "a wrong password reads"),
        (vec!["--user", "etna-sidekick:sidekick-pw", "user", "list"], "a sidekick sees users"),
        (
            vec!["--user", "etna:proxy-pw", "user", "passwd", "operator", "--interactive=false"],
            "a proxy sets passwords",
        ),
        (vec!["--user", "etna:proxy-pw", "auth", "disable"], "a proxy turns authentication off"),
        (vec!["--user", "etna:proxy-pw", "del", "--prefix", "/"], "a proxy deletes everything"),
        (
            vec!["--user", "etna-sidekick:sidekick-pw", "del", "--prefix", &scene.prefix],
            "a sidekick deletes everything",
        ),
    ] {
        tried += 1;
        if etcd.ctl(&[0], &args).is_ok() {
            wrong.push(what.to_owned());
        }
    }

    // The programs themselves, with these users.
    let file = scene.folder().join("etcd-password");
    let flags = ["--store-user", "etna", "--store-password-file", file.to_str().expect("a path of ours")];
    let proxy = Proxy::start("etna", &scene.store(), &flags, scene.folder()).await;
    let answer = proxy.admin_post("/v2/backends", &json!({ "Backend": { "Id": "b", "Type": "http" } })).await;
    let answer = answer.map_or_else(|error| error, |answer| format!("{} {}", answer.status, answer.text()));
    if !answer.starts_with("403 ") {
        wrong.push(format!("a proxy asked to put a backend says {answer}"));
    }
    let put = ["--user", "operator:operator-pw", "put", &format!("{}/backends/b/servers/s", scene.prefix), SERVER];
    let put = etcd.ctl(&[0], &put);
    let served = etna_tests::wait::eventually("the proxy sees it", std::time::Duration::from_secs(20), async || {
        let servers = proxy.json("/v3/status").await["counts"]["servers"].clone();
        let listed = proxy.json("/v2/backends").await["Backends"].as_array().map_or(0, Vec::len);
        etna_tests::wait::ensure(listed == 1, format!("{servers} {put:?}"))
    });
    served.await;
    let failed = wrong.len() as u64;
    let figure = match wrong.first() {
        None => "every role as documented; the proxy says 403 and why".to_owned(),
        Some(first) => format!("{failed} wrong, first {first}"),
    };
    Outcome { load: "one after the other".into(), requests: tried, failed, figure, pass: failed == 0 }
}

/// The commands of the README, on this scene's prefix and folder.
fn documented(scene: &Scene) -> Result<String, String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("units").join("README.md");
    let text = std::fs::read_to_string(&readme).map_err(|error| format!("{}: {error}", readme.display()))?;
    let section = text.split_once("## Users and roles of etcd").ok_or("units/README.md has no such section")?.1;
    let block = section.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```"));
    let script = block.ok_or("the section has no commands")?.0;
    let folder = format!("{}/", scene.folder().display());
    Ok(script.replace("/vulcand/", &format!("{}/", scene.prefix)).replace("/etc/etna/", &folder))
}

const PASSWORDS: [(&str, &str); 4] = [
    ("root-password", "root-pw"),
    ("etcd-password", "proxy-pw"),
    ("sidekick-password", "sidekick-pw"),
    ("operator-password", "operator-pw"),
];
const USERS: [(&str, &str); 4] =
    [("root", "root-pw"), ("etna", "proxy-pw"), ("etna-sidekick", "sidekick-pw"), ("operator", "operator-pw")];
const OBJECTS: [&str; 8] = [
    "backends/b/backend",
    "backends/b/servers/s",
    "sites/w",
    "frontends/f/frontend",
    "frontends/f/middlewares/m",
    "hosts/h/host",
    "listeners/l",
    "anything",
];
const SERVER: &str = r#"{"URL":"http://127.0.0.1:1"}"#;
