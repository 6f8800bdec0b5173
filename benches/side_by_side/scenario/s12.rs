//! S12: what features cost that users turn on. Etna alone, compared with S1.

use async_trait::async_trait;

use super::{ABOUT, About, Against, Entrant, Of, Place, Scenario, Target, closed_loop};
use crate::http;
use crate::load::{Load, SMALL};
use crate::peer::{BLOG, Etna, Kind, Setup, With};

pub(super) struct Features;

#[async_trait(?Send)]
impl Scenario for Features {
    fn about(&self) -> About {
        About {
            id: "s12",
            title: "S1 with more turned on",
            targets: &TARGETS,
            against: Against::Entrant(ON[0].0),
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        let entrant = |(name, with): &(&'static str, With)| {
            let etna = Etna { with: *with, ..Etna::default() };
            Entrant { name, peer: Kind::Etna, setup: Setup { etna, ..Setup::default() } }
        };
        ON.iter().map(entrant).collect()
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        // As a browser does that was here before: it sends the cookie back.
        let cookie = http::get(at.peer.address, BLOG, "/").await?.cookie;
        anyhow::ensure!(cookie.is_some() == (at.entrant.setup.etna.with == With::Site), "a cookie was set, or was not");
        closed_loop(at, Load { cookie: cookie.as_deref(), ..SMALL }).await
    }
}

/// What is on, compared with the first. What one flag turns on is a line here.
const ON: &[(&str, With)] = &[
    ("nothing", With::Flags(&[])),
    ("JSON access log", With::Flags(&["--access-log", "access.log"])),
    ("rate and connection limits", With::Limits),
    ("WordPress site, sticky, server limit", With::Site),
];

/// One for each but the first.
const TARGETS: [Target; ON.len() - 1] = {
    let mut targets = [Target { entrant: "", figure: 0, of: Of::Ratio, most: 1.15 }; ON.len() - 1];
    let mut number = 0;
    while number < targets.len() {
        targets[number].entrant = ON[number + 1].0;
        number += 1;
    }
    targets
};
