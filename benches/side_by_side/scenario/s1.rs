//! S1: what most requests are.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Place, Scenario, alike, closed_loop, ratio};
use crate::load::SMALL;
use crate::peer::{Kind, Setup};

pub(super) struct SmallKeepAlive;

#[async_trait(?Send)]
impl Scenario for SmallKeepAlive {
    fn about(&self) -> About {
        About {
            id: "s1",
            title: "small bodies (130 bytes), 64 kept connections",
            targets: const { &[ratio(0.95)] },
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(Kind::ALL, Setup::default())
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, SMALL).await
    }
}
