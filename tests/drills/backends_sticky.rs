//! B10: clients that stay on their server, and what becomes of them when it goes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use etna_tests::client::{Answer, request, send};
use etna_tests::scene::{frontend, frontend_key, server_at, server_key};
use http_body_util::Full;
use serde_json::json;

use crate::bed::{BACKEND, Bed, HOST, Needs, Rate};
use crate::drill::{Length, Outcome};

/// B10: the clients of a server that goes move once, and nobody else does; a cookie never leads out of its backend.
pub(crate) async fn moved(length: Length) -> Outcome {
    let sticky = json!({ "Sticky": { "Cookie": COOKIE } });
    let bed = Bed::with("b10", length, Needs { backend: sticky.clone(), ..Needs::default() }).await;
    // Another backend with the same cookie's name, on a server that must never answer the load.
    let stray = bed.servers[0].open("stray").await;
    let mut backend = sticky;
    backend["Type"] = "http".into();
    bed.scene.put("backends/stray/backend", backend).await;
    bed.scene.put(&server_key("stray", "stray"), server_at(stray)).await;
    let revision = bed.scene.put(&frontend_key("stray"), frontend("Host(`stray.test`)", "stray")).await;
    bed.proxy.until_revision(revision).await;

    let mut mix = bed.mix(Rate::L2k).await;
    mix.cookies = true;
    let load = bed.load_of(mix).await;
    let calm = length.pick(Duration::from_secs(5), Duration::from_millis(500));
    load.go_on(calm).await;
    let gone = &bed.servers[2];
    bed.proxy.until_revision(bed.scene.delete(&server_key(BACKEND, &gone.id)).await).await;
    load.go_on(calm).await;
    let again = bed.scene.put(&server_key(BACKEND, &gone.id), server_at(gone.address)).await;
    bed.proxy.until_revision(again).await;
    let returned = load.began.elapsed();
    load.go_on(calm).await;
    let traffic = bed.finish(load).await;
    let back = traffic.moves.iter().filter(|change| change.at > returned || change.to == gone.id).count();
    let others = traffic.moves.iter().filter(|change| change.from != gone.id).count();
    let forged = forged(&bed).await;
    let figure = format!(
        "{} of 64 clients moved, {others} of them from servers that stayed, {back} back to it; forged cookies: {}",
        traffic.moves.len(),
        forged.as_ref().map_or_else(|wrong| format!("FAIL: {wrong}"), |tried| format!("{tried} harmless"))
    );
    let pass = (1..=64).contains(&traffic.moves.len()) && others == 0 && back == 0 && forged.is_ok();
    traffic.outcome(figure, pass)
}

/// Tries cookies that no server of the backend gave; how many.
async fn forged(bed: &Bed) -> Result<usize, String> {
    let strays = cookie(&ask(bed, "stray.test", "").await?).ok_or("the other backend gives no cookie")?;
    let own = cookie(&ask(bed, HOST, "").await?).ok_or("the backend gives no cookie")?;
    let mut servers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..20 {
        let answer = ask(bed, HOST, &own).await?;
        *servers.entry(answer.server().to_owned()).or_default() += 1;
    }
    if servers.len() != 1 {
        return Err(format!("a true cookie leads to {servers:?}"));
    }
    let long = format!("{COOKIE}={}", "A".repeat(4000));
    let forgeries = [
        strays.clone(),
        format!("{COOKIE}=stray"),
        format!("{COOKIE}=live-0"),
        format!("{COOKIE}=http://127.0.0.1:{}", bed.proxy.admin.port()),
        format!("{COOKIE}="),
        format!("{COOKIE}=../../stray"),
        format!("{COOKIE}=\"{}\"", strays.split_once('=').unwrap_or_default().1),
        long,
    ];
    for forgery in &forgeries {
        let answer = ask(bed, HOST, forgery).await?;
        let shown: String = forgery.chars().take(40).collect();
        if answer.status != 200 || !answer.server().starts_with(BACKEND) {
            return Err(format!("{shown} is answered {} by {:?}", answer.status, answer.server()));
        }
        if cookie(&answer).is_none() {
            return Err(format!("{shown} is not rewritten"));
        }
    }
    Ok(forgeries.len())
}

async fn ask(bed: &Bed, host: &str, cookie: &str) -> Result<Answer, String> {
    let mut asked = request("GET", host, "/load/1").header(crate::load_shape::ID, 1);
    if !cookie.is_empty() {
        asked = asked.header("cookie", cookie);
    }
    send(bed.proxy.listen, asked.body(Full::<Bytes>::default()).expect("a valid request")).await
}

/// The cookie that an answer sets.
fn cookie(answer: &Answer) -> Option<String> {
    answer.header("set-cookie").split(';').next().filter(|pair| pair.starts_with(COOKIE)).map(str::to_owned)
}

const COOKIE: &str = "stick";
