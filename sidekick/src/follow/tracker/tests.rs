use super::*;
use crate::classify::Addressing;
use serde_json::json;

const ID: &str = "fedcba9876543210fedcba9876543210";

fn policy() -> Policy {
    let addressing = Addressing { host_ip: "10.0.0.5".parse().ok(), ..Addressing::default() };
    Policy { default_host: "wordpress.local".into(), allow_hosts: Vec::new(), allow_sites: Vec::new(), addressing }
}

fn container(started: &str, host_port: &str) -> Container {
    serde_json::from_value(json!({
        "Id": ID, "Name": "/wordpress-1", "State": {"Running": true, "StartedAt": started},
        "Config": {"Image": "wp", "StopSignal": "SIGWINCH"},
        "HostConfig": {"PortBindings": {"80/tcp": [{}]}},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": host_port}]},
            "Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}
    }))
    .unwrap()
}

const T1: &str = "2026-11-21T06:03:00Z";
const T2: &str = "2026-11-21T06:04:00Z";

fn event(action: &str, signal: &str) -> Event {
    let attributes = BTreeMap::from([("signal".to_owned(), signal.to_owned())]);
    let time = time::nanos(T1).unwrap() + 5_000_000_000;
    Event { kind: "container".into(), action: action.into(), container: ID.into(), attributes, time }
}

/// A tracker with one container that answers.
fn up(now: Instant) -> Tracker {
    let mut tracker = Tracker::new(policy(), None, true);
    let ask = tracker.inspected(container(T1, "49153"), now).ask.unwrap();
    assert_eq!(stage(&tracker), Some(Stage::Pending));
    assert!(!tracker.answered(&ask, true));
    assert_eq!(stage(&tracker), Some(Stage::Up));
    tracker
}

fn stage(tracker: &Tracker) -> Option<Stage> {
    tracker.wanted().members.get(ID).map(|member| member.stage)
}

#[test]
fn a_stop_drains_at_once_and_the_end_removes() {
    let now = Instant::now();
    for signal in ["28", "15", "SIGTERM", "2", "3"] {
        let mut tracker = up(now);
        assert_eq!(tracker.event(&event("kill", signal), now), Next::default());
        assert_eq!(stage(&tracker), Some(Stage::Draining), "{signal}");
        // A look in between (`health_status`, the minute's resync) does not undo it.
        assert_eq!(tracker.inspected(container(T1, "49153"), now), Next::default());
        assert_eq!(stage(&tracker), Some(Stage::Draining));
        tracker.event(&event("die", ""), now);
        assert_eq!(stage(&tracker), None);
    }
    let mut tracker = up(now);
    tracker.event(&event("kill", "1"), now);
    assert_eq!(stage(&tracker), Some(Stage::Up), "a reload is no stop");
    tracker.event(&event("kill", "9"), now);
    assert_eq!(stage(&tracker), None, "dead already");
}

#[test]
fn who_was_told_to_stop_and_does_not_is_up_again() {
    let now = Instant::now();
    let mut tracker = up(now);
    tracker.event(&event("kill", "15"), now);
    tracker.tick(now + DRAIN_MAX / 2);
    assert_eq!(stage(&tracker), Some(Stage::Draining));
    tracker.tick(now + DRAIN_MAX);
    assert_eq!(stage(&tracker), Some(Stage::Up));
}

#[test]
fn a_restart_is_a_new_run_under_the_same_name() {
    let now = Instant::now();
    let mut tracker = up(now);
    tracker.event(&event("kill", "28"), now);
    tracker.event(&event("die", ""), now);
    let next = tracker.event(&event("start", ""), now);
    assert_eq!(next.inspect, Some((ID.to_owned(), DEBOUNCE)));
    let ask = tracker.inspected(container(T2, "50000"), now).ask.unwrap();
    assert_eq!(ask.address, "10.0.0.5:50000".parse().unwrap());
    tracker.answered(&ask, true);
    assert_eq!(stage(&tracker), Some(Stage::Up));
    // Replayed after a reconnect: older than this run.
    for action in ["kill", "die", "destroy"] {
        tracker.event(&event(action, "15"), now);
        assert_eq!(stage(&tracker), Some(Stage::Up), "{action}");
    }
}

#[test]
fn a_restart_that_was_not_seen_is_one_too() {
    let now = Instant::now();
    let mut tracker = up(now);
    tracker.event(&event("kill", "15"), now);
    let ask = tracker.inspected(container(T2, "49153"), now).ask;
    assert!(ask.is_some(), "the same address, but another run");
    assert_eq!(stage(&tracker), Some(Stage::Pending));
}

#[test]
fn an_answer_to_an_old_question_is_ignored() {
    let now = Instant::now();
    let mut tracker = Tracker::new(policy(), None, true);
    let old = tracker.inspected(container(T1, "49153"), now).ask.unwrap();
    let new = tracker.inspected(container(T1, "50000"), now).ask.unwrap();
    assert!(!tracker.answered(&old, true));
    assert_eq!(stage(&tracker), Some(Stage::Pending));
    assert!(tracker.answered(&new, false), "keep asking");
    let member = &tracker.wanted().members[ID];
    assert_eq!((member.stage, member.weight), (Stage::Up, 0));
    assert!(member.meta.contains_key("note"));
    tracker.answered(&new, true);
    assert_eq!(tracker.wanted().members[ID].weight, 1);
}

#[test]
fn a_port_that_is_not_bound_is_looked_for_for_five_seconds() {
    let now = Instant::now();
    let mut tracker = Tracker::new(policy(), None, true);
    let next = tracker.inspected(container(T1, ""), now);
    assert_eq!((next.inspect.is_some(), next.ask), (true, None));
    let next = tracker.inspected(container(T1, ""), now + BINDING / 2);
    assert_eq!((next.inspect.is_some(), next.ask), (true, None));
    let next = tracker.inspected(container(T1, ""), now + BINDING);
    assert_eq!(next.ask.unwrap().address, "172.17.0.2:80".parse().unwrap());
    let next = tracker.inspected(container(T1, "49153"), now + BINDING);
    assert_eq!(next.ask.unwrap().address, "10.0.0.5:49153".parse().unwrap());
}

#[test]
fn an_empty_list_is_not_believed_for_a_while_after_the_engine_came_back() {
    let now = Instant::now();
    let mut tracker = up(now);
    tracker.interrupted();
    assert!(!tracker.listed(&[], now));
    assert!(!tracker.listed(&["other".into()], now + GRACE / 2));
    assert_eq!(stage(&tracker), Some(Stage::Up));
    assert!(tracker.listed(&[], now + GRACE));
    assert_eq!(stage(&tracker), None);

    let mut tracker = up(now);
    tracker.interrupted();
    assert!(!tracker.listed(&[], now));
    assert!(tracker.listed(&[ID.into()], now));
    assert_eq!(stage(&tracker), Some(Stage::Up));
    assert!(tracker.listed(&[], now), "the engine has been there all the time");
    assert_eq!(stage(&tracker), None);
}

#[test]
fn one_container_only() {
    let now = Instant::now();
    for (only, tracked) in [("wordpress-1", true), ("fedcba987654", true), ("fedcba", false), ("wordpress-2", false)] {
        let mut tracker = Tracker::new(policy(), Some(only.to_owned()), false);
        tracker.inspected(container(T1, "49153"), now);
        assert_eq!(stage(&tracker).is_some(), tracked, "{only}");
    }
}

#[test]
fn events_that_mean_nothing_cost_nothing() {
    let now = Instant::now();
    let mut tracker = up(now);
    for action in ["exec_create: sh", "exec_start: sh", "top", "attach", "resize", "future-thing", ""] {
        assert_eq!(tracker.event(&event(action, ""), now), Next::default(), "{action}");
    }
    let mut image = event("start", "");
    image.kind = "image".into();
    assert_eq!(tracker.event(&image, now), Next::default());
    assert_eq!(tracker.event(&Event::default(), now), Next::default());
    for action in ["health_status: unhealthy", "pause", "unpause", "rename", "update"] {
        assert!(tracker.event(&event(action, ""), now).inspect.is_some(), "{action}");
    }
}
