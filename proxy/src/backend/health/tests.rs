//! A backend's servers under failures: who is ejected, who never is, who comes back.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::backend::balance::Schedule;
use crate::backend::{BackendLive, Live};

fn backend(servers: usize, more: &str) -> Backend {
    let value = format!(r#"{{"Type":"http"{more}}}"#);
    let spec = etna_store::Backend::decode("b".into(), value.as_bytes(), &mut Vec::new()).unwrap();
    let servers = (0..servers)
        .map(|n| {
            let value = br#"{"URL":"http://127.0.0.1:80"}"#;
            let spec = etna_store::Server::decode(format!("s{n}").into(), value, &mut Vec::new()).unwrap();
            Server { live: Arc::new(Live::new(n as u64, "b", &spec)), spec: Arc::new(spec), tls: None }
        })
        .collect();
    Backend {
        number: 0,
        id: "b".into(),
        spec: Arc::new(spec),
        check: None,
        tls: None,
        hash: None,
        servers,
        schedule: Schedule::default(),
        cookie: None,
        live: Arc::new(BackendLive::default()),
    }
}

impl Backend {
    fn fail(&self, at: u16, reason: Reason, now: u64) {
        self.fail_after(at, (reason, Duration::ZERO), now);
    }

    fn fail_after(&self, at: u16, failed: (Reason, Duration), now: u64) {
        self.failed(at, &self.servers[usize::from(at)], failed, now);
    }

    fn answer(&self, at: u16, now: u64) {
        self.answered(at, &self.servers[usize::from(at)], now);
    }

    fn word(&self, at: usize) -> u32 {
        self.servers[at].live.health.word.load(Relaxed)
    }

    fn is_ejected(&self, at: usize) -> bool {
        self.word(at) & EJECTED != 0
    }
}

fn finding(well: bool) -> Finding {
    Finding { well, ..Finding::default() }
}

#[test]
fn five_failures_in_a_row_eject_or_three_refused_connects() {
    let backend = backend(3, "");
    for _ in 0..4 {
        backend.fail(0, Reason::Timeout, 0);
    }
    assert!(!backend.is_ejected(0) && backend.servers[0].live.health.is_serving());
    backend.answer(0, 0);
    assert_eq!(backend.word(0), 0, "a good answer forgets them");
    for _ in 0..5 {
        backend.fail(0, Reason::Gateway, 0);
    }
    assert!(backend.is_ejected(0) && !backend.servers[0].live.health.is_serving());
    let backend = self::backend(3, "");
    for _ in 0..3 {
        backend.fail(1, Reason::Unreachable, 0);
    }
    assert!(backend.is_ejected(1));
    assert_eq!(backend.tally(), Tally { all: 3, serving: 2, ill: 1 });
}

#[test]
fn bad_gateways_are_failures_and_other_answers_are_none() {
    let backend = backend(2, "");
    for status in [500, 404, 501, 429, 101, 200] {
        for _ in 0..20 {
            backend.observe(0, Outcome::Answered(StatusCode::from_u16(status).unwrap()));
        }
    }
    assert_eq!(backend.word(0), 0);
    for status in [502, 503, 504, 502, 503] {
        backend.observe(0, Outcome::Answered(StatusCode::from_u16(status).unwrap()));
    }
    assert!(backend.is_ejected(0));
    backend.observe(7, Outcome::Late(Duration::from_secs(60)));
}

#[test]
fn the_last_server_and_half_of_them_stay() {
    for (servers, ejected) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let backend = backend(servers, "");
        for _ in 0..50 {
            for at in 0..servers {
                backend.fail(at as u16, Reason::Broken, 0);
            }
        }
        let found = (0..servers).filter(|at| backend.is_ejected(*at)).count();
        assert_eq!(found, ejected, "of {servers}");
        assert!(!backend.tally().is_panic());
    }
}

#[test]
fn a_server_whose_checks_fail_counts_as_gone_when_another_is_to_be_ejected() {
    let backend = backend(2, "");
    let check = HealthCheck { fall: 1, ..HealthCheck::default() };
    let health = &backend.servers[0].live.health;
    assert_eq!(health.record(0, finding(false), &check), Some(State::Unchecked));
    for _ in 0..50 {
        backend.fail(1, Reason::Timeout, 0);
    }
    assert!(!backend.is_ejected(1));
    assert_eq!(backend.tally(), Tally { all: 2, serving: 1, ill: 1 });
}

#[test]
fn a_probed_server_comes_back_or_is_ejected_for_longer() {
    let backend = backend(2, "");
    for _ in 0..5 {
        backend.fail(0, Reason::Timeout, 0);
    }
    let health = &backend.servers[0].live.health;
    let until = health.ejection.left(0);
    assert!((10_000..=11_000).contains(&until));
    // What was asked before it was tried says nothing, however late it is told.
    for (limit, told) in [(1, 500), (300, 9_000)] {
        backend.fail_after(0, (Reason::Timeout, Duration::from_secs(limit)), until + told);
        assert!(health.ejection.is_probed(until));
    }
    backend.fail_after(0, (Reason::Timeout, Duration::from_secs(1)), until + 1_000);
    let until = until + 1_000 + health.ejection.left(until + 1_000);
    assert!(!health.ejection.is_probed(until - 1) && health.ejection.is_probed(until));
    assert_eq!(health.ejections(), 2);
    for _ in 0..3 {
        assert!(backend.is_ejected(0));
        backend.answer(0, until);
    }
    assert!(!backend.is_ejected(0));
    // Not again so soon, whatever happens.
    for _ in 0..50 {
        backend.fail(0, Reason::Broken, until + 4_999);
    }
    assert!(!backend.is_ejected(0));
    backend.fail(0, Reason::Broken, until + 5_000);
    assert!(backend.is_ejected(0));
}

#[test]
fn a_new_server_waits_for_its_first_check() {
    let backend = backend(2, "");
    let health = &backend.servers[0].live.health;
    health.expect_check();
    assert!(!health.is_serving() && backend.has_serving());
    assert_eq!(backend.tally(), Tally { all: 2, serving: 1, ill: 0 });
    backend.servers[1].live.health.expect_check();
    assert!(!backend.tally().is_panic() && !health.is_ill(), "new is not ill");
    health.record(0, finding(true), &HealthCheck::default());
    assert!(health.is_serving());
    health.forget_checks();
    assert_eq!((health.state(), health.is_known()), (State::Unchecked, false));
}

#[test]
fn with_nobody_well_it_is_panic() {
    let backend = backend(2, "");
    let check = HealthCheck { fall: 1, ..HealthCheck::default() };
    for server in &backend.servers {
        server.live.health.record(0, finding(false), &check);
    }
    assert!(backend.tally().is_panic() && !backend.has_serving());
}

#[test]
fn what_is_exported_is_taken_over() {
    let (old, new) = (backend(3, ""), backend(3, ""));
    let check = HealthCheck { fall: 1, ..HealthCheck::default() };
    for _ in 0..5 {
        old.fail(0, Reason::Timeout, 0);
    }
    old.servers[1].live.health.record(0, finding(false), &check);
    assert_eq!(old.servers[2].live.health.export(), None);
    for at in 0..2 {
        let health = &new.servers[at].live.health;
        if at == 1 {
            health.expect_check();
        }
        let saved = old.servers[at].live.health.export().unwrap();
        assert!(health.import(&saved), "{saved}");
    }
    assert!(new.is_ejected(0));
    assert_eq!(new.servers[1].live.health.state(), State::Down);
    assert!(new.servers[0].live.health.standing().detail.starts_with("left alone"));
    for bad in ["null", "{}", "[1]", r#"{"state":"up"}"#] {
        assert!(!new.servers[2].live.health.import(&serde_json::from_str(bad).unwrap()), "{bad}");
    }
}

proptest! {
    #[test]
    fn ejections_leave_half_and_one_whatever_happens(
        servers in 1usize..9,
        steps in proptest::collection::vec((0usize..9, 0u8..6, 0u64..4_000), 1..400),
    ) {
        let backend = backend(servers, "");
        let check = HealthCheck { fall: 1, rise: 1, ..HealthCheck::default() };
        let (mut now, mut changes) = (0, vec![None; servers]);
        for (at, what, pause) in steps {
            let at = at % servers;
            now += pause;
            let before = (backend.is_ejected(at), backend.tally());
            match what {
                0..=2 => backend.fail(at as u16, Reason::Broken, now),
                3 => backend.fail(at as u16, Reason::Unreachable, now),
                4 => backend.answer(at as u16, now),
                _ => { backend.servers[at].live.health.record(0, finding(pause % 2 == 0), &check); }
            }
            let after = backend.tally();
            if !before.0 && backend.is_ejected(at) {
                prop_assert!(after.serving >= 1 && after.serving * 2 >= servers, "{before:?} {after:?}");
            }
            if before.0 != backend.is_ejected(at) {
                prop_assert!(changes[at].is_none_or(|last| now - last >= 5_000));
                changes[at] = Some(now);
            }
        }
    }
}
