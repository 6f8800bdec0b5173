//! Two tiers as `units/README.md` sets them up: the units' own settings, its commands, and its roles in etcd.

use std::path::{Path, PathBuf};
use std::process::Command;

use etna_tests::binaries::binary;
use etna_tests::client::send;
use etna_tests::load::kept;
use etna_tests::process::output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};

use super::{LONG, front_store, got, start_core};

/// What a unit sets, and what of an example's settings file is commented out.
fn environment(unit: &str, file: &str, wanted: &[&str]) -> Vec<(String, String)> {
    let read =
        |name: &str| std::fs::read_to_string(units().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let unit = read(unit);
    assert!(unit.lines().any(|line| line == "ExecStart=/opt/bin/etna serve"), "flags of its own");
    let set: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("Environment=")).filter_map(pair).collect();
    let example = read(file);
    let example = wanted.iter().map(|name| {
        let line = example
            .lines()
            .find_map(|line| line.strip_prefix('#').filter(|line| line.starts_with(&format!("{name}="))));
        pair(line.unwrap_or_else(|| panic!("{file} does not tell of {name}"))).expect("a setting")
    });
    set.iter().cloned().chain(example).collect()
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("units")
}

/// The example of `units/README.md` on one machine: the units' own settings, with other addresses, and the commands that
/// are given there.
#[tokio::test]
async fn the_example_of_three_cores_and_a_front_works_as_written() {
    let scene = Scene::open("tiers-units").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s1", a.address)]).await;
    let front_store = front_store(&scene);
    let run = async |name: &str, settings: Vec<(String, String)>| {
        let mut command = Command::new(binary("etna"));
        command.arg("serve").env("ETNA_STATE_DIR", scene.folder().join(format!("{name}-state")));
        for (variable, value) in settings {
            let value = match variable.as_str() {
                // Three on one machine have one host name, and addresses of their own.
                "ETNA_ANNOUNCE" => format!("{}-{name}", value),
                "ETNA_ANNOUNCE_STORE" => value.replace("etcd://127.0.0.1:2379/front", &front_store),
                "ETNA_STORE" => value
                    .replace("etcd://127.0.0.1:2379/vulcand", &scene.store())
                    .replace("etcd://127.0.0.1:2379/front", &front_store),
                "ETNA_LISTEN" | "ETNA_ADMIN" => "127.0.0.1:0".to_owned(),
                "ETNA_TRUSTED_PROXIES" => "127.0.0.1/32".to_owned(),
                _ => value,
            };
            command.env(variable, value);
        }
        let proxy = Proxy::run(name, command, scene.folder(), LONG).await;
        proxy.until_ready(LONG).await;
        proxy
    };
    let front = run("front", environment("etna-front.service", "etna-front.env", &["ETNA_STORE"])).await;
    let wanted = ["ETNA_ANNOUNCE", "ETNA_ANNOUNCE_STORE", "ETNA_TRUSTED_PROXIES"];
    let mut cores = Vec::new();
    for name in ["one", "two", "three"] {
        cores.push(run(name, environment("etna.service", "etna.env", &wanted)).await);
    }
    let etnactl = binary("etnactl");
    let script = commands("### The front's configuration").replace("/opt/bin/etnactl", etnactl.to_str().unwrap());
    let script = script.replace("http://127.0.0.1:8183", &format!("http://{}", front.admin));
    let said = output_of(Command::new("sh").args(["-euc", &script]));
    eventually("the front serves", LONG, async || ensure(front.get("a.test", "/").await?.status == 200, said.clone()))
        .await;
    let answer = send(front.listen, kept("a.test", 1)).await.unwrap().json();
    assert_eq!(got(&answer, "x-forwarded-for"), ["127.0.0.1, 127.0.0.1"]);
    let servers = eventually("all cores are announced", LONG, async || {
        let servers = front.json("/v2/backends/cores/servers").await["Servers"].as_array().unwrap().clone();
        ensure(servers.len() == 3, format!("{servers:?}")).map(|()| servers)
    })
    .await;
    let host = output_of(Command::new("uname").arg("-n"));
    assert!(servers.iter().all(|server| server["Id"].as_str().is_some_and(|id| id.starts_with(host.trim()))));
    eventually("nothing is wrong", LONG, async || {
        let problems = front.problems().await;
        ensure(problems.is_empty(), format!("{problems:?}"))
    })
    .await;
}

#[tokio::test]
async fn the_documented_roles_of_etcd_are_enough() {
    let mut scene = Scene::with_etcd("tiers-roles", 1).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s1", a.address)]).await;
    for file in ["root", "etcd", "sidekick", "operator", "front"] {
        std::fs::write(scene.folder().join(format!("{file}-password")), format!("{file}-pw\n")).unwrap();
    }
    let (before, enable) = (commands("## Users and roles of etcd"), "etcdctl auth enable");
    assert!(before.contains(enable));
    let script = before.replace(enable, &format!("{}\n{enable}", commands("Where etcd has users (above)")));
    let script = script.replace("/etc/etna/", &format!("{}/", scene.folder().display()));
    let script = script.replace("/vulcand/", &format!("{}/", scene.prefix));
    let script = script.replace("/front/", &format!("{}-front/", scene.prefix));
    let mut command = Command::new("sh");
    command.args(["-euc", &script]).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", scene.etcd.url(0));
    output_of(&mut command);
    scene.sign_in("root", "root-pw").await;

    let password = |name: &str| scene.folder().join(format!("{name}-password")).display().to_string();
    let (cores, fronts) = (password("etcd"), password("front"));
    let core = start_core(&scene, 1, &["--store-user", "etna", "--store-password-file", &cores]).await;
    let flags = ["--store-user", "etna-front", "--store-password-file", &fronts];
    let front = Proxy::start("front", &front_store(&scene), &flags, scene.folder()).await;
    eventually("the front sees it", LONG, async || {
        let backends = front.json("/v2/backends").await;
        ensure(backends["Backends"][0]["HealthCheck"]["Type"] == "tcp", backends.to_string())?;
        let servers = front.json("/v2/backends/cores/servers").await;
        ensure(servers["Servers"][0]["Id"] == "core-1", servers.to_string())
    })
    .await;
    eventually("nothing is wrong", LONG, async || {
        let problems = core.problems().await;
        ensure(problems.is_empty(), format!("{problems:?}"))
    })
    .await;
}

/// The commands below a heading of `units/README.md`.
fn commands(heading: &str) -> String {
    let text = std::fs::read_to_string(units().join("README.md")).expect("units/README.md can be read");
    let section = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}")).1;
    section.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```")).expect("it has commands").0.to_owned()
}
