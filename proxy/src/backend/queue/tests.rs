use std::sync::atomic::AtomicU64;

use oneshot::error::TryRecvError;

use super::*;
use crate::backend::{BackendLive, Live, Server, test};

/// One backend, in versions.
#[derive(Default)]
struct Versions {
    live: Arc<BackendLive>,
    made: AtomicU64,
}

impl Versions {
    fn next(&self, servers: &[&Server], limit: &str) -> Arc<Backend> {
        let limit = if limit.is_empty() { String::new() } else { format!(r#","Limit":{limit}"#) };
        let backend = test::backend(servers.iter().map(|server| (*server).clone()).collect(), &limit, None);
        let number = self.made.fetch_add(1, SeqCst) + 1;
        Arc::new(Backend { number, live: self.live.clone(), ..backend })
    }

    fn server(&self, number: u64) -> Server {
        let server = test::server(&format!("s{number}"), "");
        let live = Live::new(number, "b", &server.spec).waiting_in(self.live.queue.clone());
        Server { live: Arc::new(live), ..server }
    }

    fn queue(&self) -> &Arc<Queue> {
        &self.live.queue
    }
}

/// The same server, said to be otherwise.
fn but(server: &Server, more: &str) -> Server {
    Server { live: server.live.clone(), ..test::server(&server.spec.id, more) }
}

fn ask(tried: &[u16]) -> Ask<'_> {
    Ask { turn: 0, random: 0, key: None, now: Instant::now(), ramping: false, tried }
}

fn taken(backend: &Backend) -> InFlight {
    match backend.place(None, &ask(&[])) {
        Place::At(_, place) => place,
        other => panic!("{other:?}"),
    }
}

fn waiting(backend: &Arc<Backend>, stuck: Option<u16>, tried: &[u16]) -> Waiting {
    let waiting = backend.live.queue.enter(backend, stuck, &ask(tried), 1000).unwrap();
    backend.live.queue.serve();
    waiting
}

fn several(backend: &Arc<Backend>, n: usize) -> Vec<Waiting> {
    (0..n).map(|_| waiting(backend, None, &[])).collect()
}

/// The number of the server it was handed.
fn got(waiting: &mut Waiting) -> Result<Handed, TryRecvError> {
    let handed = waiting.handed.try_recv()?;
    assert_eq!(handed.backend.servers[usize::from(handed.at)].live.number, handed.place.live().number);
    Ok(handed)
}

#[test]
fn first_come_first_served_and_who_left_is_passed_over() {
    let versions = Versions::default();
    let (server, queue) = (versions.server(1), versions.queue());
    let backend = versions.next(&[&server], "1");
    let held = taken(&backend);
    let mut line = several(&backend, 3);
    assert!(queue.enter(&backend, None, &ask(&[]), 3).is_none());
    assert_eq!(queue.overflowed.get(), 1);
    drop(line.remove(0));
    drop(held);
    assert_eq!(server.live.in_flight(), 1);
    let second = got(&mut line[0]).unwrap();
    assert_eq!(got(&mut line[1]).unwrap_err(), TryRecvError::Empty);
    drop(second);
    // Handed over, and dropped without having been taken: it goes back.
    assert_eq!(queue.len(), 0);
    drop(line);
    assert_eq!(server.live.in_flight(), 0);
}

#[test]
fn a_place_is_handed_to_who_wants_that_server() {
    let versions = Versions::default();
    let (a, b) = (versions.server(1), versions.server(2));
    let backend = versions.next(&[&a, &b], "1");
    let held = [InFlight::enter_within(&a.live).unwrap(), InFlight::enter_within(&b.live).unwrap()];
    let mut stuck = waiting(&backend, Some(1), &[]);
    let mut tried = waiting(&backend, None, &[0]);
    let mut fits = waiting(&backend, None, &[]);
    let [of_a, of_b] = held;
    drop(of_a);
    assert!(got(&mut stuck).is_err() && got(&mut tried).is_err());
    assert_eq!(got(&mut fits).unwrap().at, 0);
    drop(of_b);
    // Dropped by the first at once, it goes on.
    assert_eq!(got(&mut stuck).unwrap().at, 1);
    assert_eq!(got(&mut tried).unwrap().at, 1);
}

#[test]
fn a_server_that_takes_another_s_place_is_given_to_those_who_wait() {
    let versions = Versions::default();
    let (old, new) = (versions.server(1), versions.server(2));
    let before = versions.next(&[&old], "1");
    let held = taken(&before);
    let mut line = several(&before, 2);
    line.push(waiting(&before, Some(0), &[]));
    let after = versions.next(&[&new], "1");
    versions.queue().follow(Some(&after));
    // In their order, those too that were stuck to what is gone; and what is gone is given to nobody.
    drop(held);
    for n in 0..3 {
        assert!(line.iter_mut().skip(n + 1).all(|waiting| got(waiting).is_err()));
        let handed = got(&mut line[n]).unwrap();
        assert!(Arc::ptr_eq(&handed.backend, &after) && handed.at == 0);
    }
    assert_eq!((old.live.in_flight(), new.live.in_flight()), (0, 0));
}

#[test]
fn where_all_drain_those_who_wait_are_served_all_the_same() {
    for when in ["before", "meanwhile"] {
        let versions = Versions::default();
        let up = versions.server(1);
        let draining = but(&up, r#","State":"draining""#);
        let mut backend = versions.next(&[if when == "before" { &draining } else { &up }], "1");
        let held = taken(&backend);
        let mut waits = [waiting(&backend, Some(0), &[]), waiting(&backend, None, &[])];
        if when == "meanwhile" {
            backend = versions.next(&[&draining], "1");
            versions.queue().follow(Some(&backend));
        }
        drop(held);
        assert!(got(&mut waits[0]).is_ok() && got(&mut waits[1]).is_ok(), "{when}");
    }
}

#[test]
fn draining_servers_are_spared_while_there_is_another() {
    let versions = Versions::default();
    let (drains, stays) = (versions.server(1), versions.server(2));
    let draining = but(&drains, r#","State":"draining""#);
    let backend = versions.next(&[&draining, &stays], "1");
    let held = [InFlight::enter_within(&drains.live).unwrap(), InFlight::enter_within(&stays.live).unwrap()];
    let mut any = waiting(&backend, None, &[]);
    let [of_draining, of_other] = held;
    drop(of_draining);
    assert_eq!(got(&mut any).unwrap_err(), TryRecvError::Empty);
    drop(of_other);
    assert_eq!(got(&mut any).unwrap().at, 1);
}

#[test]
fn who_is_stuck_to_a_server_that_begins_to_drain_still_waits_for_that_one() {
    let versions = Versions::default();
    let (a, b) = (versions.server(1), versions.server(2));
    let before = versions.next(&[&a], "1");
    let held = taken(&before);
    let mut stuck = waiting(&before, Some(0), &[]);
    let after = versions.next(&[&but(&a, r#","State":"draining""#), &b], "1");
    versions.queue().follow(Some(&after));
    assert_eq!(got(&mut stuck).unwrap_err(), TryRecvError::Empty);
    drop(held);
    assert_eq!(got(&mut stuck).unwrap().at, 0);
}

#[test]
fn a_limit_that_is_raised_or_lifted_lets_in_who_waits() {
    for (limit, served) in [("3", 2), ("", 4), ("1", 0)] {
        let versions = Versions::default();
        let server = versions.server(1);
        let before = versions.next(&[&server], "1");
        let _held = taken(&before);
        let mut line = several(&before, 4);
        let after = versions.next(&[&server], limit);
        versions.queue().follow(Some(&after));
        let handed: Vec<Handed> = line.iter_mut().filter_map(|waiting| got(waiting).ok()).collect();
        assert_eq!((handed.len(), versions.queue().len()), (served, 4 - served), "{limit:?}");
    }
}

#[test]
fn those_for_whom_there_is_no_server_are_let_go_at_once() {
    let versions = Versions::default();
    let (a, b) = (versions.server(1), versions.server(2));
    let two = versions.next(&[&a, &b], "1");
    let _held = [taken(&two), InFlight::enter_within(&b.live).unwrap()];
    let mut tried = waiting(&two, None, &[0]);
    let mut any = waiting(&two, None, &[]);
    let one = versions.next(&[&a], "1");
    versions.queue().follow(Some(&one));
    assert_eq!(got(&mut tried).unwrap_err(), TryRecvError::Closed);
    assert_eq!(got(&mut any).unwrap_err(), TryRecvError::Empty);
    let none = versions.next(&[], "1");
    versions.queue().follow(Some(&none));
    assert_eq!(got(&mut any).unwrap_err(), TryRecvError::Closed);
    // Whoever comes late, with an older table, too.
    assert_eq!(got(&mut waiting(&two, None, &[])).unwrap_err(), TryRecvError::Closed);
}

#[test]
fn a_backend_that_is_deleted_lets_everybody_go() {
    let versions = Versions::default();
    let server = versions.server(1);
    let backend = versions.next(&[&server], "1");
    let _held = taken(&backend);
    let mut line = several(&backend, 3);
    versions.queue().follow(None);
    line.push(waiting(&backend, None, &[]));
    assert!(line.iter_mut().all(|waiting| got(waiting).unwrap_err() == TryRecvError::Closed));
    assert!(versions.queue().is_empty());
}

#[test]
fn whoever_lines_up_with_an_older_table_chooses_from_the_newer() {
    let versions = Versions::default();
    let (old, new) = (versions.server(1), versions.server(2));
    let before = versions.next(&[&old], "1");
    let _held = taken(&before);
    let after = versions.next(&[&new], "1");
    versions.queue().follow(Some(&after));
    assert_eq!(got(&mut waiting(&before, None, &[])).unwrap().place.live().number, 2);
    // And the other way round: a newer table is heard of by who comes with it.
    let newest = versions.next(&[&old, &new], "2");
    let held = [InFlight::enter_within(&new.live).unwrap(), InFlight::enter_within(&old.live).unwrap()];
    assert_eq!(got(&mut waiting(&newest, None, &[0])).unwrap().at, 1);
    drop(held);
}

#[test]
fn many_changes_wake_nobody_whom_they_do_not_help() {
    let versions = Versions::default();
    let (a, b) = (versions.server(1), versions.server(2));
    let mut backend = versions.next(&[&a], "1");
    let held = [taken(&backend), InFlight::enter_within(&b.live).unwrap()];
    let mut line = several(&backend, 100);
    for n in 0..1000 {
        let more = if n % 2 == 0 { r#","State":"draining""# } else { "" };
        backend = versions.next(&[&but(&a, more), &b], "1");
        versions.queue().follow(Some(&backend));
    }
    assert!(line.iter_mut().all(|waiting| got(waiting).unwrap_err() == TryRecvError::Empty));
    drop(held);
    assert!(line.iter_mut().all(|waiting| got(waiting).is_ok()));
}

#[test]
fn no_wakeup_is_lost_among_threads_and_changes() {
    let versions = Versions::default();
    let servers = [versions.server(1), versions.server(2), versions.server(3)];
    let current = Mutex::new(versions.next(&[&servers[0]], "2"));
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let backend = current.lock().unwrap().clone();
                    let place = match backend.place(None, &ask(&[])) {
                        Place::At(_, place) => place,
                        // Blocks for ever if nobody hands a place over.
                        _ => blocking(waiting(&backend, None, &[])),
                    };
                    assert!(place.live().in_flight() <= 2);
                    drop(place);
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        for n in (0..3).cycle() {
            if done.load(SeqCst) == 4000 {
                break;
            }
            let next = versions.next(&[&servers[n]], "2");
            let old = std::mem::replace(&mut *current.lock().unwrap(), next.clone());
            versions.queue().follow(Some(&next));
            drop(old);
            std::thread::yield_now();
        }
    });
    assert!(servers.iter().all(|server| server.live.in_flight() == 0));
    assert!(versions.queue().is_empty());
}

fn blocking(mut waiting: Waiting) -> InFlight {
    loop {
        match got(&mut waiting) {
            Ok(handed) => return handed.place,
            Err(TryRecvError::Empty) => std::thread::yield_now(),
            Err(TryRecvError::Closed) => panic!("let go"),
        }
    }
}
