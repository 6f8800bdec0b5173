//! S9: many frontends, each asked as often as any other. Etna alone: it is its own measure.

use async_trait::async_trait;

use super::{ABOUT, About, Against, Entrant, Figure, Of, Place, RSS, Scenario, Target, closed_loop};
use crate::load::{Load, SMALL};
use crate::peer::{Etna, Kind, Setup, Store};

pub(super) struct ManyFrontends;

#[async_trait(?Send)]
impl Scenario for ManyFrontends {
    fn about(&self) -> About {
        About {
            id: "s9",
            title: "small bodies (130 bytes), 64 kept connections, as many frontends; from etcd",
            figures: FIGURES,
            targets: const {
                let entrant = FRONTENDS[FRONTENDS.len() - 1].0;
                &[
                    Target { entrant, figure: 0, of: Of::Ratio, most: 1.03 },
                    Target { entrant, figure: 3, of: Of::Value, most: 2048.0 },
                ]
            },
            against: Against::Entrant(FRONTENDS[0].0),
            grows_with: Some("frontends"),
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        let entrant = |(name, frontends): &(&'static str, usize)| {
            let etna = Etna { frontends: *frontends, store: Store::Etcd, ..Etna::default() };
            Entrant { name, peer: Kind::Etna, setup: Setup { etna, ..Setup::default() } }
        };
        FRONTENDS.iter().map(entrant).collect()
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let frontends = at.entrant.setup.etna.frontends;
        let mut values = closed_loop(at, Load { frontends, ..SMALL }).await?;
        // Once all have served: what is counted for each is there, too.
        let resident = at.peer.process.resident() as f64;
        let with_few = at.bed.noted("resident", async || Ok(resident)).await?;
        let more = frontends.saturating_sub(FRONTENDS[0].1).max(1);
        values.push((resident - with_few).max(0.0) / more as f64);
        Ok(values)
    }
}

const FRONTENDS: &[(&str, usize)] = &[("10", 10), ("1,000", 1000), ("10,000", 10_000), ("100,000", 100_000)];

const FIGURES: &[Figure] = &[
    Figure { name: "CPU µs/request", digits: 1, compared: true },
    Figure { name: "requests/s", digits: 0, compared: false },
    RSS,
    Figure { name: "RSS bytes/frontend", digits: 0, compared: false },
];
