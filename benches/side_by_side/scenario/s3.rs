//! S3: a page, whose bytes have to be moved.

use async_trait::async_trait;

use super::{CLOSED_LOOP, Entrant, Figure, Place, Scenario, Target, alike, closed_loop, ratio};
use crate::load::{Load, SMALL};
use crate::peer::{Kind, Setup};

pub(super) struct TenKilobytes;

#[async_trait(?Send)]
impl Scenario for TenKilobytes {
    fn id(&self) -> &'static str {
        "s3"
    }

    fn title(&self) -> &'static str {
        "10 KiB bodies, 64 kept connections"
    }

    fn figures(&self) -> &'static [Figure] {
        CLOSED_LOOP
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(Kind::ALL, Setup::default())
    }

    fn targets(&self) -> &'static [Target] {
        const { &[ratio(0.95)] }
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, Load { path: "/10k", ..SMALL }).await
    }
}
