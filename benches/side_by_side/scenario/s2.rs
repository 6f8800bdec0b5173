//! S2: clients that keep nothing. Connections to the servers are kept, so the relay, which has no pool, is no floor.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Place, Scenario, alike, closed_loop, ratio};
use crate::load::{Load, SMALL};
use crate::peer::{Kind, Setup};

pub(super) struct ConnectionPerRequest;

#[async_trait(?Send)]
impl Scenario for ConnectionPerRequest {
    fn about(&self) -> About {
        About {
            id: "s2",
            title: "small bodies (130 bytes), a new connection for each request, 64 at a time",
            targets: const { &[ratio(0.90)] },
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(&[Kind::Etna, Kind::Haproxy, Kind::Nginx, Kind::Caddy], Setup::default())
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, Load { close: true, ..SMALL }).await
    }
}
