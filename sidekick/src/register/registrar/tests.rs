use super::super::fake::Fake;
use super::*;
use crate::wanted::{Member, Role, Stage};
use etna_store::lease::{Keeper, Notebook};

const CID: &str = "fedcba9876543210";
const KEY: &str = "backends/blog-public/servers/m1-fedcba987654-80";

fn wanted(stage: Stage) -> Wanted {
    let member = Member {
        site: "blog".into(),
        hosts: vec!["a.b".into()],
        role: Role::Public,
        address: Some("10.0.0.5:49153".parse().unwrap()),
        port: 80,
        weight: 1,
        stage,
        meta: BTreeMap::from([("container".into(), "wordpress-1".into()), ("started".into(), "t1".into())]),
    };
    Wanted { members: BTreeMap::from([(CID.to_owned(), member)]), ..Wanted::default() }
}

fn machine() -> Machine {
    Machine::new("m1", None)
}

struct Rig {
    store: Arc<Fake>,
    id: watch::Sender<Option<LeaseId>>,
    registrar: Registrar,
}

/// A registrar whose lease the test decides.
async fn rig() -> Rig {
    let store = Arc::new(Fake::default());
    let first = store.grant(Duration::from_secs(15)).await.unwrap();
    rig_on(store, first)
}

fn rig_on(store: Arc<Fake>, lease: LeaseId) -> Rig {
    let (id, receiver) = watch::channel(Some(lease));
    let lease = Lease { id: receiver, trouble: watch::channel(None).1, doubt: Arc::default() };
    let registrar = Registrar::new(store.clone(), machine(), lease, Board::default(), None);
    Rig { store, id, registrar }
}

#[tokio::test]
async fn the_second_time_writes_nothing() {
    let mut rig = rig().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    assert_eq!(rig.store.dump().len(), 4);
    let revision = rig.store.revision();
    for _ in 0..10 {
        rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
        rig.registrar.check().await;
        rig.registrar.stale = true;
    }
    assert_eq!(rig.store.revision(), revision);
}

#[tokio::test]
async fn what_somebody_deleted_is_back_after_a_check() {
    let mut rig = rig().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    let before = rig.store.dump();
    for key in [KEY, "sites/blog", "backends/blog-admin/backend"] {
        rig.store.commit(etna_store::Txn::delete(key)).await.unwrap();
    }
    rig.registrar.check().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    assert_eq!(rig.store.dump(), before);
}

#[tokio::test]
async fn a_lost_lease_brings_everything_back_under_the_next() {
    let mut rig = rig().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    let before = rig.store.dump();
    rig.store.end(LeaseId(1));
    assert_eq!(rig.store.dump().len(), 3, "site and backends outlive the lease");
    rig.registrar.stale = true;
    let lost = rig.registrar.settle(&wanted(Stage::Up)).await;
    assert!(matches!(lost, Err(Failure::Store(Error::LeaseLost))));
    let next = rig.store.grant(Duration::from_secs(15)).await.unwrap();
    rig.id.send_replace(Some(next));
    let revision = rig.store.revision();
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    assert_eq!(rig.store.dump(), before);
    assert_eq!(rig.store.revision(), revision + 1);
    assert_eq!(rig.store.item(KEY).unwrap().lease, Some(next));
}

#[tokio::test]
async fn a_restart_adopts_what_stands_and_removes_what_is_gone() {
    let mut rig = rig().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    let stale = "backends/blog-public/servers/m1-000000000000-80";
    let foreign = "backends/blog-public/servers/m2-000000000000-80";
    for key in [stale, foreign] {
        rig.store.commit(etna_store::Txn::put(key, "{}")).await.unwrap();
    }
    let revision = rig.store.revision();
    let mut next = rig_on(rig.store.clone(), LeaseId(1));
    next.registrar.settle(&wanted(Stage::Pending)).await.unwrap();
    assert_eq!(rig.store.revision(), revision + 1, "one transaction: the stale key is deleted");
    assert!(rig.store.item(stale).is_none());
    assert!(rig.store.item(foreign).is_some());
    next.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    assert_eq!(rig.store.revision(), revision + 1, "its server did not blink");
}

#[tokio::test]
async fn a_drain_is_one_write_and_then_the_key_goes() {
    let mut rig = rig().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    let revision = rig.store.revision();
    rig.registrar.settle(&wanted(Stage::Draining)).await.unwrap();
    assert_eq!(rig.store.revision(), revision + 1);
    assert!(rig.store.dump()[KEY].contains(r#""State":"draining""#));
    rig.registrar.settle(&Wanted::default()).await.unwrap();
    assert!(rig.store.item(KEY).is_none());
    assert_eq!(rig.store.dump().len(), 3);
}

#[tokio::test]
async fn a_drain_survives_a_restart_of_the_sidekick() {
    let mut rig = rig().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    rig.registrar.settle(&wanted(Stage::Draining)).await.unwrap();
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    assert!(!rig.store.dump()[KEY].contains("draining"), "who set it may end it");
    rig.registrar.settle(&wanted(Stage::Draining)).await.unwrap();
    let mut next = rig_on(rig.store.clone(), LeaseId(1));
    next.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    assert!(rig.store.dump()[KEY].contains("draining"));
}

#[tokio::test]
async fn two_hosts_may_create_a_site_at_once() {
    let mut rig = rig().await;
    // The other one has already read that there is nothing.
    rig.registrar.settle(&Wanted::default()).await.unwrap();
    let theirs = record::Site::new("blog", vec!["c.d".into()]).encode();
    rig.store.commit(etna_store::Txn::put("sites/blog", theirs)).await.unwrap();
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    let site = &rig.store.dump()["sites/blog"];
    assert!(site.contains(r#""Hosts":["c.d","a.b"]"#), "{site}");
    assert!(rig.store.item(KEY).is_some());
}

#[tokio::test]
async fn one_containers_sidekick_leaves_the_others_alone() {
    let mut rig = rig().await;
    rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
    let (_id, receiver) = watch::channel(Some(LeaseId(1)));
    let lease = Lease { id: receiver, trouble: watch::channel(None).1, doubt: Arc::default() };
    let only = |name: &str| Some(name.to_owned());
    let board = Board::default();
    let mut other = Registrar::new(rig.store.clone(), machine(), lease.clone(), board.clone(), only("wordpress-2"));
    other.settle(&Wanted::default()).await.unwrap();
    assert!(rig.store.item(KEY).is_some());
    let mut its = Registrar::new(rig.store.clone(), machine(), lease, board, only("wordpress-1"));
    its.settle(&Wanted::default()).await.unwrap();
    assert!(rig.store.item(KEY).is_none());
}

#[tokio::test]
async fn deregister_finds_by_name_and_by_id() {
    for (container, found) in [(Some("wordpress-1"), 1), (Some("fedcba987654"), 1), (Some("fedcba98"), 0), (None, 1)] {
        let mut rig = rig().await;
        rig.registrar.settle(&wanted(Stage::Up)).await.unwrap();
        let deleted = deregister(rig.store.as_ref(), &machine(), container).await.unwrap();
        assert_eq!(deleted.len(), found, "{container:?}");
        assert_eq!(rig.store.item(KEY).is_none(), found == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_loop_outlives_the_store_and_the_lease() {
    let store = Arc::new(Fake::default());
    store.away(true);
    let (keeper, lease) = Keeper::new(store.clone(), Duration::from_secs(15), Notebook::none());
    let registrar = Registrar::new(store.clone(), machine(), lease.clone(), Board::default(), None);
    let (sender, receiver) = watch::channel(None);
    let stop = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run());
    let running = tokio::spawn(registrar.run(receiver, stop.clone(), Beat::default()));

    sender.send_replace(Some(wanted(Stage::Up)));
    tokio::time::sleep(Duration::from_secs(30)).await;
    store.away(false);
    let registered = || store.item(KEY).is_some();
    eventually(&registered).await;
    let revision = store.revision();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(store.revision(), revision, "five idle minutes are no revision");

    let first = (*lease.id.borrow()).unwrap();
    store.end(first);
    assert!(!registered());
    eventually(&registered).await;
    assert_ne!(store.item(KEY).unwrap().lease, Some(first));

    store.away(true);
    sender.send_replace(Some(Wanted::default()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    store.away(false);
    eventually(&|| store.item(KEY).is_none()).await;
    stop.cancel();
    running.await.unwrap();
    keeper.abort();
}

/// With the clock paused, sleeping is only a way to let the others run.
async fn eventually(condition: &dyn Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 100 s");
}

#[tokio::test]
async fn the_lease_is_taken_over_from_the_notebook() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Fake::default());
    let notebook = Notebook::new(dir.path().join("lease"), "fake:", "m1");
    let ttl = Duration::from_secs(15);
    let held = |notebook: Notebook| {
        let (keeper, lease) = Keeper::new(store.clone(), ttl, notebook);
        async move {
            keeper.once().await.unwrap();
            let id = *lease.id.borrow();
            id.unwrap()
        }
    };
    let first = held(notebook.clone()).await;
    assert_eq!(held(notebook.clone()).await, first);
    assert_ne!(held(Notebook::new(dir.path().join("lease"), "other:", "m1")).await, first, "of another store");
    let second = held(notebook.clone()).await;
    store.end(second);
    assert_ne!(held(notebook).await, second, "ended meanwhile");
}
