//! Growth: S1 with more servers, more connections, two workers; more frontends are S9. Etna alone, but for connections: how
//! much of that growth is the kernel's, its peers show.

use anyhow::Context as _;
use async_trait::async_trait;

use super::{ABOUT, About, Against, Entrant, Place, Scenario, mebibytes};
use crate::drive::open_loop::{Latencies, OpenLoop, Pace};
use crate::drive::{Driver, Order};
use crate::peer::{BLOG, Etna, Kind, Servers, Setup, Store, With, Workers};

/// What grows.
pub(super) struct Growth {
    id: &'static str,
    title: &'static str,
    what: &'static str,
    points: &'static [Point],
}

/// How far.
struct Point {
    name: &'static str,
    peer: Kind,
    connections: usize,
    setup: Setup,
}

const USUAL: Setup = Setup {
    key: None,
    http2: false,
    websocket: false,
    servers: Servers::Ours(2),
    etna: Etna { frontends: 0, store: Store::Embedded, with: With::Flags(&[]), workers: Workers::One },
};

pub(super) const SERVERS: Growth = Growth {
    id: "growth-servers",
    title: "small bodies (130 bytes), 64 kept connections, as many servers",
    what: "servers",
    points: &[servers("2", 2), servers("10", 10), servers("100", 100), servers("1,000", 1000)],
};
pub(super) const CONNECTIONS: Growth = Growth {
    id: "growth-connections",
    title: "small bodies (130 bytes), as many kept connections that all ask",
    what: "connections",
    points: &[
        connections("16", Kind::Etna, 16),
        connections("64", Kind::Etna, 64),
        connections("512", Kind::Etna, 512),
        connections("4,096", Kind::Etna, 4096),
        connections("haproxy, 64", Kind::Haproxy, 64),
        connections("haproxy, 512", Kind::Haproxy, 512),
        connections("haproxy, 4,096", Kind::Haproxy, 4096),
        connections("nginx, 64", Kind::Nginx, 64),
        connections("nginx, 512", Kind::Nginx, 512),
        connections("nginx, 4,096", Kind::Nginx, 4096),
    ],
};
/// The second has to share its core with the load.
pub(super) const WORKERS: Growth = Growth {
    id: "growth-workers",
    title: "small bodies (130 bytes), 64 kept connections, as many workers on as many cores",
    what: "workers",
    points: &[workers("1", Workers::One), workers("2", Workers::Two)],
};

const fn servers(name: &'static str, number: usize) -> Point {
    Point { name, peer: Kind::Etna, connections: 64, setup: Setup { servers: Servers::Ours(number), ..USUAL } }
}

const fn connections(name: &'static str, peer: Kind, connections: usize) -> Point {
    Point { name, peer, connections, setup: USUAL }
}

const fn workers(name: &'static str, workers: Workers) -> Point {
    Point { name, peer: Kind::Etna, connections: 64, setup: Setup { etna: Etna { workers, ..USUAL.etna }, ..USUAL } }
}

#[async_trait(?Send)]
impl Scenario for Growth {
    fn about(&self) -> About {
        About {
            id: self.id,
            title: self.title,
            against: Against::Entrant(self.points[0].name),
            grows_with: Some(self.what),
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        let entrant = |point: &Point| Entrant { name: point.name, peer: point.peer, setup: point.setup };
        self.points.iter().map(entrant).collect()
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let point = self.points.iter().find(|point| point.name == at.entrant.name).context("no such point")?;
        // Not wrk: it would open its thousands of connections in the time that counts.
        let order = OpenLoop {
            to: at.peer.address,
            host: BLOG.to_owned(),
            path: "/".to_owned(),
            pace: Pace::Connections(point.connections),
            seconds: at.seconds,
        };
        let driver = Driver::start(at.bed.cores.load, &Order::OpenLoop(order)).await?;
        let before = at.peer.process.cpu();
        let answers: Latencies = driver.counted().await?;
        let spent = at.peer.process.cpu().saturating_sub(before);
        let answered = answers.answered as f64;
        Ok(vec![spent.as_secs_f64() * 1e6 / answered, answered / answers.seconds, mebibytes(&at.peer.process)])
    }
}
