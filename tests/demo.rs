//! `etna demo`: starts by itself, shows what it is for, and leaves nothing behind.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use etna_tests::binaries::binary;
use etna_tests::client;
use etna_tests::docker::Docker;
use etna_tests::etcd::free_ports;
use etna_tests::process::{Process, output_of};
use etna_tests::turn::Turn;
use etna_tests::wait::{ensure, eventually};

/// A demo that serves.
struct Demo {
    process: Process,
    listen: SocketAddr,
}

impl Demo {
    async fn start(folder: &Path, more: impl FnOnce(&mut Command)) -> Demo {
        let listen = SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]));
        let mut command = Command::new(binary("etna"));
        command.args(["demo", "--listen", &listen.to_string()]).env("TMPDIR", folder);
        more(&mut command);
        let mut process = Process::start("demo", &mut command, folder);
        eventually("it says what to open", Duration::from_secs(60), async || {
            if let Some(status) = process.ended() {
                panic!("it ended: {status}: {}", process.said());
            }
            // Its last words before it waits.
            ensure(process.said().contains("Ctrl-C stops everything"), process.said())
        })
        .await;
        Demo { process, listen }
    }

    /// Who answers public pages, and who those of the admin.
    async fn servers(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut public, mut admin) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..6 {
            public.insert(client::get(self.listen, "localhost", "/").await.unwrap().server().to_owned());
            admin.insert(client::get(self.listen, "localhost", "/wp-admin/").await.unwrap().server().to_owned());
        }
        (public, admin)
    }

    /// Ctrl-C, and nothing is left in its folder but what it said.
    async fn interrupt(mut self, folder: &Path) {
        self.process.signal("INT");
        assert_eq!(self.process.end(Duration::from_secs(30)).await.code(), Some(0), "{}", self.process.said());
        let left: Vec<_> =
            std::fs::read_dir(folder).unwrap().filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        assert_eq!(left, ["demo.log"], "it left files behind");
    }
}

#[tokio::test]
async fn without_docker_it_shows_stand_ins_and_leaves_nothing() {
    let _turn = Turn::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(folder.path(), |command| {
        command.arg("--no-docker");
    })
    .await;
    let (public, admin) = demo.servers().await;
    assert_eq!((public.len(), admin.len()), (2, 1), "{public:?} {admin:?}");
    assert!(public.is_disjoint(&admin));
    let said = demo.process.said();
    let admin = said.split_whitespace().find(|word| word.starts_with("unix:")).expect("it says its admin address");
    let status = output_of(Command::new(binary("etnactl")).args(["--admin", admin, "status"]));
    assert!(status.contains("ready"), "{status}");
    let children = children_of(demo.process.pid());
    assert_eq!(children.len(), 3, "two public ones and an admin");
    demo.interrupt(folder.path()).await;
    eventually("its children have ended", Duration::from_secs(20), async || {
        let left: Vec<&String> = children.iter().filter(|pid| is_alive(pid)).collect();
        ensure(left.is_empty(), format!("{left:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_docker_it_shows_containers_and_leaves_nothing() {
    let Some(docker) = Docker::shared().await else { return };
    let _turn = Turn::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(folder.path(), |command| {
        command.env("DOCKER_HOST", docker.url());
    })
    .await;
    let (public, admin) = demo.servers().await;
    assert_eq!((public.len(), admin.len()), (2, 1), "{public:?} {admin:?}");
    assert!(public.is_disjoint(&admin));
    let name = format!("etna-demo-{}", demo.process.pid());
    let containers = || docker.run(&["ps", "--all", "--quiet", "--filter", &format!("name={name}")]);
    assert_eq!(containers().lines().count(), 3);
    let pid = demo.process.pid();
    demo.interrupt(folder.path()).await;
    assert_eq!(containers(), "", "it left containers behind");
    assert_eq!(docker.run(&["images", "--quiet", &format!("etna-demo:{pid}")]), "", "it left its image behind");
}

fn children_of(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
