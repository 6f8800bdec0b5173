//! S10: changes, from a real etcd. Etna alone.
//!
//! One at a time, with nothing else going on; and a thousand a second under load. There the throughput is compared with
//! the one while the same changes go to a part of etcd that no proxy follows, so that what etcd takes of the load's core
//! counts in both; how long etcd then needs for a put, on that busy core, is told beside.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Figure, Of, Place, Scenario, Target};
use crate::drive::changes::{Changes, Took};
use crate::drive::{Driver, Order};
use crate::load::SMALL;
use crate::peer::{Etna, Kind, Setup, Store};

pub(super) struct OneAtATime;
pub(super) struct UnderLoad;

#[async_trait(?Send)]
impl Scenario for OneAtATime {
    fn about(&self) -> About {
        About {
            id: "s10-idle",
            title: "one change at a time in etcd, from its put until it is served, with as many frontends",
            figures: const {
                &[
                    Figure { name: "server p50 ms", digits: 2, compared: false },
                    Figure { name: "server p99 ms", digits: 2, compared: false },
                    Figure { name: "frontend p50 ms", digits: 2, compared: false },
                    Figure { name: "frontend p99 ms", digits: 2, compared: false },
                    Figure { name: "put p50 ms", digits: 2, compared: false },
                    Figure { name: "put p99 ms", digits: 2, compared: false },
                ]
            },
            targets: const {
                &[
                    most("10", 0, 2.0),
                    most("10", 1, 5.0),
                    most("10", 2, 2.0),
                    most("10", 3, 5.0),
                    most("100,000", 0, 2.0),
                    most("100,000", 1, 5.0),
                    most("100,000", 2, 2.0),
                    most("100,000", 3, 5.0),
                ]
            },
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        vec![entrant("10", 10), entrant("100,000", 100_000)]
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let took: Took = changes(at, true, None).await?.counted().await?;
        Ok([took.server, took.frontend, took.put].concat())
    }
}

#[async_trait(?Send)]
impl Scenario for UnderLoad {
    fn about(&self) -> About {
        About {
            id: "s10-load",
            title: "1,000 changes a second in etcd, small bodies, 64 kept connections, with as many frontends",
            figures: const {
                &[
                    Figure { name: "changes/s", digits: 0, compared: false },
                    Figure { name: "put → served p50 ms", digits: 2, compared: false },
                    Figure { name: "p99 ms", digits: 2, compared: false },
                    Figure { name: "throughput lost %", digits: 1, compared: false },
                    Figure { name: "failed requests", digits: 0, compared: false },
                    Figure { name: "put alone p50 ms", digits: 2, compared: false },
                    Figure { name: "p99 ms", digits: 2, compared: false },
                ]
            },
            targets: const {
                &[
                    most("10", 2, 20.0),
                    most("10", 3, 5.0),
                    most("10", 4, 0.0),
                    most("100,000", 2, 20.0),
                    most("100,000", 3, 5.0),
                    most("100,000", 4, 0.0),
                ]
            },
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        vec![entrant("10", 10), entrant("100,000", 100_000)]
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let dir = at.bed.directory("load")?;
        let run = async |seconds| SMALL.count(at.bed.cores.load, at.peer, seconds, &dir).await;
        run(1).await?;
        let elsewhere = changes(at, false, Some(RATE)).await?;
        let before = run(at.seconds).await?;
        let alone: Took = elsewhere.counted().await?;
        let here = changes(at, true, Some(RATE)).await?;
        let meanwhile = run(at.seconds).await?;
        let took: Took = here.counted().await?;
        let kept = meanwhile.requests as f64
            / meanwhile.duration.as_secs_f64()
            / (before.requests as f64 / before.duration.as_secs_f64());
        Ok(vec![
            took.made as f64 / took.seconds,
            took.server[0].max(took.frontend[0]),
            took.server[1].max(took.frontend[1]),
            (1.0 - kept) * 100.0,
            (before.failed + meanwhile.failed) as f64,
            alone.put[0],
            alone.put[1],
        ])
    }
}

fn entrant(name: &'static str, frontends: usize) -> Entrant {
    let etna = Etna { frontends, store: Store::Etcd, ..Etna::default() };
    Entrant { name, peer: Kind::Etna, setup: Setup { etna, ..Setup::default() } }
}

const fn most(entrant: &'static str, figure: usize, most: f64) -> Target {
    Target { entrant, figure, of: Of::Value, most }
}

/// Changes what the proxy follows, or what nobody does.
async fn changes(at: &Place<'_>, followed: bool, rate: Option<u32>) -> anyhow::Result<Driver> {
    let order = Changes {
        store: if followed { at.bed.store(&at.entrant.setup, "".as_ref()).await? } else { at.bed.other_store()? },
        proxy: followed.then_some(at.peer.address),
        servers: [(at.bed.public(&at.entrant.setup)[0], "public".to_owned()), (at.bed.admin, "admin".to_owned())],
        frontends: at.entrant.setup.etna.frontends,
        rate,
        seconds: at.seconds,
    };
    Driver::start(at.bed.cores.load, &Order::Changes(order)).await
}

const RATE: u32 = 1000;
