//! Who is measured when: for each scenario A B C, A B C, …, so that what the machine does meanwhile hits all alike.

use std::io::Write as _;

use anyhow::Context as _;

use crate::bed::Bed;
use crate::cli::Plan;
use crate::peer::Kind;
use crate::scenario::{Place, Scenario};

/// Everything that was measured.
pub(crate) struct Done {
    /// Peers that were there, with what they say of their version.
    pub(crate) peers: Vec<(Kind, String)>,
    pub(crate) scenarios: Vec<Measured>,
}

/// One scenario's samples.
pub(crate) struct Measured {
    pub(crate) scenario: &'static dyn Scenario,
    /// By peer, in the order of the rounds.
    pub(crate) rows: Vec<Row>,
}

/// One peer's samples in a scenario.
pub(crate) struct Row {
    pub(crate) peer: Kind,
    /// Round by round a value for each figure, or why there is none.
    pub(crate) samples: Vec<Result<Vec<f64>, String>>,
}

/// Measures as planned.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Done> {
    let peers = installed(plan)?;
    let mut scenarios = Vec::new();
    for scenario in &plan.scenarios {
        let suited = peers.iter().filter(|(peer, _)| scenario.suits(*peer));
        let mut rows: Vec<Row> = suited.map(|(peer, _)| Row { peer: *peer, samples: Vec::new() }).collect();
        let bed = Bed::start(plan.cores, &plan.etna).await?;
        for round in 1..=plan.rounds {
            for row in &mut rows {
                say(&format!("{} round {round}/{}: {:<8}", scenario.id(), plan.rounds, row.peer.name()));
                let sample =
                    measure(*scenario, row.peer, &bed, plan.seconds).await.map_err(|error| format!("{error:#}"));
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

async fn measure(scenario: &dyn Scenario, peer: Kind, bed: &Bed, seconds: u32) -> anyhow::Result<Vec<f64>> {
    let running = peer.start(bed, scenario.key()).await?;
    let measured = scenario.measure(&Place { bed, peer: &running, seconds }).await;
    running.process.end().await;
    measured
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
        Kind::Etna => format!(" ({}): cargo build --release -p etna-proxy, or say --etna FILE", plan.etna.display()),
        Kind::Haproxy | Kind::Nginx | Kind::Caddy | Kind::Floor => ": scripts/install-deps.sh bench".to_owned(),
    }
}

fn shown(scenario: &dyn Scenario, values: &[f64]) -> String {
    let figures = scenario.figures().iter().zip(values);
    let parts: Vec<String> =
        figures.map(|(figure, value)| format!("{value:.*} {}", figure.digits, figure.name)).collect();
    parts.join(", ") + "\n"
}

/// Progress is for whoever waits; it is no part of the result.
fn say(text: &str) {
    let mut out = std::io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
