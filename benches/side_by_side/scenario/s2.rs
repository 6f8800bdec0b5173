//! S2: clients that keep nothing. Connections to the servers are kept, so the relay, which has no pool, is no floor.

use async_trait::async_trait;

use super::{CLOSED_LOOP, Figure, Place, Scenario, closed_loop};
use crate::load::Load;
use crate::peer::{BLOG, Kind};

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

    fn suits(&self, peer: Kind) -> bool {
        peer != Kind::Floor
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, Load { connections: 64, host: BLOG, path: "/", close: true }).await
    }
}
