//! S2: clients that keep nothing. Connections to the servers are kept, so the relay, which has no pool, is no floor.

use async_trait::async_trait;

use super::{CLOSED_LOOP, Entrant, Figure, Place, Scenario, Target, alike, closed_loop, ratio};
use crate::load::{Load, SMALL};
use crate::peer::{Kind, Setup};

pub(super) struct ConnectionPerRequest;

#[async_trait(?Send)]
impl Scenario for ConnectionPerRequest {
    fn id(&self) -> &'static str {
        "s2"
    }

    fn title(&self) -> &'static str {
        "small bodies (130 bytes), a new connection for each request, 64 at a time"
    }

    fn figures(&self) -> &'static [Figure] {
        CLOSED_LOOP
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(&[Kind::Etna, Kind::Haproxy, Kind::Nginx, Kind::Caddy], Setup::default())
    }

    fn targets(&self) -> &'static [Target] {
        const { &[ratio(0.90)] }
    }

    fn is_quick(&self) -> bool {
        true
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, Load { close: true, ..SMALL }).await
    }
}
