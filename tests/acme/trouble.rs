//! Certificates that cannot be had: what is said about it, and that nothing else suffers.

use std::net::SocketAddr;
use std::time::Duration;

use etna_tests::tls::Authority;
use etna_tests::wait::{always, ensure, eventually};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{Ground, SOON};

#[tokio::test]
async fn an_authority_that_fails_is_a_problem_and_nothing_else() {
    let ground = Ground::new("acme-down").await;
    let proxies = ground.proxies(["one", "two"]).await;
    ground.host("a.test", json!(true)).await;
    let first = ground.until_served(&proxies[0], "a.test", SOON).await;
    let says = async |text: &str| {
        for proxy in &proxies {
            eventually(&format!("the problem is {text}"), SOON, async || {
                let problems = proxy.problems().await;
                let told = problems.iter().find(|problem| problem["reason"].as_str().unwrap().contains(text));
                let told = told.ok_or(format!("{problems:?}"))?;
                ensure(
                    told["key"] == "hosts/b.test/host" && told["hint"].as_str().unwrap().contains("GMT"),
                    "where, when",
                )
            })
            .await;
            let at = proxy.listener("https").await;
            assert_eq!(ground.acme.client().certificate(at, "a.test").await.unwrap(), first);
        }
    };
    ground.acme.set(|manner| manner.down = true);
    ground.host("b.test", json!({})).await;
    says("answered 503").await;
    ground.acme.set(|manner| (manner.down, manner.junk) = (false, true));
    // With other settings it is tried again at once.
    ground.host("b.test", json!({ "Email": "1@b.test" })).await;
    says("JSON").await;
    ground.acme.set(|manner| (manner.junk, manner.limited) = (false, Some(7200)));
    ground.host("b.test", json!({ "Email": "2@b.test" })).await;
    says("too many certificates already issued (rateLimited)").await;
    let record = ground.scene.below("acme/hosts/b.test").await;
    let record: Value = serde_json::from_slice(&record[0].1).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(record["RetryAt"].as_u64().unwrap() > now + 7000, "Retry-After is obeyed: {record}");
    ground.acme.set(|manner| (manner.limited, manner.rejected) = (None, vec!["b.test".into()]));
    ground.host("b.test", json!({ "Email": "3@b.test" })).await;
    says("policy forbids issuing for this name").await;
    // Nobody is where the name leads.
    ground.acme.set(|manner| manner.rejected.clear());
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    ground.acme.look_at(vec![closed], vec![closed]);
    ground.host("b.test", json!({ "Email": "4@b.test" })).await;
    says("http-01: the authority says: 127.0.0.1:1: connect").await;
    let failures = proxies[0].metrics().await.sum("etna_acme_failures", &[("host", "b.test")]);
    assert!(failures > Some(0.0), "{failures:?}");

    // An account that the authority does not know any more is made again.
    ground.acme.forget_accounts();
    ground.host("b.test", json!({ "Email": "4@b.test", "Challenge": "tls-alpn-01" })).await;
    says("accountDoesNotExist").await;
    ground.acme.look_at(vec![proxies[1].listen], Vec::new());
    ground.host("b.test", json!({ "Email": "4@b.test", "Challenge": "http-01" })).await;
    ground.until_served(&proxies[1], "b.test", SOON).await;
    for proxy in &proxies {
        eventually("nothing is wrong", SOON, async || {
            let problems = proxy.problems().await;
            ensure(problems.is_empty(), format!("{problems:?}"))
        })
        .await;
    }
    ground.check(&proxies).await;
}

#[tokio::test]
async fn who_cannot_open_what_is_sealed_orders_nothing() {
    let ground = Ground::new("acme-seal").await;
    let proxies = ground.proxies(["one"]).await;
    ground.host("a.test", json!(true)).await;
    let served = ground.until_served(&proxies[0], "a.test", SOON).await;
    let folder = tempfile::tempdir().unwrap();
    let other = ground.proxy("other", Authority::new(folder.path()).seal_key()).await;
    let none = ground.scene.proxy_with("none", &ground.acme.flags()).await;
    for (proxy, text) in [(&other, "no key of the seal key file opens it"), (&none, "need a key that seals them")] {
        eventually("it says so", SOON, async || {
            let problems = proxy.problems().await;
            let told = problems.iter().any(|problem| {
                problem["key"] == "hosts/a.test/host" && problem["reason"].as_str().unwrap().contains(text)
            });
            ensure(told, format!("{problems:?}"))
        })
        .await;
    }
    // One that has no certificate finds an account that it cannot open.
    let revision = ground.scene.put("hosts/b.test/host", json!({ "Settings": { "AutoCert": {} } })).await;
    other.until_revision(revision).await;
    ground.until_served(&proxies[0], "b.test", SOON).await;
    assert_eq!(ground.acme.accounts().len(), 1);
    assert_eq!(ground.acme.orders_of("a.test"), 1);
    assert_eq!(ground.acme.client().certificate(proxies[0].listener("https").await, "a.test").await.unwrap(), served);
    ground.check(&proxies).await;
}

#[tokio::test]
async fn names_that_cannot_be_had_and_key_pairs_that_go_first() {
    let ground = Ground::new("acme-names").await;
    let proxies = ground.proxies(["one"]).await;
    let pair = ground.seal.host(&ground.seal.issue(&["a.test"]), false);
    let mut with_both = pair.clone();
    with_both["Settings"]["Acme"] = json!(true);
    ground.scene.put("hosts/a.test/host", with_both).await;
    ground.host("*.wild.test", json!(true)).await;
    let revision = ground.host("no_name", json!(true)).await;
    proxies[0].until_revision(revision).await;
    let problems = proxies[0].problems().await;
    let wild = problems.iter().find(|problem| problem["key"] == "hosts/*.wild.test/host").unwrap();
    assert!(wild["reason"].as_str().unwrap().contains("wildcard"), "{wild}");
    assert!(wild["hint"].as_str().unwrap().contains("KeyPair"), "{wild}");
    let at = proxies[0].listener("https").await;
    let own = ground.seal.client().certificate(at, "a.test").await.unwrap();
    assert!(!CertificateDer::from(own).is_empty());
    always("nothing is ordered", Duration::from_secs(2), async || {
        let ordered = ground.acme.orders_of("a.test") + ground.acme.orders_of("*.wild.test");
        ensure(ordered == 0, "an order")
    })
    .await;
    assert_eq!(proxies[0].json("/v2/hosts/a.test").await["Certificate"]["Source"], "key pair");
    // A site says it for its hosts whose keys say nothing.
    let site = json!({ "Preset": "wordpress", "Hosts": ["w.test"], "Public": "w", "Acme": true, "Https": "off" });
    ground.scene.put("sites/w", site).await;
    ground.until_served(&proxies[0], "w.test", SOON).await;
    assert_eq!(proxies[0].json("/v2/hosts/w.test").await["Certificate"]["Source"], "acme");
    // Without its key pair, ACME it is.
    ground.host("a.test", json!(true)).await;
    ground.until_served(&proxies[0], "a.test", SOON).await;
}
