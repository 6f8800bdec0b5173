//! S11: latency that a proxy adds at half of what gets through, as users see it who come when they come.
//!
//! All get the same rate: half of what gets through the first of them in a closed loop of the same load, which the
//! load's core limits. That loop has as many connections as a stall makes the open one open ([`CONNECTIONS`]): the more
//! there are, the less gets through anybody, and at half of what gets through few the load itself is slow to get over a
//! stall. All go through it first, so that all begin with the same behind them. Caddy, whose most is less than that rate,
//! is not asked.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Figure, Of, Place, Scenario, Target, alike};
use crate::drive::open_loop::{Latencies, OpenLoop, Pace};
use crate::drive::servers::SLOW;
use crate::drive::{Driver, Order};
use crate::peer::{BLOG, Kind, Servers, Setup};

/// What stands behind.
pub(super) struct AtHalf {
    id: &'static str,
    title: &'static str,
    path: &'static str,
}

pub(super) const FAST: AtHalf =
    AtHalf { id: "s11-fast", title: "added latency at half of the capacity, open loop, fast servers", path: "/" };
pub(super) const SLOWLY: AtHalf =
    AtHalf { id: "s11-slow", title: "added latency at half of the capacity, open loop, servers of 20 ms", path: SLOW };

#[async_trait(?Send)]
impl Scenario for AtHalf {
    fn about(&self) -> About {
        About {
            id: self.id,
            title: self.title,
            figures: const {
                &[
                    Figure { name: "p50 µs", digits: 0, compared: true },
                    Figure { name: "p99 µs", digits: 0, compared: true },
                    Figure { name: "p99.9 µs", digits: 0, compared: true },
                    Figure { name: "longest µs", digits: 0, compared: false },
                    Figure { name: "requests/s", digits: 0, compared: false },
                ]
            },
            targets: const { &[no_more(0), no_more(1), no_more(2)] },
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        let setup = Setup { servers: Servers::Ours(2), ..Setup::default() };
        alike(&[Kind::Etna, Kind::Haproxy, Kind::Nginx, Kind::Floor], setup)
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let run = async |path: &str, pace: Pace, seconds: u32| {
            let (to, host, path) = (at.peer.address, BLOG.to_owned(), path.to_owned());
            let order = Order::OpenLoop(OpenLoop { to, host, path, pace, seconds });
            Driver::start(at.bed.cores.load, &order).await?.counted::<Latencies>().await
        };
        let most = run("/", Pace::Connections(CONNECTIONS), 1).await?;
        let rate = at.bed.noted("capacity", async || Ok(most.answered as f64 / most.seconds)).await? / 2.0;
        let latencies = run(self.path, Pace::Rate(rate as u32), at.seconds).await?;
        let [half, most, nearly_all] = latencies.added;
        Ok(vec![half, most, nearly_all, latencies.longest, latencies.answered as f64 / latencies.seconds])
    }
}

/// What comes in 20 ms.
const CONNECTIONS: usize = 512;

const fn no_more(figure: usize) -> Target {
    Target { entrant: "etna", figure, of: Of::Ratio, most: 1.0 }
}
