use super::*;
use crate::wanted::{Member, Role};
use etna_store::Revision;

const LEASE: LeaseId = LeaseId(7);

fn machine() -> Machine {
    Machine::new("0123456789abcdef0123456789abcdef", None)
}

fn member(stage: Stage) -> Member {
    Member {
        site: "blog".into(),
        hosts: vec!["a.b".into()],
        role: Role::Public,
        address: Some("10.0.0.5:49153".parse().unwrap()),
        port: 80,
        weight: 1,
        stage,
        meta: BTreeMap::from([("started".into(), "t1".into())]),
    }
}

fn wanted(members: &[Member]) -> Wanted {
    let ids = (0..).map(|i| format!("{i:012x}ffff"));
    Wanted { members: ids.zip(members.iter().cloned()).collect(), ..Wanted::default() }
}

/// Carries a plan out on the copy alone.
fn carry_out(held: &mut Held, steps: &[Step]) {
    for op in steps.iter().flat_map(|step| &step.txn.ops) {
        match op {
            Op::Put(key, value, Some(lease)) => {
                held.servers
                    .insert(key.clone(), HeldServer { value: value.clone(), lease: Some(*lease), pinned: false });
            }
            Op::Put(key, value, None) => {
                let item = Item { value: value.clone(), revision: Revision(1), lease: None };
                held.shared.insert(key.clone(), Some(item));
            }
            Op::Delete(key) => drop(held.servers.remove(key)),
        }
    }
}

fn settled(wanted: &Wanted) -> Held {
    let mut held = Held::default();
    let steps = plan(wanted, &machine(), &held, LEASE);
    carry_out(&mut held, &steps);
    assert_eq!(plan(wanted, &machine(), &held, LEASE), [], "carried out, nothing is left");
    held
}

fn notes(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().flat_map(|step| step.notes.iter().map(|(note, _)| *note)).collect()
}

#[test]
fn a_first_container_brings_its_site_in_one_transaction() {
    let steps = plan(&wanted(&[member(Stage::Up)]), &machine(), &Held::default(), LEASE);
    assert_eq!(steps.len(), 1);
    assert_eq!(notes(&steps), ["create backend", "create backend", "create site", "register"]);
    assert_eq!(steps[0].txn.compares.len(), 3);
    let Op::Put(key, value, lease) = &steps[0].txn.ops[3] else { panic!() };
    assert_eq!(key, "backends/blog-public/servers/01234567-000000000000-80");
    assert_eq!(*lease, Some(LEASE));
    let value = String::from_utf8(value.to_vec()).unwrap();
    assert!(value.starts_with(r#"{"URL":"http://10.0.0.5:49153","Meta":{"#), "{value}");
    assert!(steps[0].txn.ops[..3].iter().all(|op| matches!(op, Op::Put(_, _, None))), "they outlive the host");
}

#[test]
fn both_means_a_server_in_each_backend() {
    let held = settled(&wanted(&[Member { role: Role::Both, ..member(Stage::Up) }]));
    let keys: Vec<&String> = held.servers.keys().collect();
    assert_eq!(keys.len(), 2);
    assert!(keys[0].contains("blog-admin") && keys[1].contains("blog-public"));
}

#[test]
fn pending_registers_the_site_but_not_the_server_and_leaves_what_stands() {
    let pending = wanted(&[member(Stage::Pending)]);
    let held = settled(&pending);
    assert!(held.servers.is_empty());
    assert!(held.shared.contains_key("sites/blog"));

    let held = settled(&wanted(&[member(Stage::Up)]));
    assert_eq!(plan(&pending, &machine(), &held, LEASE), []);
    assert_eq!(notes(&plan(&pending, &machine(), &held, LeaseId(8))), ["renew"]);
    let moved = wanted(&[Member { address: Some("10.0.0.5:50000".parse().unwrap()), ..member(Stage::Pending) }]);
    assert_eq!(notes(&plan(&moved, &machine(), &held, LEASE)), ["deregister"]);
}

#[test]
fn drains_come_before_everything_else() {
    let before = wanted(&[member(Stage::Up), member(Stage::Up)]);
    let held = settled(&before);
    let after = wanted(&[Member { weight: 2, ..member(Stage::Up) }, member(Stage::Draining), member(Stage::Up)]);
    let steps = plan(&after, &machine(), &held, LEASE);
    assert_eq!(notes(&steps), ["drain", "update", "register"]);
    let Op::Put(_, value, _) = &steps[0].txn.ops[0] else { panic!() };
    assert!(record::Server::decode(value).unwrap().drains());
}

#[test]
fn a_drain_by_another_hand_lasts_until_the_container_starts_anew() {
    let up = wanted(&[member(Stage::Up)]);
    let mut held = settled(&up);
    let server = held.servers.values_mut().next().unwrap();
    server.value = record::Server::decode(&server.value).unwrap().draining().encode();
    assert_eq!(notes(&plan(&up, &machine(), &held, LEASE)), ["update"], "our own drain is ours to end");
    held.servers.values_mut().for_each(|server| server.pinned = true);
    assert_eq!(plan(&up, &machine(), &held, LEASE), []);
    let mut again = member(Stage::Up);
    again.meta.insert("started".into(), "t2".into());
    assert_eq!(notes(&plan(&wanted(&[again]), &machine(), &held, LEASE)), ["update"]);
}

#[test]
fn only_what_lives_under_our_lease_or_none_is_deleted() {
    let held = settled(&wanted(&[member(Stage::Up)]));
    let nothing = Wanted::default();
    assert_eq!(notes(&plan(&nothing, &machine(), &held, LEASE)), ["deregister"]);
    assert_eq!(
        plan(&nothing, &machine(), &held, LeaseId(8)),
        [],
        "another life's, or another machine's: ends by itself"
    );
    let unread = Wanted { unread: BTreeSet::from(["000000000000ffff".into()]), ..Wanted::default() };
    assert_eq!(plan(&unread, &machine(), &held, LEASE), [], "it runs, but could not be looked at");
}

#[test]
fn hosts_are_merged_into_a_sidekicks_site_and_never_into_an_operators() {
    let mut held = settled(&wanted(&[member(Stage::Up)]));
    let more = wanted(&[member(Stage::Up), Member { hosts: vec!["c.d".into(), "a.b".into()], ..member(Stage::Up) }]);
    let steps = plan(&more, &machine(), &held, LEASE);
    assert_eq!(notes(&steps), ["add hosts", "register"]);
    assert_eq!(steps[0].txn.compares, [Compare::Unchanged("sites/blog".into(), Revision(1))]);
    carry_out(&mut held, &steps);
    assert_eq!(plan(&more, &machine(), &held, LEASE), []);
    assert_eq!(plan(&wanted(&[member(Stage::Up), member(Stage::Up)]), &machine(), &held, LEASE), [], "hosts stay");

    let mut held = settled(&wanted(&[member(Stage::Up)]));
    let edited = r#"{"Preset":"wordpress","Hosts":["x.y"],"Public":"blog-public"}"#;
    let item = Item { value: edited.into(), revision: Revision(9), lease: None };
    held.shared.insert("sites/blog".into(), Some(item));
    assert_eq!(notes(&plan(&more, &machine(), &held, LEASE)), ["register"]);
}

#[test]
fn no_transaction_is_larger_than_etcd_takes() {
    let members: Vec<Member> = (0..450).map(|_| member(Stage::Up)).collect();
    let steps = plan(&wanted(&members), &machine(), &Held::default(), LEASE);
    assert!(steps.iter().all(|step| step.txn.ops.len() <= OPS_MAX));
    assert_eq!(steps.iter().map(|step| step.txn.ops.len()).sum::<usize>(), 453);
    let held = settled(&wanted(&members));
    assert_eq!(
        plan(&wanted(&members), &machine(), &held, LeaseId(8)).len(),
        5,
        "a new lease: all of it, in few writes"
    );
}
