//! S1: what most requests are.

use async_trait::async_trait;

use super::{CLOSED_LOOP, Entrant, Figure, Place, Scenario, Target, alike, closed_loop, ratio};
use crate::load::SMALL;
use crate::peer::{Kind, Setup};

pub(super) struct SmallKeepAlive;

#[async_trait(?Send)]
impl Scenario for SmallKeepAlive {
    fn id(&self) -> &'static str {
        "s1"
    }

    fn title(&self) -> &'static str {
        "small bodies (130 bytes), 64 kept connections"
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

    fn is_quick(&self) -> bool {
        true
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, SMALL).await
    }
}
