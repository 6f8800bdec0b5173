//! `etna demo`: starts by itself, shows what it is for, and leaves nothing behind.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use etna_tests::binaries::binary;
use etna_tests::client;
use etna_tests::process::Process;
use etna_tests::turn::Turn;
use etna_tests::wait::{ensure, eventually};

#[tokio::test]
async fn the_demo_shows_changing_containers_and_one_admin_and_leaves_nothing() {
    let _turn = Turn::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(binary("etna"));
    command.args(["demo", "--no-docker", "--listen", &free.to_string()]).env("TMPDIR", folder.path());
    let mut demo = Process::start("demo", &mut command, folder.path());
    let listen: SocketAddr = free;
    eventually("it serves", Duration::from_secs(30), async || {
        if let Some(status) = demo.ended() {
            panic!("it ended: {status}: {}", demo.said());
        }
        ensure(client::get(listen, "localhost", "/").await?.status == 200, "not yet")
    })
    .await;
    eventually("it says what to open", Duration::from_secs(5), async || {
        ensure(demo.said().contains(&format!("http://{listen}/")), demo.said())
    })
    .await;
    let mut public = BTreeSet::new();
    let mut admin = BTreeSet::new();
    for _ in 0..6 {
        public.insert(client::get(listen, "localhost", "/").await.unwrap().server().to_owned());
        admin.insert(client::get(listen, "localhost", "/wp-admin/").await.unwrap().server().to_owned());
    }
    assert_eq!((public.len(), admin.len()), (2, 1), "{public:?} {admin:?}");
    assert!(public.is_disjoint(&admin));
    let children = children_of(demo.pid());
    assert_eq!(children.len(), 3, "two public ones and an admin");

    demo.signal("INT");
    assert_eq!(demo.end(Duration::from_secs(15)).await.code(), Some(0), "{}", demo.said());
    eventually("its children have ended", Duration::from_secs(5), async || {
        let left: Vec<&String> = children.iter().filter(|pid| is_alive(pid)).collect();
        ensure(left.is_empty(), format!("{left:?}"))
    })
    .await;
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    assert_eq!(left, ["demo.log"], "it left files behind");
}

fn children_of(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
