//! S3: a page, whose bytes have to be moved.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Place, Scenario, alike, closed_loop, ratio};
use crate::load::{Load, SMALL};
use crate::peer::{Kind, Setup};

pub(super) struct TenKilobytes;

#[async_trait(?Send)]
impl Scenario for TenKilobytes {
    fn about(&self) -> About {
        About { id: "s3", title: "10 KiB bodies, 64 kept connections", targets: const { &[ratio(0.95)] }, ..ABOUT }
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(Kind::ALL, Setup::default())
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, Load { path: "/10k", ..SMALL }).await
    }
}
