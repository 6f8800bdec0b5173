//! etcd's disk is full; the machine's clock jumps.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use etcd_client::CompactionOptions;
use etna_tests::etcd::Settings;
use etna_tests::proxy::Proxy;
use etna_tests::scene::server_key;
use etna_tests::tls::{Authority, KeyKind, https_listener};
use etna_tests::wait::{ensure, eventually};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::away::{Leased, keep};
use super::ground::{Ground, LONG, bare, held, ms, put_to_served};
use crate::bed::{BACKEND, HOST, Rate};
use crate::drill::{Length, Outcome};

/// C12. A put too many; leases are kept all the while; then what operators do about it.
pub(super) async fn no_space(length: Length) -> Outcome {
    let settings = Settings { flags: vec!["--quota-backend-bytes".into(), "16777216".into()], ..Settings::default() };
    let ground = Ground::open("c12", 1, settings, length).await;
    let etcd = &ground.scene.etcd;
    let stop = CancellationToken::new();
    let keeper = tokio::spawn(keep(Leased::of(&ground), 3, stop.clone()));
    let mut client = etcd.client().await;
    eventually("the servers are leased", LONG, async || {
        let leases = client.leases().await.map_err(|error| error.to_string())?.leases().len();
        ensure(leases == 3, format!("{leases} leases"))
    })
    .await;
    let traffic = ground.load(Rate::L2k).await;
    let full = eventually("etcd is full", LONG, async || {
        let put = client.put("/filler", vec![b'x'; 1 << 20], None).await;
        put.map_or_else(|error| Ok(error.to_string()), |_| Err("it takes more"))
    })
    .await;
    let full = full.contains("space exceeded");
    traffic.go_on(Duration::from_secs(length.pick(20, 5))).await;
    let kept = ground.scene.below(&server_key(BACKEND, "")).await.len();
    let suspects = held(&ground.proxy).await;

    let head = client.get("/filler", None).await.expect("etcd reads").header().map_or(0, |header| header.revision());
    client.compact(head, Some(CompactionOptions::new().with_physical())).await.expect("etcd compacts");
    etcd.ctl(&[0], &["defrag"]).expect("etcd defragments");
    etcd.ctl(&[0], &["alarm", "disarm"]).expect("etcd is disarmed");
    let took = ground.change("roomy").await;
    stop.cancel();
    let ended = keeper.await.expect("the keeper ends");
    let figure = format!(
        "alarm raised: {full}; {kept} of 3 leased servers kept, {suspects} held, {ended} leases lost; a change live {} \
         after compact, defrag and disarm",
        ms(took)
    );
    ground
        .outcome(traffic, figure, full && kept == 3 && suspects == 0 && ended == 0 && took < Duration::from_secs(2))
        .await
}

/// C13. The proxy's own wall clock, by libfaketime; etcd's and the load's stay right.
pub(super) async fn clock(length: Length) -> Outcome {
    let (scene, servers) = bare("c13", 1, Settings::default()).await;
    // It holds for nine days more, as the proxy's clock will not.
    let authority = Authority::new(scene.folder());
    let pair = authority.issue_for(&[HOST], Duration::from_secs(9 * 86_400), KeyKind::Ecdsa);
    scene.put(&format!("hosts/{HOST}/host"), authority.host(&pair, false)).await;
    scene.put("listeners/https", https_listener(json!({}))).await;
    let file = scene.folder().join("clock");
    set_clock(&file, "+0");
    let flags = ["--seal-key", authority.seal_key()];
    let mut command = Proxy::command("etna", &scene.store(), &flags, scene.folder());
    if let Err(why) = faked(&mut command, &file) {
        return Outcome::fail(why);
    }
    let proxy = Proxy::run("etna", command, scene.folder(), LONG).await;
    proxy.until_ready(LONG).await;
    let ground = Ground::around(scene, servers, proxy, length).await;
    let (scene, proxy) = (&ground.scene, &ground.proxy);
    let traffic = ground.load(Rate::L2k).await;
    let window = Duration::from_secs(length.pick(15, 1));
    let mut shown = Vec::new();
    let mut pass = true;
    let mut calm = None;
    let mut last = String::new();
    let (at, client) = (proxy.listener("https").await, authority.client());
    let mut secure = client.open(at, HOST).await.expect("it speaks TLS");
    // A connection that has said nothing yet is not kept for as long as one that has.
    secure.get(HOST, "/").await.expect("it is served");
    let mut told = Vec::new();
    for (n, (offset, jumps)) in [("+0", false), ("+10d", true), ("-1h", true), ("+0", true)].into_iter().enumerate() {
        set_clock(&file, offset);
        let (busy, lines) = (busy(proxy.pid()), proxy.said().lines().count());
        traffic.go_on(window).await;
        let (busy, lines) = (self::busy(proxy.pid()) - busy, proxy.said().lines().count() - lines);
        let lag = put_to_served(scene, proxy, &format!("at{n}")).await;
        let date = date(proxy).await;
        let calm = *calm.get_or_insert(busy);
        // In ticks of 10 ms; a storm of timers takes a core.
        let live = length.fast(lag < Duration::from_secs(1));
        pass &= busy <= calm * 2 + 20 && lines < 10 && live && (!jumps || date != last);
        shown.push(format!("{offset}: {date}, CPU {} ms, {lines} lines, a change live in {}", busy * 10, ms(lag)));
        last = date;
        // The clients' clocks are right.
        let (kept, new) = (secure.get(HOST, "/").await, client.get(at, HOST, "/").await);
        pass &= [kept, new].iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 200));
        told.extend(until_told(proxy, offset == "+10d").await);
    }
    let suspects = held(proxy).await;
    let status = proxy.json("/v3/status").await;
    pass &= suspects == 0 && status["following"] == true;
    ground.outcome(traffic, format!("{}; TLS served all along, told: {told:?}", shown.join("; ")), pass).await
}

/// Waits until a problem says that the certificate has ended, or none does; it.
async fn until_told(proxy: &Proxy, has_ended: bool) -> Option<String> {
    eventually("the certificate's end is told while it has one", LONG, async || {
        let problems = proxy.problems().await;
        let mut reasons = problems.iter().filter_map(|problem| problem["reason"].as_str());
        let told = reasons.find(|reason| reason.starts_with("the certificate ended")).map(str::to_owned);
        if told.is_some() == has_ended { Ok(told) } else { Err(format!("{problems:?}")) }
    })
    .await
}

/// Has a program read a clock that a file sets.
pub(crate) fn faked(command: &mut Command, clock: &Path) -> Result<(), String> {
    let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
    let library = library.ok_or("libfaketime is missing: install the package libfaketime")?;
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// Renamed into place, so that nobody reads half of it.
pub(crate) fn set_clock(file: &Path, offset: &str) {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, format!("{offset}\n")).expect("the clock can be set");
    std::fs::rename(fresh, file).expect("the clock can be set");
}

/// The day and the hour that it says it is, in the line that a refused change leaves.
async fn date(proxy: &Proxy) -> String {
    let refused = |line: &&str| line.contains("/v2/nothing");
    let before = proxy.said().lines().filter(refused).count();
    let answer = proxy.admin_post("/v2/nothing", &json!({})).await.expect("it answers");
    assert_eq!(answer.status, 404, "{}", answer.text());
    let line = eventually("the refused change is logged", LONG, async || {
        proxy.said().lines().filter(refused).nth(before).map(str::to_owned).ok_or("not yet")
    })
    .await;
    let line: Value = serde_json::from_str(&line).unwrap_or_default();
    line["timestamp"].as_str().and_then(|text| text.get(..13)).unwrap_or_default().to_owned()
}

/// Ticks of 10 ms that a process has computed.
pub(crate) fn busy(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];
