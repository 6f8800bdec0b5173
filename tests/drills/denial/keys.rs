//! E15: a new host, cookie and client with every request. Whatever is kept by name must not be kept for ever.

use serde_json::json;

use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};

use super::{MB, Memory};
use crate::drill::{Length, Outcome};
use crate::protocol::wire::Wire;

pub(super) async fn run(length: Length) -> Outcome {
    let many: usize = length.pick(1_000_000, 20_000);
    let scene = Scene::alone("keys").await;
    let server = crate::streaming::quick_server().await;
    scene.put("backends/a/backend", json!({"Type": "http", "Sticky": {}, "Policy": "hash"})).await;
    scene.put(&server_key("a", "s"), server_at(server)).await;
    scene.put(&frontend_key("a"), frontend("PathRegexp(`.*`)", "a")).await;
    let limit = json!({"Type": "ratelimit", "Priority": 1,
        "Middleware": {"Variable": "client.ip", "Requests": 1000, "PeriodSeconds": 1, "Burst": 1000}});
    scene.put("frontends/a/middlewares/limit", limit).await;
    let proxy = scene.proxy_with("etna", &["--trusted-proxies", "127.0.0.0/8"]).await;
    proxy.until_status("a.test", "/", 200).await;
    let lines =
        async || proxy.admin_get("/metrics").await.map(|answer| answer.text().lines().count()).unwrap_or_default();
    // Pools and buffers have their size before it is measured.
    ask(&proxy, 0, many / 20).await.expect("answers");
    let before = lines().await;
    let memory = Memory::watch(proxy.pid());
    let mut wrong = Vec::new();
    if let Err(why) = ask(&proxy, many / 20, many).await {
        wrong.push(why);
    }
    let grown = memory.stop().await / MB;
    let after = lines().await;
    if after > before + 10 {
        wrong.push(format!("{before} lines of metrics became {after}"));
    }
    if grown >= 20.0 {
        wrong.push(format!("memory +{grown:.1} MB"));
    }
    let figure = format!("memory +{grown:.1} MB; {before} lines of metrics, then {after}");
    crate::protocol::outcome("50 at once", many, figure, &wrong)
}

/// Requests of which no two share a host, a cookie or a client.
async fn ask(proxy: &etna_tests::proxy::Proxy, from: usize, to: usize) -> Result<(), String> {
    let mut wire = Wire::open(proxy.listen).await;
    let mut n = from;
    while n < to {
        let until = (n + 50).min(to);
        let mut all = String::new();
        for n in n..until {
            let [_, a, b, c] = u32::try_from(n).unwrap_or_default().to_be_bytes();
            all.push_str(&format!(
                "GET /{n} HTTP/1.1\r\nHost: h{n}.test\r\nCookie: c{n}=v{n}; etna-{n:08x}=x\r\nX-Forwarded-For: 11.{a}.{b}.{c}\r\n\
                 User-Agent: u{n}\r\n\r\n"
            ));
        }
        let sending = wire.send_beside(all.into_bytes());
        for n in n..until {
            let reply =
                wire.reply(false, crate::protocol::SOON).await.map_err(|gone| format!("request {n}: {gone:?}"))?;
            if reply.status != 200 {
                return Err(format!("request {n}: {}", reply.status));
            }
        }
        let _ = sending.await;
        n = until;
    }
    Ok(())
}
