//! Who is measured when: for each scenario A B C, A B C, …, so that what the machine does meanwhile hits all alike.

use std::io::Write as _;

use anyhow::Context as _;

use crate::bed::Bed;
use crate::cli::Plan;
use crate::peer::{Kind, Setup};
use crate::scenario::{Entrant, Scenario};

/// Everything that was measured.
pub(crate) struct Done {
    /// Peers that were there, with what they say of their version.
    pub(crate) peers: Vec<(Kind, String)>,
    pub(crate) scenarios: Vec<Measured>,
}

/// One scenario's samples.
pub(crate) struct Measured {
    pub(crate) scenario: &'static dyn Scenario,
    /// By entrant, in the order of the rounds.
    pub(crate) rows: Vec<Row>,
}

/// One entrant's samples in a scenario.
pub(crate) struct Row {
    pub(crate) entrant: Entrant,
    /// Round by round a value for each figure, or why there is none.
    pub(crate) samples: Vec<Result<Vec<f64>, String>>,
}

/// Measures as planned.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Done> {
    let peers = installed(plan)?;
    let mut scenarios = Vec::new();
    for scenario in &plan.scenarios {
        let there = |entrant: &Entrant| peers.iter().any(|(peer, _)| *peer == entrant.peer);
        let entrants = scenario.entrants().into_iter().filter(there);
        let mut rows: Vec<Row> = entrants.map(|entrant| Row { entrant, samples: Vec::new() }).collect();
        if rows.is_empty() {
            continue;
        }
        let setups: Vec<Setup> = rows.iter().map(|row| row.entrant.setup).collect();
        let bed = Bed::start(plan.cores, &plan.etna, &setups).await?;
        let rounds = plan.rounds.min(scenario.about().most_rounds);
        for round in 1..=rounds {
            for row in &mut rows {
                say(&format!("{} round {round}/{rounds}: {:<8} ", scenario.about().id, row.entrant.name));
                let sample = scenario.run(&bed, &row.entrant, plan.seconds).await;
                let sample = sample.map_err(|error| format!("{error:#}"));
                say(&match &sample {
                    Ok(values) => shown(*scenario, values),
                    Err(error) => format!("FAILED: {error}\n"),
                });
                row.samples.push(sample);
            }
        }
        bed.end().await;
        scenarios.push(Measured { scenario: *scenario, rows });
    }
    Ok(Done { peers, scenarios })
}

fn installed(plan: &Plan) -> anyhow::Result<Vec<(Kind, String)>> {
    let mut peers = Vec::new();
    for peer in &plan.peers {
        match peer.version(&plan.etna) {
            Some(version) => peers.push((*peer, version)),
            None if plan.by_name => anyhow::bail!("{} is not there{}", peer.name(), remedy(*peer, plan)),
            None => say(&format!("left out: {} is not there{}\n", peer.name(), remedy(*peer, plan))),
        }
    }
    peers.first().context("there is nothing to measure")?;
    Ok(peers)
}

fn remedy(peer: Kind, plan: &Plan) -> String {
    match peer {
        Kind::Etna => format!(" ({}): make build, or say --etna FILE", plan.etna.display()),
        Kind::Haproxy | Kind::Nginx | Kind::Caddy | Kind::Floor => ": scripts/install-deps.sh bench".to_owned(),
    }
}

fn shown(scenario: &dyn Scenario, values: &[f64]) -> String {
    let figures = scenario.about().figures.iter().zip(values);
    let parts: Vec<String> =
        figures.map(|(figure, value)| format!("{value:.*} {}", figure.digits, figure.name)).collect();
    parts.join(", ") + "\n"
}

/// Progress is for whoever waits; it is no part of the result.
fn say(text: &str) {
    let mut out = std::io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
