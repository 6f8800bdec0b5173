//! A hundred thousand frontends load, serve, and take one more as fast as ten do.

use std::time::{Duration, Instant};

use etna_tests::client::Connection;
use etna_tests::load::percentile;
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::StandIn;
use serde_json::Value;

/// That many frontends, each with a host of its own, over a thousandth as many backends.
fn objects(count: usize, server: &StandIn) -> Vec<(String, Value)> {
    let backends = count.div_ceil(1000);
    let servers = (0..backends).map(|i| (server_key(&format!("b{i}"), "s"), server_at(server.address)));
    let frontends = (0..count).map(|i| {
        let route = format!("Host(`h{i}.test`) && PathPrefix(`/p{}`)", i % 10);
        (frontend_key(&format!("f{i}")), frontend(&route, &format!("b{}", i % backends)))
    });
    servers.chain(frontends).collect()
}

/// How long one new frontend takes from its put until it is served: the median of many.
async fn put_to_served(scene: &Scene, proxy: &Proxy) -> Duration {
    let mut connection = Connection::open(proxy.listen).await.unwrap();
    let mut took = Vec::new();
    for n in 0..PUTS {
        let host = format!("new{n}.test");
        let value = frontend(&format!("Host(`{host}`)"), "b0");
        let put = Instant::now();
        scene.put(&frontend_key(&format!("new{n}")), value).await;
        while connection.get(&host, "/").await.unwrap().status != 200 {
            assert!(put.elapsed() < Duration::from_secs(60), "{host} is not served");
        }
        took.push(put.elapsed());
    }
    took.sort_unstable();
    percentile(&took, 0.5).expect("puts were made")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_frontends() {
    let scene = Scene::alone_with_etcd("scale").await;
    let server = StandIn::start("s").await;
    scene.put_all(objects(10, &server)).await;
    let proxy = scene.proxy("small").await;
    let with_ten = (put_to_served(&scene, &proxy).await, proxy.memory());
    drop(proxy);

    scene.delete_below("").await;
    scene.put_all(objects(FRONTENDS, &server)).await;
    let started = Instant::now();
    let proxy = Proxy::start_within("large", &scene.store(), &[], scene.folder(), Duration::from_secs(120)).await;
    let ready = started.elapsed();
    let memory = proxy.memory();
    assert_eq!(proxy.json("/v3/status").await["counts"]["frontends"], FRONTENDS);
    for i in [0, 1, FRONTENDS / 2, FRONTENDS - 1] {
        let (host, path) = (format!("h{i}.test"), format!("/p{}/x", i % 10));
        assert_eq!(proxy.get(&host, &path).await.unwrap().status, 200, "{host}{path}");
        assert_eq!(proxy.get(&host, "/other").await.unwrap().status, 404);
    }
    let with_many = put_to_served(&scene, &proxy).await;
    measured(&format!(
        "{FRONTENDS} frontends: ready after {ready:.2?}; {} MiB, {} bytes each; one new one served after {with_many:.2?} \
         (with 10: {:.2?}, {} MiB)",
        memory >> 20,
        memory.saturating_sub(with_ten.1) / FRONTENDS as u64,
        with_ten.0,
        with_ten.1 >> 20
    ));
    // Whatever else the machine does: work for each of the others would take seconds.
    let bound = with_ten.0 * 3 + Duration::from_millis(500);
    assert!(with_many <= bound, "one new frontend takes {with_many:?} among {FRONTENDS}, {:?} among 10", with_ten.0);
}

const FRONTENDS: usize = 100_000;
const PUTS: usize = 50;
