//! A3. A live name's certificate is replaced under new connections at two proxies, while others stand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etna_tests::proxy::Proxy;
use etna_tests::tls::{TlsClient, leaf};
use etna_tests::wait::{ensure, eventually};
use serde_json::json;

use super::arrivals::{Arrival, Arrivals};
use super::ground::{Ground, Kept, bearable, failed_handshakes, panics};
use crate::bed::HOST;
use crate::drill::{Length, Outcome};

/// What was put, and from when on each proxy served it.
struct Rotation {
    ground: Ground,
    client: TlsClient,
    addresses: [SocketAddr; 2],
    /// The number of each certificate.
    numbers: HashMap<Vec<u8>, usize>,
    /// By address: from when on which number was served.
    served: [Vec<(Instant, usize)>; 2],
}

pub(super) async fn run(length: Length) -> Outcome {
    let ground = Ground::open("rotation", json!({})).await;
    let ((one, at_one), (other, at_other)) = (ground.proxy("etna").await, ground.proxy("other").await);
    let (client, addresses) = (ground.client(), [at_one, at_other]);
    let mut rotation =
        Rotation { client: client.clone(), addresses, numbers: HashMap::new(), served: Default::default(), ground };
    rotation.replace().await;
    rotation.seen().await;
    let rate = bearable(length.pick(200, 40), length, &client, at_one).await;
    let kept = Kept::open(&client, &addresses, 8).await;
    let arrivals = Arrivals::start(&client, &addresses, rate);

    let (measured, least) = (length.pick(200, 20), length.pick(1000, 40));
    // However fast that goes, enough connections come meanwhile.
    let (began, time) = (Instant::now(), Duration::from_secs(length.pick(10, 1)));
    let mut slowest = Duration::ZERO;
    for _ in 0..measured {
        rotation.replace().await;
        slowest = slowest.max(rotation.seen().await);
    }
    let mut more = 0;
    while more < least || began.elapsed() < time {
        rotation.replace().await;
        more += 1;
    }
    slowest = slowest.max(rotation.seen().await);

    let arrivals = arrivals.stop().await;
    let (asked, mut wrong) = kept.stop().await;
    let requests = arrivals.len() as u64 + asked;
    let mut older = 0;
    for arrival in &arrivals {
        match rotation.judge(arrival) {
            Ok(is_older) => older += u64::from(is_older),
            Err(why) => wrong.push(why),
        }
    }
    let failed = failed_handshakes(&one).await + failed_handshakes(&other).await;
    let told = problems(&one).await + problems(&other).await;
    let panics = panics(&one).await + panics(&other).await;
    let first = wrong.first().map(|why| format!("; first: {why}")).unwrap_or_default();
    let figure = format!(
        "{measured} replaced one by one, seen at both proxies within {:.0} ms (< 1 s), then {more} at once; {older} older \
         ones seen later; proxies count {failed} failed handshakes; 16 connections stood{first}",
        slowest.as_secs_f64() * 1000.0
    );
    let calm = failed == 0.0 && panics == 0.0 && told == 0;
    let live = length.fast(slowest < Duration::from_secs(1));
    let pass = wrong.is_empty() && calm && older == 0 && live && arrivals.len() > 20;
    let load = format!("{rate} new TLS connections/s");
    Outcome { load, requests, failed: wrong.len() as u64, figure, pass }
}

async fn problems(proxy: &Proxy) -> usize {
    proxy.problems().await.len()
}

impl Rotation {
    /// Puts a certificate that was never there.
    async fn replace(&mut self) {
        let pair = self.ground.authority.issue(&[HOST]);
        self.numbers.insert(leaf(&pair), self.numbers.len());
        self.ground.put(HOST, &pair).await;
    }

    /// How long it takes until both proxies serve what was put last.
    async fn seen(&mut self) -> Duration {
        let (put, last) = (Instant::now(), self.numbers.len() - 1);
        let until = async |at: SocketAddr| {
            eventually("the new certificate is served", Duration::from_secs(20), async || {
                let got = self.client.certificate(at, HOST).await?;
                let number = self.numbers.get(&got);
                ensure(number == Some(&last), format!("{number:?} is, not {last}"))
            })
            .await;
            Instant::now()
        };
        let seen = tokio::join!(until(self.addresses[0]), until(self.addresses[1]));
        self.served[0].push((seen.0, last));
        self.served[1].push((seen.1, last));
        seen.0.max(seen.1) - put
    }

    /// Whether a client got an older certificate than had been seen before it came. That key and certificate belong
    /// together, and who signed it, the client has verified.
    fn judge(&self, arrival: &Arrival) -> Result<bool, String> {
        let got = arrival.leaf.as_ref().map_err(Clone::clone)?;
        let number = self.numbers.get(got).ok_or("a certificate that nobody has put")?;
        let before = self.served[arrival.at].iter().rev().find(|(seen, _)| *seen < arrival.began);
        Ok(before.is_some_and(|(_, seen)| number < seen))
    }
}
