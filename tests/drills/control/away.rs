//! etcd is away: killed, frozen, cut off, without a leader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etcd_client::{CompactionOptions, PutOptions};
use etna_tests::etcd::Settings;
use etna_tests::relay::Manner;
use etna_tests::scene::{frontend, frontend_key, server_at, server_key};
use etna_tests::wait::{ensure, eventually};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::ground::{Ground, LONG, ms, until_away, until_following, until_served};
use crate::bed::{BACKEND, Rate};
use crate::drill::{Length, Outcome};

/// C1. The mark says ten minutes; here it is one, which changes nothing that is counted a second.
pub(super) async fn killed(length: Length) -> Outcome {
    let ground = Ground::open("c1", 1, Settings::default(), length).await;
    let traffic = ground.load(Rate::L2k).await;
    let away = Duration::from_secs(length.pick(60, 3));
    let lines = ground.lines();
    let killed = Instant::now();
    ground.scene.etcd.kill(0);
    // What grows with the load has grown by then.
    traffic.go_on(away / 3).await;
    let memory = ground.proxy.memory();
    traffic.go_on(away - away / 3).await;
    until_away(&ground.proxy).await;
    let grown = ground.proxy.memory().saturating_sub(memory);
    let lines = ground.lines() - lines;
    let gone = killed.elapsed();
    ground.scene.etcd.resume(0);
    ground.scene.etcd.ready(0).await;
    let took = ground.change("back").await;
    // A process that has just begun still grows with its load.
    let flat = length.pick(4, 16) << 20;
    let live = length.fast(took < Duration::from_secs(2));
    let pass = grown < flat && lines as u64 <= gone.as_secs() + 3 && live;
    let figure = format!(
        "away {away:?}; RSS +{} KiB (< {}); {lines} log lines; a change live {} after etcd is back (< 2 s)",
        grown >> 10,
        flat >> 10,
        ms(took)
    );
    ground.outcome(traffic, figure, pass).await
}

/// C2. All leases end at once when etcd goes on; a stand-in for the sidekick registers anew.
pub(super) async fn frozen(length: Length) -> Outcome {
    let ground = Ground::open("c2", 1, Settings::default(), length).await;
    let ttl = length.pick(15, 2);
    let stop = CancellationToken::new();
    let keeper = tokio::spawn(keep(Leased::of(&ground), ttl, stop.clone()));
    let mut client = ground.scene.etcd.client().await;
    eventually("the servers are leased", LONG, async || {
        let leases = client.leases().await?.leases().len();
        if leases == 3 { Ok(()) } else { Err(etcd_client::Error::InvalidArgs(format!("{leases} leases"))) }
    })
    .await;
    let traffic = ground.load(Rate::L5k).await;
    ground.scene.etcd.freeze(0);
    // Another client's put waits in the kernel until etcd goes on.
    traffic.go_on(Duration::from_secs(length.pick(60, 4)) - HALF).await;
    let (put, thawed) = tokio::join!(
        async {
            let value = frontend("Host(`queued.test`)", BACKEND);
            ground.scene.try_put(&frontend_key("queued"), value).await.map(|_| Instant::now())
        },
        async {
            traffic.go_on(HALF).await;
            ground.scene.etcd.thaw(0);
            Instant::now()
        }
    );
    until_served(&ground.proxy, "queued.test").await;
    let queued = thawed.elapsed();
    let again = async || {
        let stored = ground.scene.below(&server_key(BACKEND, "")).await.len();
        ensure(stored == 3, format!("{stored} servers are stored"))
    };
    eventually("the servers are registered again", LONG, again).await;
    traffic.go_on(Duration::from_secs(length.pick(10, 1))).await;
    stop.cancel();
    let ended = keeper.await.expect("the keeper ends");
    let figure = format!(
        "leases of {ttl} s that ended: {ended}; a change that waited was live {} after SIGCONT (< 1 s), \
         etcd having taken it after {}",
        ms(queued),
        put.map_or_else(|error| error, |taken| ms(taken - thawed))
    );
    // The drill is none if no lease ended.
    ground.outcome(traffic, figure, length.fast(queued < Duration::from_secs(1)) && ended > 0).await
}

/// C3. Everything that changed meanwhile is compacted away, so that no watch can tell it.
pub(super) async fn cut_off(length: Length) -> Outcome {
    let ground = Ground::open("c3", 1, Settings { relayed: true, ..Settings::default() }, length).await;
    let scene = &ground.scene;
    let known = |n: usize| (frontend_key(&format!("known{n}")), frontend(&format!("Host(`known{n}.test`)"), BACKEND));
    scene.put_all((0..200).map(known)).await;
    let traffic = ground.load(Rate::L2k).await;
    until_served(&ground.proxy, "known199.test").await;
    scene.etcd.relay(0).set(Manner::Silent);
    let count = length.pick(1500, 150);
    let route = |n: usize, version: usize| {
        let rule = format!("Host(`n{n}.test`) && PathPrefix(`/v{version}`)");
        (frontend_key(&format!("new{n}")), frontend(&rule, BACKEND))
    };
    // New ones, changed twice, a third of them gone again; of the known ones some change, some go.
    for version in 0..3 {
        scene.put_all((0..count).map(|n| route(n, version))).await;
    }
    let gone = (0..count / 3).map(|n| (frontend_key(&format!("new{n}")), None));
    let changed = (0..20).map(|n| (known(n).0, Some(frontend(&format!("Host(`moved{n}.test`)"), BACKEND))));
    let removed = (20..40).map(|n| (known(n).0, None));
    let head = scene.change(gone.chain(changed).chain(removed).collect()).await;
    let changes = count * 3 + count / 3 + 40;
    let compact = CompactionOptions::new().with_physical();
    scene.etcd.client().await.compact(head, Some(compact)).await.expect("etcd compacts");
    until_away(&ground.proxy).await;
    scene.etcd.relay(0).set(Manner::Pass);
    let healed = Instant::now();
    let wanted: BTreeMap<String, String> = stored(&ground).await;
    eventually("the table is exact", LONG, async || {
        let served = listed(&ground).await;
        let first = wanted.iter().find(|(id, route)| served.get(*id) != Some(route));
        let text = format!("{} of {} listed, first to differ {first:?}", served.len(), wanted.len());
        ensure(served == wanted, text)
    })
    .await;
    let took = healed.elapsed();
    let figure = format!("{changes} changes compacted to the head; exact {} after the cut healed (< 2 s)", ms(took));
    ground.outcome(traffic, figure, length.fast(took < Duration::from_secs(2))).await
}

/// C11. Of three members the leader is killed again and again; then the one that the proxy listens to is cut off from
/// the others, and only says nothing any more.
pub(super) async fn members(length: Length) -> Outcome {
    let ground = Ground::open("c11", 3, Settings { relayed: true, ..Settings::default() }, length).await;
    let etcd = &ground.scene.etcd;
    let traffic = ground.load(Rate::L2k).await;
    let mut lags = Vec::new();
    for n in 0..length.pick(10, 2) {
        let leader = leader(&ground).await;
        etcd.kill(leader);
        lags.push(put_around(&ground, leader, &format!("led{n}")).await.1);
        etcd.resume(leader);
        etcd.ready(leader).await;
    }
    let worst = lags.iter().max().copied().unwrap_or_default();
    until_following(&ground.proxy).await;
    let ours = (0..etcd.size()).max_by_key(|member| etcd.relay(*member).open()).unwrap_or_default();
    let lines = ground.lines();
    etcd.isolate(ours);
    let began = Instant::now();
    put_around(&ground, ours, "isolated").await;
    let isolated = began.elapsed();
    let told = ground.lines() - lines;
    etcd.rejoin();
    etcd.ready(ours).await;
    traffic.go_on(Duration::from_secs(1)).await;
    let pass = worst < Duration::from_secs(3) && isolated < Duration::from_secs(10);
    let figure = format!(
        "leader killed {} times: a change live at most {} after etcd took it (< 3 s); its member isolated: a change \
         live {} later (< 10 s), {told} log lines",
        lags.len(),
        ms(worst),
        ms(isolated)
    );
    ground.outcome(traffic, figure, pass).await
}

async fn leader(ground: &Ground) -> usize {
    eventually("there is a leader", LONG, async || ground.scene.etcd.leader().await.ok_or("none")).await
}

/// Puts a frontend through the members other than one; how long etcd took to take it, and then the proxy to serve it.
async fn put_around(ground: &Ground, member: usize, id: &str) -> (Duration, Duration) {
    let began = Instant::now();
    let others: Vec<usize> = (0..ground.scene.etcd.size()).filter(|other| *other != member).collect();
    let key = format!("{}/{}", ground.scene.prefix, frontend_key(id));
    let value = frontend(&format!("Host(`{id}.test`)"), BACKEND).to_string();
    eventually("the others take a put", LONG, async || {
        let mut client = ground.scene.etcd.client_of(&others).await;
        let put = tokio::time::timeout(HALF, client.put(key.clone(), value.clone(), None)).await;
        put.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
    })
    .await;
    let taken = began.elapsed();
    until_served(&ground.proxy, &format!("{id}.test")).await;
    (taken, began.elapsed() - taken)
}

/// Frontends and their routes as etcd has them.
async fn stored(ground: &Ground) -> BTreeMap<String, String> {
    let pairs = ground.scene.below("frontends/").await;
    let route = |value: &[u8]| -> Value { serde_json::from_slice(value).expect("we wrote it") };
    let id = |key: &str| key.split('/').nth(1).unwrap_or_default().to_owned();
    pairs.iter().map(|(key, value)| (id(key), text(&route(value)["Route"]))).collect()
}

/// The same as the proxy has them.
async fn listed(ground: &Ground) -> BTreeMap<String, String> {
    let list = ground.proxy.json("/v2/frontends").await;
    let frontends = list["Frontends"].as_array().cloned().unwrap_or_default();
    frontends.iter().map(|frontend| (text(&frontend["Id"]), text(&frontend["Route"]))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a stand-in for the sidekick registers.
pub(super) struct Leased {
    etcd: std::sync::Arc<etna_tests::etcd::Etcd>,
    pairs: Vec<(String, String)>,
}

impl Leased {
    /// The application's servers.
    pub(super) fn of(ground: &Ground) -> Leased {
        let pairs = ground.servers.iter().map(|server| {
            let key = format!("{}/{}", ground.scene.prefix, server_key(BACKEND, &server.id));
            (key, server_at(server.address).to_string())
        });
        Leased { etcd: ground.scene.etcd.clone(), pairs: pairs.collect() }
    }
}

/// Registers each under a lease of its own, keeps them alive, and registers again what has ended; how many ended.
pub(super) async fn keep(leased: Leased, ttl: i64, stop: CancellationToken) -> u64 {
    let mut leases = vec![None; leased.pairs.len()];
    let mut ended = 0;
    while !stop.is_cancelled() {
        for ((key, value), lease) in leased.pairs.iter().zip(&mut leases) {
            let round = one_round(&leased.etcd, key, value, *lease, ttl);
            // Whether a lease lives is known when etcd answers again.
            if let Ok(Ok(kept)) = tokio::time::timeout(Duration::from_secs(2), round).await {
                ended += u64::from(lease.is_some() && *lease != Some(kept));
                *lease = Some(kept);
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    ended
}

async fn one_round(
    etcd: &etna_tests::etcd::Etcd,
    key: &str,
    value: &str,
    lease: Option<i64>,
    ttl: i64,
) -> Result<i64, etcd_client::Error> {
    let mut client = etcd.client().await;
    if let Some(lease) = lease
        && client.lease_time_to_live(lease, None).await?.ttl() > 0
    {
        let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
        keeper.keep_alive().await?;
        if answers.message().await?.is_some_and(|answer| answer.ttl() > 0) {
            return Ok(lease);
        }
    }
    let lease = client.lease_grant(ttl, None).await?.id();
    client.put(key, value, Some(PutOptions::new().with_lease(lease))).await?;
    Ok(lease)
}

const HALF: Duration = Duration::from_millis(1500);
