//! What the drills of the edge stand on: an authority, an https listener, and the bed's route behind it.

use std::net::SocketAddr;
use std::time::Duration;

use etna_store::seal::KeyPair;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::tls::{Authority, TlsClient, https_listener};
use serde_json::{Value, json};

use super::arrivals;
use crate::bed::{Bed, HOST, Needs};
use crate::drill::Length;
use crate::servers_handle::Echo;

/// A scene with a certificate for [`HOST`].
pub(super) struct Ground {
    pub(super) scene: Scene,
    pub(super) authority: Authority,
    /// Alive as long as this is.
    _servers: Vec<Echo>,
}

impl Ground {
    /// Without proxies. The listener `https` has the settings.
    pub(super) async fn open(name: &str, settings: Value) -> Ground {
        let (scene, servers) = Bed::parts(name, &Needs::default()).await;
        let authority = Authority::new(scene.folder());
        scene.put("listeners/https", https_listener(settings)).await;
        let ground = Ground { scene, authority, _servers: servers };
        ground.put(HOST, &ground.authority.issue(&[HOST])).await;
        ground
    }

    /// Gives a host a certificate.
    pub(super) async fn put(&self, host: &str, pair: &KeyPair) {
        self.scene.put(&format!("hosts/{host}/host"), self.authority.host(pair, false)).await;
    }

    /// A proxy, and where it speaks TLS; it does.
    pub(super) async fn proxy(&self, name: &str) -> (Proxy, SocketAddr) {
        let proxy = self.scene.proxy_with(name, &["--seal-key", self.authority.seal_key()]).await;
        let at = proxy.listener("https").await;
        let answer = self.authority.client().get(at, HOST, "/").await.expect("it speaks TLS");
        assert_eq!(answer.status, 200, "{}", answer.text());
        (proxy, at)
    }

    /// A client that believes the authority, and never goes on with a session.
    pub(super) fn client(&self) -> TlsClient {
        self.authority.client().forgetful()
    }
}

/// As many new connections a second as are wanted, or 60 % of what clients and proxy can do together.
pub(super) async fn bearable(wanted: u64, length: Length, client: &TlsClient, at: SocketAddr) -> u64 {
    match length {
        Length::Short => wanted,
        Length::Full => wanted.min((arrivals::saturation(client, at).await * 0.6) as u64),
    }
}

/// Connections that stand, and ask now and then.
pub(super) struct Kept {
    stop: tokio_util::sync::CancellationToken,
    tasks: tokio::task::JoinSet<(u64, Vec<String>)>,
}

impl Kept {
    /// So many at each address.
    pub(super) async fn open(client: &TlsClient, addresses: &[SocketAddr], many: usize) -> Kept {
        let stop = tokio_util::sync::CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        for at in addresses {
            for _ in 0..many {
                let mut connection = client.open(*at, HOST).await.expect("a connection that stands");
                let stop = stop.clone();
                tasks.spawn(async move {
                    let (mut asked, mut wrong) = (0, Vec::new());
                    while wrong.is_empty() && stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
                        asked += 1;
                        match connection.get(HOST, "/").await {
                            Ok(answer) if answer.status == 200 && connection.is_open() => {}
                            Ok(answer) => wrong.push(format!("a kept connection: {}, closing", answer.status)),
                            Err(why) => wrong.push(format!("a kept connection: {why}")),
                        }
                    }
                    (asked, wrong)
                });
            }
        }
        Kept { stop, tasks }
    }

    /// How many requests they sent, and what went wrong.
    pub(super) async fn stop(self) -> (u64, Vec<String>) {
        self.stop.cancel();
        let all = self.tasks.join_all().await;
        (all.iter().map(|(asked, _)| asked).sum(), all.into_iter().flat_map(|(_, wrong)| wrong).collect())
    }
}

/// The value of a proxy's counter of handshakes that failed.
pub(super) async fn failed_handshakes(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("etna_tls_handshakes_total", &[("result", "failed")]).unwrap_or(f64::NAN)
}

/// Connections that a bug of the proxy's ended.
pub(super) async fn panics(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("etna_panics_total", &[]).unwrap_or(f64::NAN)
}

/// Settings of a listener with a policy.
pub(super) fn policy(name: &str) -> Value {
    json!({ "TLS": { "Policy": name } })
}

const PERIOD: Duration = Duration::from_millis(100);
