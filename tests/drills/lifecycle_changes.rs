//! A1, A2: the stored objects change all the time, and no request notices.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etna_tests::client::Connection;
use etna_tests::load::percentile;
use etna_tests::scene::{frontend, frontend_key, server_at, server_key};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::bed::{BACKEND, Bed, HOST, Rate};
use crate::drill::{Length, Outcome};

/// A1: routes that nobody uses come, move and go, and the weights of servers in use change.
pub(crate) async fn routing(length: Length) -> Outcome {
    let bed = Bed::start("a1", length).await;
    // Who answers for the routes that change must never answer the load.
    let stray = bed.servers[0].open(STRAY).await;
    bed.scene.put(&server_key(STRAY, STRAY), server_at(stray)).await;
    let load = bed.load(Rate::L5k).await;
    let (seconds, batches_a_second) = length.pick((60, 100), (2, 10));
    let (told, heard) = mpsc::channel(1000);
    let began = Instant::now();
    let writing = async {
        for n in 0..seconds * batches_a_second {
            let due = began + Duration::from_secs(1) * n / batches_a_second;
            tokio::time::sleep_until(due.into()).await;
            let put = Instant::now();
            let revision = bed.scene.change(batch(&bed, n)).await;
            told.send((revision, put)).await.expect("the watcher hears");
        }
        drop(told);
        began.elapsed()
    };
    let (took, lags) = tokio::join!(writing, lags(bed.proxy.admin, heard));
    let traffic = bed.finish(load).await;
    let p99 = percentile(&lags, 0.99).unwrap_or(Duration::MAX);
    let rate = f64::from(seconds * batches_a_second * 10) / took.as_secs_f64();
    let mut figure = format!(
        "{rate:.0} changes/s in {} transactions/s; in force after p50 {:.1?}, p99 {p99:.1?} (< 250 ms)",
        batches_a_second,
        percentile(&lags, 0.5).unwrap_or(Duration::MAX)
    );
    let exact = match differences(&bed).await {
        Ok(routes) => {
            figure.push_str(&format!("; {routes} routes, exactly etcd's"));
            true
        }
        Err(difference) => {
            figure.push_str(&format!("; NOT etcd's table: {difference}"));
            false
        }
    };
    traffic.outcome(figure, exact && length.fast(p99 < Duration::from_millis(250)))
}

/// Ten changes: four routes come, two that came before move, three go, and one server in use gets another weight.
fn batch(bed: &Bed, n: u32) -> Vec<(String, Option<Value>)> {
    let key = |n: u32, which: u32| frontend_key(&format!("idle-{n}-{which}"));
    let route = |n: u32, which: u32, path: &str| {
        Some(frontend(&format!("Host(`idle-{n}-{which}.test`) && PathPrefix(`{path}`)"), STRAY))
    };
    let mut changes: Vec<(String, Option<Value>)> = (0..4).map(|w| (key(n, w), route(n, w, BEFORE))).collect();
    changes.extend((0..2).filter(|_| n >= 5).map(|w| (key(n - 5, w + 2), route(n - 5, w + 2, AFTER))));
    changes.extend((0..3).filter(|_| n >= 10).map(|w| (key(n - 10, w), None)));
    let server = &bed.servers[n as usize % bed.servers.len()];
    let weighted = json!({ "URL": format!("http://{}", server.address), "Weight": 1 + n / 3 % 4 });
    changes.push((server_key(BACKEND, &server.id), Some(weighted)));
    changes
}

/// How long each revision took from before it was put until the proxy said that it, or a later one, is in force.
async fn lags(admin: SocketAddr, mut heard: mpsc::Receiver<(i64, Instant)>) -> Vec<Duration> {
    let mut connection = Connection::open(admin).await.expect("the admin API takes connections");
    let (mut waiting, mut lags, mut all) = (VecDeque::<(i64, Instant)>::new(), Vec::new(), false);
    while !all || !waiting.is_empty() {
        loop {
            match heard.try_recv() {
                Ok(revision) => waiting.push_back(revision),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    all = true;
                    break;
                }
            }
        }
        let status = connection.get(&admin.to_string(), "/v3/status").await.expect("the admin API answers").json();
        let now = status["revision"].as_i64().expect("a revision is in force");
        while waiting.front().is_some_and(|(revision, _)| *revision <= now) {
            lags.extend(waiting.pop_front().map(|(_, put)| put.elapsed()));
        }
        let oldest = waiting.front().map_or(Duration::ZERO, |(_, put)| put.elapsed());
        assert!(oldest < Duration::from_secs(20), "a change is not in force after {oldest:?}");
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    lags.sort_unstable();
    lags
}

/// Compares what the proxy has with what etcd has, and asks for some of it; the number of routes.
async fn differences(bed: &Bed) -> Result<usize, String> {
    let shown = |value: &Value| (value["Route"].to_string(), value["BackendId"].to_string());
    let stored: BTreeMap<String, (String, String)> = bed
        .scene
        .below("frontends/")
        .await
        .iter()
        .map(|(key, value)| (key.split('/').nth(1).unwrap_or_default().to_owned(), parse(value)))
        .map(|(id, value)| (id, shown(&value)))
        .collect();
    let listed = bed.proxy.json("/v2/frontends").await;
    let listed = listed["Frontends"].as_array().ok_or("no list of frontends")?;
    let served =
        listed.iter().map(|value| (value["Id"].as_str().unwrap_or_default().to_owned(), shown(value))).collect();
    same("route", &stored, &served)?;

    let shown = |value: &Value| (value["URL"].to_string(), value["Weight"].as_u64().unwrap_or(1).to_string());
    let path = format!("backends/{BACKEND}/servers");
    let servers = bed.scene.below(&format!("{path}/")).await;
    let stored = servers
        .iter()
        .map(|(key, value)| (key.rsplit('/').next().unwrap_or_default().to_owned(), shown(&parse(value))));
    let listed = bed.proxy.json(&format!("/v2/{path}")).await;
    let listed = listed["Servers"].as_array().ok_or("no list of servers")?;
    let served = listed.iter().map(|value| (value["Id"].as_str().unwrap_or_default().to_owned(), shown(value)));
    same("server", &stored.collect(), &served.collect())?;

    // The table itself: routes that moved answer at their new place only, those that went do not.
    let routes = bed.scene.below("frontends/idle-").await;
    for (key, value) in routes.iter().step_by(routes.len() / 50 + 1) {
        let host = format!("{}.test", key.split('/').nth(1).unwrap_or_default());
        let moved = parse(value)["Route"].as_str().is_some_and(|route| route.contains(AFTER));
        for (path, status) in [(BEFORE, if moved { 404 } else { 200 }), (AFTER, if moved { 200 } else { 404 })] {
            let got = bed.proxy.get(&host, path).await?.status;
            if got != status {
                return Err(format!("{host}{path} is answered {got} instead of {status}"));
            }
        }
    }
    match bed.proxy.get("idle-0-0.test", BEFORE).await?.status {
        404 => Ok(bed.scene.below("frontends/").await.len()),
        other => Err(format!("a route that went is answered {other}")),
    }
}

fn same<V: PartialEq + std::fmt::Debug>(
    what: &str,
    stored: &BTreeMap<String, V>,
    served: &BTreeMap<String, V>,
) -> Result<(), String> {
    let ids: std::collections::BTreeSet<&String> = stored.keys().chain(served.keys()).collect();
    match ids.into_iter().find(|id| stored.get(*id) != served.get(*id)) {
        None => Ok(()),
        Some(id) => Err(format!("{what} {id} is stored as {:?}, served as {:?}", stored.get(id), served.get(id))),
    }
}

fn parse(value: &[u8]) -> Value {
    serde_json::from_slice(value).expect("what was put is JSON")
}

/// A2: one server after the other is replaced by a new one; the old one goes some seconds after its key.
pub(crate) async fn servers(length: Length) -> Outcome {
    let bed = Bed::start("a2", length).await;
    let load = bed.load(Rate::L5k).await;
    let (count, drain) = length.pick((600, Duration::from_secs(5)), (20, Duration::from_secs(1)));
    let mut names: Vec<String> = bed.servers.iter().map(|server| server.id.clone()).collect();
    let mut addresses: Vec<SocketAddr> = bed.servers.iter().map(|server| server.address).collect();
    let mut leaving: VecDeque<(Instant, usize, SocketAddr)> = VecDeque::new();
    let began = Instant::now();
    for n in 0..count {
        tokio::time::sleep_until((began + Duration::from_millis(100) * n).into()).await;
        let place = n as usize % names.len();
        let process = &bed.servers[place];
        let name = format!("{BACKEND}-new-{n}");
        let address = process.open(&name).await;
        let old = std::mem::replace(&mut names[place], name.clone());
        let change = vec![(server_key(BACKEND, &name), Some(server_at(address))), (server_key(BACKEND, &old), None)];
        bed.scene.change(change).await;
        leaving.push_back((Instant::now() + drain, place, std::mem::replace(&mut addresses[place], address)));
        while let Some((_, place, address)) = leaving.front().copied().filter(|(due, ..)| *due <= Instant::now()) {
            leaving.pop_front();
            bed.servers[place].close(address).await;
        }
    }
    for (due, place, address) in leaving {
        tokio::time::sleep_until(due.into()).await;
        bed.servers[place].close(address).await;
    }
    let traffic = bed.finish(load).await;
    let used = traffic.report.by_server.len();
    let answered = bed.proxy.get(HOST, "/").await.map_or(0, |answer| answer.status);
    let figure = format!("{count} replaced, {used} of {} answered; {}", count + 3, traffic.report.summary());
    traffic.outcome(figure, answered == 200 && used as u32 > count / 2)
}

/// The backend of the routes that change, and its server.
const STRAY: &str = "stray";
/// Where a route of those is before it moves, and after.
const BEFORE: &str = "/before";
const AFTER: &str = "/after";
