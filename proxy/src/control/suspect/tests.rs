mod whatever;

use etna_store::Revision;
use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_secs(300);
const UP: &str = r#"{"URL":"http://10.0.0.1:80"}"#;
const DRAINING: &str = r#"{"URL":"http://10.0.0.1:80","State":"draining"}"#;

struct Followed {
    model: Model,
    suspects: Suspects,
    now: Instant,
    revision: i64,
}

impl Followed {
    fn new(hold: Duration) -> Followed {
        Followed { model: Model::default(), suspects: Suspects::new(hold), now: Instant::now(), revision: 0 }
    }

    fn with(pairs: &[(String, &str)]) -> Followed {
        let mut followed = Followed::new(HOLD);
        let pairs: Vec<(&str, Option<&str>)> = pairs.iter().map(|(key, value)| (key.as_str(), Some(*value))).collect();
        followed.step(&pairs);
        followed
    }

    /// One revision.
    fn step(&mut self, changes: &[(&str, Option<&str>)]) -> Delta {
        self.revision += 1;
        let batch = batch(self.revision, changes);
        self.suspects.apply(&mut self.model, &batch, self.now, false)
    }

    fn delete(&mut self, keys: &[String]) -> Delta {
        let changes: Vec<(&str, Option<&str>)> = keys.iter().map(|key| (key.as_str(), None)).collect();
        self.step(&changes)
    }

    fn resync(&mut self, revision: i64, pairs: &[(&str, &str)]) -> Delta {
        let pairs: Vec<(&str, Option<&str>)> = pairs.iter().map(|(key, value)| (*key, Some(*value))).collect();
        let diff = self.suspects.diff(&batch(revision, &pairs));
        let replaced = revision < self.revision;
        self.revision = revision;
        self.suspects.apply(&mut self.model, &diff, self.now, replaced)
    }

    fn after(&mut self, time: Duration) -> &mut Followed {
        self.now += time;
        self
    }

    fn servers(&self, backend: &str) -> usize {
        self.model.servers(backend).count()
    }

    fn held(&self) -> usize {
        self.suspects.held().count()
    }
}

fn batch(revision: i64, changes: &[(&str, Option<&str>)]) -> Batch {
    let change = |(key, value): &(&str, Option<&str>)| Change {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    };
    Batch { revision: Revision(revision), changes: changes.iter().map(change).collect() }
}

fn server(backend: &str, n: usize) -> String {
    format!("backends/{backend}/servers/s{n}")
}

fn frontend(id: &str) -> String {
    format!("frontends/{id}/frontend")
}

/// Backends of so many servers, each with a frontend of the same name that leads to it.
fn apps(sizes: &[(&str, usize)]) -> Followed {
    let mut pairs = Vec::new();
    let values: Vec<String> = sizes
        .iter()
        .map(|(id, _)| format!(r#"{{"Type":"http","BackendId":"{id}","Route":"Host(`{id}.test`)"}}"#))
        .collect();
    for ((id, size), value) in sizes.iter().zip(&values) {
        pairs.push((frontend(id), value.as_str()));
        pairs.extend((0..*size).map(|n| (server(id, n), UP)));
    }
    Followed::with(&pairs)
}

#[test]
fn more_than_half_of_a_backend_in_one_step_is_held() {
    let mut at = apps(&[("a", 5), ("b", 5), ("c", 5), ("d", 5)]);
    at.delete(&[server("a", 0), server("a", 1), server("a", 2)]);
    assert_eq!((at.servers("a"), at.held()), (5, 3));
    assert_eq!(at.suspects.cases().next().unwrap().what, What::Servers { backend: "a".into(), gone: 3, of: 5 });
    // Half is not more than half, and others are not touched.
    at.delete(&[server("b", 0), server("b", 1)]);
    assert_eq!((at.servers("b"), at.held()), (3, 3));
    // A key that comes back is no suspect any more.
    at.step(&[(&server("a", 0), Some(UP))]);
    assert_eq!((at.servers("a"), at.held()), (5, 2));
    // Time believes it.
    at.after(HOLD);
    let now = at.now;
    let delta = at.suspects.expire(&mut at.model, now);
    assert!(delta.backends.contains("a"));
    assert_eq!((at.servers("a"), at.held(), at.suspects.cases().count()), (3, 0, 0));
}

#[test]
fn single_deletes_over_time_are_believed_and_a_storm_is_not() {
    let mut at = apps(&[("a", 6), ("b", 9)]);
    for n in 0..6 {
        at.delete(&[server("a", n)]);
        at.after(Duration::from_secs(6));
    }
    assert_eq!((at.servers("a"), at.held()), (0, 0));
    for n in 0..9 {
        at.delete(&[server("b", n)]);
        at.after(Duration::from_millis(50));
    }
    assert_eq!((at.servers("b"), at.held()), (5, 5));
    assert_eq!(at.suspects.cases().count(), 1, "a storm is one case");
}

#[test]
fn the_first_of_a_storm_come_back_if_they_answer() {
    let mut at = apps(&[("a", 3), ("b", 3)]);
    for n in 0..3 {
        at.after(Duration::from_millis(200)).delete(&[server("a", n)]);
    }
    assert_eq!((at.servers("a"), at.held()), (1, 1));
    let asked: Vec<Bytes> = at.suspects.ask_returning().into_iter().map(|(key, _)| key).collect();
    assert_eq!(asked, [server("a", 0), server("a", 1)]);
    assert!(at.suspects.ask_returning().is_empty(), "each is asked once");
    assert!(at.suspects.returned(&mut at.model, &asked[0], true).backends.contains("a"));
    assert!(at.suspects.returned(&mut at.model, &asked[1], false).is_empty());
    assert!(at.suspects.returned(&mut at.model, &asked[0], true).is_empty());
    assert_eq!((at.servers("a"), at.held(), at.suspects.cases().next().unwrap().keys), (2, 2, 2));
    at.suspects.release(&mut at.model);
    assert_eq!((at.servers("a"), at.held()), (0, 0));

    // Those that went a while before were no part of it.
    at.delete(&[server("b", 0)]);
    at.after(Duration::from_secs(3)).delete(&[server("b", 1)]);
    at.delete(&[server("b", 2)]);
    let asked: Vec<Bytes> = at.suspects.ask_returning().into_iter().map(|(key, _)| key).collect();
    assert_eq!(asked, [server("b", 1)]);
    // One that registers again meanwhile needs no way back.
    at.step(&[(&server("b", 1), Some(UP))]);
    assert!(at.suspects.returned(&mut at.model, &asked[0], true).is_empty());
    assert_eq!((at.servers("b"), at.held()), (2, 1));
}

#[test]
fn the_last_servers_of_a_small_backend() {
    let mut at = apps(&[("a", 1), ("b", 2), ("c", 2), ("d", 3)]);
    at.delete(&[server("a", 0)]);
    assert_eq!(at.servers("a"), 0, "one is an explicit delete");
    at.delete(&[server("b", 0)]);
    at.after(Duration::from_secs(3)).delete(&[server("b", 1)]);
    assert_eq!(at.servers("b"), 0, "one at a time is, too");
    at.delete(&[server("c", 0)]);
    at.after(Duration::from_millis(300)).delete(&[server("c", 1)]);
    assert_eq!((at.servers("c"), at.held()), (1, 1), "two leases that end in one moment are not");
}

#[test]
fn servers_that_are_replaced_or_had_announced_it_go_at_once() {
    let mut at = apps(&[("a", 3), ("b", 4)]);
    for n in 3..60 {
        at.step(&[(&server("a", n), Some(UP)), (&server("a", n - 3), None)]);
        at.after(Duration::from_millis(100));
    }
    assert_eq!((at.servers("a"), at.held()), (3, 0));
    let all: Vec<String> = (0..4).map(|n| server("b", n)).collect();
    let draining: Vec<(&str, Option<&str>)> = all.iter().map(|key| (key.as_str(), Some(DRAINING))).collect();
    at.step(&draining);
    at.delete(&all);
    assert_eq!((at.servers("b"), at.held()), (0, 0));
}

#[test]
fn a_backend_that_nothing_leads_to_goes_at_once() {
    let mut at = apps(&[("a", 4), ("b", 4), ("c", 4)]);
    let new: Vec<String> = (0..4).map(|n| server("new", n)).collect();
    let old: Vec<String> = (0..4).map(|n| server("a", n)).collect();
    let route = r#"{"Type":"http","BackendId":"new","Route":"Host(`a.test`)"}"#;
    let key = frontend("a");
    let mut rename: Vec<(&str, Option<&str>)> = vec![(&key, Some(route))];
    rename.extend(new.iter().map(|key| (key.as_str(), Some(UP))));
    rename.extend(old.iter().map(|key| (key.as_str(), None)));
    at.step(&rename);
    assert_eq!((at.servers("a"), at.servers("new"), at.held()), (0, 4, 0));
    let mut gone: Vec<String> = (0..4).map(|n| server("b", n)).collect();
    gone.push(frontend("b"));
    at.delete(&gone);
    assert_eq!((at.servers("b"), at.held()), (0, 0), "an application that goes as a whole");
}

#[test]
fn a_third_of_all_objects_in_one_step_is_held() {
    let names: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
    let sizes: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut at = apps(&sizes);
    let all: Vec<String> = names.iter().map(|name| server(name, 0)).collect();
    at.delete(&all);
    assert_eq!(at.held(), 10, "del --prefix backends");
    assert_eq!(at.model.backends().count(), 10);
    at.suspects.release(&mut at.model);
    assert_eq!((at.held(), at.model.backends().count()), (0, 0));
    // Three of ten frontends left is more than a third; two are believed.
    at.delete(&[frontend("f0"), frontend("f1")]);
    assert_eq!((at.held(), at.model.frontends().count()), (0, 8));
    at.delete(&[frontend("f2"), frontend("f3"), frontend("f4")]);
    assert_eq!((at.held(), at.model.frontends().count()), (3, 8));
}

#[test]
fn keys_that_were_never_understood_are_no_objects() {
    let mut at = apps(&[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)]);
    let mut junk: Vec<String> = (0..6).map(|n| frontend(&format!("junk{n}"))).collect();
    junk.extend((0..6).map(|n| format!("backends/junk{n}/backend")));
    junk.extend((0..6).map(|n| server(&format!("none{n}"), 0)));
    for key in &junk {
        at.step(&[(key, Some("{oops"))]);
    }
    // Declared, and without any server that can be used.
    for n in 0..6 {
        at.step(&[(&format!("backends/none{n}/backend"), Some(r#"{"Type":"http"}"#))]);
    }
    junk.push(frontend("a"));
    at.delete(&junk);
    assert_eq!(at.held(), 0);
    assert!(at.model.frontend("a").is_none() && at.model.frontend("b").is_some());
    // What is served as its last good version is one.
    let mut at = apps(&[("a", 1), ("b", 1), ("c", 1)]);
    at.step(&[(&frontend("a"), Some("{oops"))]);
    at.delete(&["a", "b", "c"].map(frontend));
    assert_eq!(at.held(), 3);
}

#[test]
fn an_emptied_store_is_held_and_a_lost_history_for_as_long_as_it_takes() {
    let mut at = apps(&[("a", 1)]);
    at.resync(9, &[]);
    assert_eq!((at.held(), at.servers("a")), (2, 1));
    assert!(at.resync(10, &[]).is_empty(), "it is no news the next time");
    let until = at.suspects.cases().next().unwrap().until;
    assert_eq!(until, Some(at.now + HOLD));
    at.suspects.release(&mut at.model);
    assert_eq!(at.model.frontends().count(), 0);

    let mut at = apps(&[("a", 2), ("b", 1)]);
    at.revision = 100;
    at.resync(3, &[("sites/new", "{}")]);
    assert_eq!(at.suspects.cases().next().unwrap().until, None);
    at.after(HOLD * 10);
    let now = at.now;
    assert!(at.suspects.expire(&mut at.model, now).is_empty());
    assert_eq!(at.servers("a"), 2);
    // Who registers anew is no suspect.
    at.step(&[(&server("a", 0), Some(UP))]);
    assert_eq!(at.held(), 4);
}

#[test]
fn a_server_that_fails_twice_is_let_go() {
    let mut at = apps(&[("a", 2), ("b", 9)]);
    at.delete(&[server("a", 0), server("a", 1)]);
    let key = Bytes::from(server("a", 0));
    assert!(!at.suspects.answered(&key, false));
    assert!(!at.suspects.answered(&key, true));
    assert!(!at.suspects.answered(&key, false));
    assert!(at.suspects.answered(&key, false));
    at.suspects.let_go(&mut at.model, std::slice::from_ref(&key));
    assert_eq!((at.servers("a"), at.held()), (1, 1));
    assert!(!at.suspects.answered(&key, false));
}

#[test]
fn the_release_key_makes_all_of_it_believed() {
    let release = std::str::from_utf8(RELEASE).unwrap();
    let mut at = apps(&[("a", 3), ("b", 3), ("c", 1)]);
    at.delete(&[server("a", 0), server("a", 1), server("a", 2)]);
    assert_eq!(at.held(), 3);
    let gone: Vec<String> = (0..3).map(|n| server("b", n)).collect();
    let mut step: Vec<(&str, Option<&str>)> = gone.iter().map(|key| (key.as_str(), None)).collect();
    step.push((release, Some("1")));
    at.step(&step);
    assert_eq!((at.held(), at.servers("a"), at.servers("b")), (0, 0, 0));
    // Found by a snapshot it counts once.
    let mut at = apps(&[("a", 2)]);
    let route = r#"{"Type":"http","BackendId":"a","Route":"Host(`a.test`)"}"#;
    let key = frontend("a");
    at.resync(2, &[(release, "1"), (&key, route)]);
    assert_eq!(at.held(), 2);
    at.resync(3, &[(release, "1"), (&key, route)]);
    assert_eq!(at.held(), 2);
    at.resync(4, &[(release, "2"), (&key, route)]);
    assert_eq!((at.held(), at.servers("a")), (0, 0));
}

#[test]
fn what_an_earlier_process_held_goes_on_where_it_was() {
    let mut at = Followed::new(HOLD);
    let pairs = batch(7, &[("backends/a/servers/s", Some(UP)), ("sites/x", Some("{}"))]);
    let held = [("backends/a/servers/s".into(), Some(Duration::from_secs(20))), ("sites/x".into(), None)];
    let now = at.now;
    at.suspects.restore(&mut at.model, &pairs, &held, now);
    assert_eq!((at.held(), at.servers("a")), (2, 1));
    at.resync(8, &[]);
    assert_eq!(at.held(), 2);
    at.after(Duration::from_secs(21));
    let now = at.now;
    at.suspects.expire(&mut at.model, now);
    assert_eq!((at.held(), at.servers("a")), (1, 0));
}

#[test]
fn without_a_hold_everything_is_believed() {
    let mut at = Followed::new(Duration::ZERO);
    let key = server("a", 0);
    at.step(&[(&key, Some(UP)), ("acme/x", Some("y"))]);
    at.resync(1, &[]);
    assert_eq!((at.held(), at.servers("a"), at.suspects.pairs().len()), (0, 0, 0));
}

#[test]
fn what_moves_is_told_once() {
    let mut at = Followed::with(&[("backends/a/servers/s".into(), UP)]);
    assert!(at.suspects.take_moved() && !at.suspects.take_moved());
    at.step(&[("backends/a/servers/s", Some(DRAINING))]);
    assert!(at.suspects.take_moved());
    // Nobody's, and nothing that is there.
    at.step(&[("acme/x", Some("1")), ("backends/a/servers/t", None)]);
    assert!(!at.suspects.take_moved());
    at.delete(&["backends/a/servers/s".into()]);
    assert!(at.suspects.take_moved());
    at.resync(9, &[]);
    assert!(!at.suspects.take_moved());
}

#[test]
fn the_last_change_of_a_key_counts() {
    let mut at = Followed::with(&[("sites/z".into(), "{}")]);
    at.step(&[
        ("sites/b", Some("1")),
        ("sites/a", Some("2")),
        ("sites/b", Some("3")),
        ("sites/z", None),
        ("sites/a", None),
    ]);
    let pairs: Vec<(&[u8], &[u8])> = at.suspects.pairs().iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(pairs, [(&b"sites/b"[..], &b"3"[..])]);
    for (key, shared) in [("acme/a", true), ("proxies/p", true), ("sites/acme", false), ("frontends/f/acme/x", false)] {
        assert_eq!(
            (is_shared(key.as_bytes()), matches!(Key::parse(key.as_bytes()), Ok(Key::Shared(_)))),
            (shared, shared)
        );
    }
}
