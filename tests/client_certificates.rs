//! Clients that show certificates: asked for, demanded, told to servers, and never believed without.

use etna_tests::client::{Answer, request};
use etna_tests::scene::Scene;
use etna_tests::stand_in::StandIn;
use etna_tests::tls::{Authority, TlsClient, https_listener};
use http_body_util::Full;
use serde_json::json;
use std::net::SocketAddr;

/// What the server was told of the client's certificate.
fn told(answer: &Answer) -> Vec<(String, String)> {
    let fields = answer.json()["headers"].as_array().unwrap().clone();
    let fields =
        fields.iter().map(|field| (field[0].as_str().unwrap().to_owned(), field[1].as_str().unwrap().to_owned()));
    fields.filter(|(name, _)| name.starts_with("client-cert")).collect()
}

async fn ask(client: &TlsClient, at: SocketAddr) -> Result<Answer, String> {
    let claims = request("GET", "a.test", "/").header("client-cert-subject", "CN=admin").header("client-cert", ":MII:");
    client.send(at, "a.test", claims.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says() {
    let scene = Scene::open("client-certificates").await;
    let (authority, strangers) = (Authority::new(scene.folder()), Authority::new(tempfile::tempdir().unwrap().path()));
    let server = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", server.address)]).await;
    scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), false)).await;
    let auth = |mode: &str, headers: bool| {
        https_listener(json!({ "ClientAuth": { "Mode": mode, "CA": authority.pem(), "Headers": headers } }))
    };
    scene.put("listeners/demands", auth("require", true)).await;
    scene.put("listeners/asks", auth("optional", true)).await;
    scene.put("listeners/silent", auth("require", false)).await;
    scene.put("listeners/plain", https_listener(json!({}))).await;
    let proxy = scene.proxy_with("etna", &["--seal-key", authority.seal_key()]).await;
    let (known, stranger, nobody) = (
        authority.client_with(&authority.issue(&["client.test"])),
        authority.client_with(&strangers.issue(&["client.test"])),
        authority.client(),
    );

    let demands = proxy.listener("demands").await;
    for client in [&stranger, &nobody] {
        ask(client, demands).await.expect_err("it is not let in");
    }
    // Once more with the ticket of the first: a session keeps its client.
    for _ in 0..2 {
        let fields = told(&ask(&known, demands).await.unwrap());
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["client-cert", "client-cert-subject", "client-cert-fingerprint"]);
        assert!(fields[0].1.len() > 100 && fields[1].1 == "CN=rcgen self signed cert", "{fields:?}");
    }

    let asks = proxy.listener("asks").await;
    assert_eq!(told(&ask(&known, asks).await.unwrap()).len(), 3);
    assert!(told(&ask(&nobody, asks).await.unwrap()).is_empty(), "what it claims itself is dropped");
    ask(&stranger, asks).await.expect_err("a certificate that nobody vouches for");

    assert!(told(&ask(&known, proxy.listener("silent").await).await.unwrap()).is_empty());
    assert!(told(&ask(&known, proxy.listener("plain").await).await.unwrap()).is_empty());
}
