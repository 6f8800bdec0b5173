//! The bed on which drills run: a corner of an etcd, three servers behind one route, a proxy, and the load.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etna_tests::load::Plan;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::wait::{ensure, eventually};
use serde_json::{Value, json};

use crate::drill::{Length, Outcome};
use crate::load::{Load, Mix, Traffic};
use crate::load_shape;
use crate::servers_handle::Echo;

/// The route's host.
pub(crate) const HOST: &str = "live.test";
/// The route's backend, and what its servers' ids start with.
pub(crate) const BACKEND: &str = "live";

/// What runs.
pub(crate) struct Bed {
    /// The proxy.
    pub(crate) proxy: Proxy,
    /// The servers, `live-0` and so on.
    pub(crate) servers: Vec<Echo>,
    /// Prefix, etcd and folder.
    pub(crate) scene: Scene,
    /// How long the drill may take.
    pub(crate) length: Length,
    loads: Cell<u64>,
}

/// What is not as usual.
pub(crate) struct Needs {
    /// How many servers; 3.
    pub(crate) servers: usize,
    /// Fields of `backends/live/backend` beside its type.
    pub(crate) backend: Value,
    /// Flags of the proxy.
    pub(crate) flags: Vec<String>,
    /// Whether the etcd is this bed's own, to be killed.
    pub(crate) own_etcd: bool,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { servers: 3, backend: json!({}), flags: Vec::new(), own_etcd: false }
    }
}

impl Needs {
    /// A proxy with the flags that are needed.
    pub(crate) async fn proxy(&self, scene: &Scene) -> Proxy {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        scene.proxy_with("etna", &flags).await
    }
}

/// How much load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    /// 2,000 requests a second.
    L2k,
    /// 5,000 requests a second.
    L5k,
    /// Another number, also where a drill is shortened.
    Of(u64),
}

impl Bed {
    /// With nothing unusual.
    pub(crate) async fn start(name: &str, length: Length) -> Bed {
        Bed::with(name, length, Needs::default()).await
    }

    /// With what is needed; everything answers once.
    pub(crate) async fn with(name: &str, length: Length, needs: Needs) -> Bed {
        let (scene, servers) = Bed::parts(name, &needs).await;
        let proxy = needs.proxy(&scene).await;
        Bed::around(scene, servers, proxy, length).await
    }

    /// Everything but the proxy: for drills that start one in their own way, and then put it [`around`](Bed::around).
    pub(crate) async fn parts(name: &str, needs: &Needs) -> (Scene, Vec<Echo>) {
        let scene = if needs.own_etcd { Scene::alone_with_etcd(name).await } else { Scene::alone(name).await };
        let mut backend = needs.backend.clone();
        backend["Type"] = "http".into();
        scene.put(&format!("backends/{BACKEND}/backend"), backend).await;
        let mut servers = Vec::new();
        for number in 0..needs.servers {
            let echo = Echo::start(&format!("{BACKEND}-{number}"), scene.folder()).await;
            scene.put(&server_key(BACKEND, &echo.id), server_at(echo.address)).await;
            servers.push(echo);
        }
        scene.put(&frontend_key(BACKEND), frontend(&format!("Host(`{HOST}`)"), BACKEND)).await;
        (scene, servers)
    }

    /// A bed of its parts; its route answers.
    pub(crate) async fn around(scene: Scene, servers: Vec<Echo>, proxy: Proxy, length: Length) -> Bed {
        proxy.until_status(HOST, "/", 200).await;
        let problems = proxy.problems().await;
        assert!(problems.is_empty(), "the proxy does not take the bed as it is: {problems:?}");
        Bed { proxy, servers, scene, length, loads: Cell::new(0) }
    }

    /// Starts a load as is usual, and waits until it is in its stride.
    pub(crate) async fn load(&self, rate: Rate) -> Load {
        let mix = self.mix(rate).await;
        self.load_of(mix).await
    }

    /// The same with a mix that was changed.
    pub(crate) async fn load_of(&self, mix: Mix) -> Load {
        let load = Load::start(mix);
        load.go_on(self.length.pick(Duration::from_secs(1), Duration::from_millis(300))).await;
        eventually("the load is answered", Duration::from_secs(20), async || ensure(load.answered() > 0, "nothing is"))
            .await;
        load
    }

    /// What a load is, unless something is changed: 64 kept connections, and the rate that is wanted if the machine
    /// can do that with some ease.
    pub(crate) async fn mix(&self, rate: Rate) -> Mix {
        let wanted = match (rate, self.length) {
            (Rate::Of(rate), _) => rate,
            (Rate::L2k | Rate::L5k, Length::Short) => SHORT,
            (Rate::L2k, Length::Full) => 2000,
            (Rate::L5k, Length::Full) => 5000,
        };
        let rate = match self.length {
            Length::Full => wanted.min((self.saturation().await * 0.6) as u64),
            Length::Short => wanted,
        };
        let number = self.loads.get() + 1;
        self.loads.set(number);
        Mix {
            to: self.proxy.listen,
            host: HOST.into(),
            servers: BACKEND.into(),
            rate,
            connections: CONNECTIONS,
            fresh: 0,
            cookies: false,
            first: number << 40,
        }
    }

    /// Requests a second that client, proxy and servers can do together here and now.
    async fn saturation(&self) -> f64 {
        let closed = etna_tests::load::Load::start(Plan {
            to: vec![self.proxy.listen],
            rate: 0,
            connections: CONNECTIONS,
            request: load_shape::request,
            host: HOST.into(),
            check: |id, answer| load_shape::check(HOST, BACKEND, id, answer),
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        closed.stop().await.rate()
    }

    /// Ends a load; what it could not see itself is added: requests that were executed twice though they must not be.
    pub(crate) async fn finish(&self, load: Load) -> Traffic {
        let mut traffic = load.stop().await;
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        let once = self.servers.iter().flat_map(Echo::executed).filter(|id| load_shape::is_once(*id));
        once.for_each(|id| *times.entry(id).or_default() += 1);
        for sample in &traffic.samples {
            // A right answer without a trace is a fault of the bed; every drill that passes has shown that there is none.
            let missing = load_shape::is_once(sample.id) && sample.server.is_some() && !times.contains_key(&sample.id);
            assert!(!missing, "POST {} was answered, but no server has executed it", sample.id);
        }
        let sent: BTreeSet<u64> = traffic.samples.iter().map(|sample| sample.id).collect();
        for (id, count) in times.into_iter().filter(|(id, count)| *count > 1 && sent.contains(id)) {
            traffic.accuse(id, format!("POST executed {count} times"));
        }
        traffic
    }

    /// Ends a load during which nothing may fail.
    pub(crate) async fn outcome(&self, load: Load, figure: impl Into<String>, pass: bool) -> Outcome {
        let traffic = self.finish(load).await;
        traffic.outcome(figure, pass)
    }
}

impl Traffic {
    /// Of a load during which nothing may fail.
    pub(crate) fn outcome(&self, figure: impl Into<String>, pass: bool) -> Outcome {
        Outcome::of(&self.says, &self.report, figure, pass)
    }

    /// Of a load during which something may: `pass` says whether what did was allowed.
    pub(crate) fn outcome_if(&self, figure: impl Into<String>, pass: bool) -> Outcome {
        Outcome { pass, ..Outcome::of(&self.says, &self.report, figure, pass) }
    }
}

const CONNECTIONS: usize = 64;
/// Requests a second that a machine which does other things bears, all programs built without optimisation.
const SHORT: u64 = 300;
