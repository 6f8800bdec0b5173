//! B7, B8: servers whose answers are broken, endless, ambiguous, or one too many.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etna_tests::client::{Answer, Connection};
use etna_tests::scene::{frontend, frontend_key, server_at, server_key};

use crate::bed::{BACKEND, Bed, Needs, Rate};
use crate::drill::{Length, Outcome};
use crate::load_shape;
use crate::servers_liar::{Liar, Lie};

/// B7: whoever asks a lying server is told of a failure; whoever asks another one notices nothing.
pub(crate) async fn told(length: Length) -> Outcome {
    let bed = Bed::start("b7", length).await;
    let mut liars = Vec::new();
    for (number, lie) in LIES.into_iter().enumerate() {
        let (name, host) = (format!("lie-{number}"), format!("lie-{number}.test"));
        let liar = Liar::start(&name, lie).await;
        bed.scene.put(&server_key(&name, &name), server_at(liar.address)).await;
        let revision = bed.scene.put(&frontend_key(&name), frontend(&format!("Host(`{host}`)"), &name)).await;
        bed.proxy.until_revision(revision).await;
        liars.push((host, liar, lie));
    }
    let load = bed.load(Rate::L2k).await;
    let (calm, during) = length.pick((5, 10), (1, 2));
    load.go_on(Duration::from_secs(calm)).await;
    let began = load.began.elapsed();
    let until = Instant::now() + Duration::from_secs(during);
    let mut asking = tokio::task::JoinSet::new();
    for (host, _, lie) in &liars {
        asking.spawn(ask(bed.proxy.listen, host.clone(), *lie, until));
    }
    let mut got = Vec::new();
    while let Some(asked) = asking.join_next().await {
        got.push(asked.expect("the asking ends"));
    }
    let over = load.began.elapsed();
    let traffic = bed.finish(load).await;
    let before = traffic.latency_ms(0.99, Duration::from_millis(500), began);
    let after = traffic.latency_ms(0.99, began, over);
    let wrong: Vec<&String> = got.iter().filter_map(|asked| asked.as_ref().err()).collect();
    let trusted: Vec<String> = liars
        .iter()
        .filter(|(_, liar, _)| liar.trusted() > 0 || liar.lied() == 0)
        .map(|(_, liar, lie)| format!("{lie:?}: {} asked, {} on a connection with a lie", liar.asked(), liar.trusted()))
        .collect();
    let right: Vec<&String> = got.iter().filter_map(|asked| asked.as_ref().ok()).collect();
    let figure = format!("{right:?} {wrong:?} reused {trusted:?}; victim's p99 {before:.1} -> {after:.1} ms (< 2x)");
    let calm = length.fast(after <= (before * 2.0).max(before + JITTER_MS));
    traffic.outcome(figure.replace('"', ""), wrong.is_empty() && trusted.is_empty() && calm)
}

/// Asks a liar again and again; what came, in a few words, or what must not have come.
async fn ask(to: SocketAddr, host: String, lie: Lie, until: Instant) -> Result<String, String> {
    let mut connection = None;
    let mut came: BTreeMap<String, u32> = BTreeMap::new();
    for id in 1.. {
        let due = Instant::now() + Duration::from_millis(1000 * LIES.len() as u64 / 200);
        if due > until {
            break;
        }
        let mut open = match connection.take().filter(Connection::is_open) {
            Some(open) => open,
            None => Connection::open(to).await.map_err(|error| format!("{lie:?}: {error}"))?,
        };
        // All kinds of requests, so that what may be sent twice and what may not is met.
        let sending = tokio::time::timeout(Duration::from_secs(5), open.send(load_shape::request(&host, id))).await;
        let word = match sending.map_err(|_| format!("{lie:?}: no answer within 5 s"))? {
            Ok(answer) if answer.status >= 500 => answer.status.to_string(),
            Ok(answer) if is_cleaned(lie, &answer) => "cleaned".into(),
            Ok(answer) => return Err(format!("{lie:?}: complete: {} of {} bytes", answer.status, answer.body.len())),
            Err(_) => "cut".into(),
        };
        if word != "cut" {
            connection = Some(open);
        }
        *came.entry(word).or_default() += 1;
        tokio::time::sleep_until(due.into()).await;
    }
    Ok(format!("{lie:?}: {came:?}"))
}

/// Whether an answer with two lengths was read by the one that counts (RFC 9112, section 6.3), and passed on with one.
fn is_cleaned(lie: Lie, answer: &Answer) -> bool {
    let lengths =
        ["content-length", "transfer-encoding"].iter().filter(|name| answer.headers.contains_key(**name)).count();
    lie == Lie::BothLengths && answer.status == 200 && &*answer.body == b"chunks" && lengths == 1
}

/// B8: bytes that come after an answer are never the answer to somebody else.
pub(crate) async fn poisoned(length: Length) -> Outcome {
    let bed = Bed::with("b8", length, Needs { servers: 1, ..Needs::default() }).await;
    let mut liars = Vec::new();
    for number in 0..2 {
        let name = format!("{BACKEND}-liar-{number}");
        let liar = Liar::start(&name, Lie::Poison).await;
        let revision = bed.scene.put(&server_key(BACKEND, &name), server_at(liar.address)).await;
        bed.proxy.until_revision(revision).await;
        liars.push(liar);
    }
    let load = bed.load(Rate::Of(length.pick(1000, 300))).await;
    load.go_on(length.pick(Duration::from_secs(20), Duration::from_secs(2))).await;
    let mut traffic = load.stop().await;
    let mut executed: Vec<u64> = liars.iter().flat_map(Liar::executed).chain(bed.servers[0].executed()).collect();
    executed.retain(|id| load_shape::is_once(*id));
    executed.sort_unstable();
    for pair in executed.windows(2).filter(|pair| pair[0] == pair[1]) {
        traffic.accuse(pair[0], "POST executed twice".into());
    }
    let lied: u64 = liars.iter().map(Liar::lied).sum();
    let trusted: u64 = liars.iter().map(Liar::trusted).sum();
    let figure = format!("{lied} answers were followed by another; {trusted} requests on a connection with such");
    traffic.outcome(figure, lied > 0 && trusted == 0)
}

const LIES: [Lie; 6] = [Lie::ResetInBody, Lie::Short, Lie::Garbage, Lie::HugeHeader, Lie::Interim, Lie::BothLengths];
/// What a p99 of a few milliseconds may change without meaning.
const JITTER_MS: f64 = 10.0;
