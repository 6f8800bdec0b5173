//! The scenarios: one file each, listed in [`SCENARIOS`]. A scenario measures one started entrant once and yields a
//! value for each of its figures; comparing, repeating and printing is not its business.

mod growth;
mod s1;
mod s10;
mod s11;
mod s12;
mod s14;
mod s15;
mod s2;
mod s3;
mod s4;
mod s5;
mod s6;
mod s7;
mod s8;
mod s9;

use async_trait::async_trait;

use crate::bed::Bed;
use crate::load::{Counted, Load};
use crate::peer::{Kind, Running, Setup};
use crate::process::Process;

/// All, in the order in which they run.
pub(crate) const SCENARIOS: &[&dyn Scenario] = &[
    &s1::SmallKeepAlive,
    &s2::ConnectionPerRequest,
    &s3::TenKilobytes,
    &s4::DOWNLOAD,
    &s4::UPLOAD,
    &s5::EncryptedKeepAlive,
    &s6::ECDSA_13,
    &s6::ECDSA_12,
    &s6::RSA_13,
    &s6::RSA_12,
    &s6::RESUMED_13,
    &s6::RESUMED_12,
    &s7::ManyStreams,
    &s8::PLAIN,
    &s8::SECURE,
    &s9::ManyFrontends,
    &s10::OneAtATime,
    &s10::UnderLoad,
    &s11::FAST,
    &s11::SLOWLY,
    &s12::Features,
    &s14::ColdStart,
    &s15::Echo,
    &growth::SERVERS,
    &growth::CONNECTIONS,
    &growth::WORKERS,
];

/// Something to measure.
#[async_trait(?Send)]
pub(crate) trait Scenario {
    /// What is said of it.
    fn about(&self) -> About;
    /// Who is measured: the lines of the table, in the order in which a round runs them.
    fn entrants(&self) -> Vec<Entrant>;
    /// Starts an entrant and measures it once.
    async fn run(&self, bed: &Bed, entrant: &Entrant, seconds: u32) -> anyhow::Result<Vec<f64>> {
        let running = entrant.peer.start(bed, &entrant.setup).await?;
        let measured = self.measure(&Place { bed, entrant, peer: &running, seconds }).await;
        running.process.end().await;
        measured
    }
    /// Measures once; a value for each figure.
    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>>;
}

/// What is said of a scenario.
#[derive(Clone, Copy)]
pub(crate) struct About {
    /// As the command line says it: `s1`.
    pub(crate) id: &'static str,
    /// In words.
    pub(crate) title: &'static str,
    /// What is measured. Less of what is compared is better.
    pub(crate) figures: &'static [Figure],
    /// With whom entrants are compared.
    pub(crate) against: Against,
    /// What has to come out.
    pub(crate) targets: &'static [Target],
    /// What its entrants have more and more of, where that is what they differ in; their names are numbers then.
    pub(crate) grows_with: Option<&'static str>,
    /// Whether `--quick` measures it.
    pub(crate) quick: bool,
    /// More rounds say no more.
    pub(crate) most_rounds: u32,
}

/// What holds where nothing else is said.
const ABOUT: About = About {
    id: "",
    title: "",
    figures: CLOSED_LOOP,
    against: Against::BestRival,
    targets: &[],
    grows_with: None,
    quick: false,
    most_rounds: u32::MAX,
};

/// Who is measured: a line of a scenario's table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrant {
    /// The line's name; a peer's, or what is different about Etna.
    pub(crate) name: &'static str,
    /// Who.
    pub(crate) peer: Kind,
    /// How it is set up.
    pub(crate) setup: Setup,
}

/// Some peers, all set up alike.
fn alike(peers: &[Kind], setup: Setup) -> Vec<Entrant> {
    peers.iter().map(|peer| Entrant { name: peer.name(), peer: *peer, setup }).collect()
}

/// With whom the entrants of a scenario are compared, round by round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// With the best of HAProxy, nginx and Caddy.
    BestRival,
    /// With one entrant.
    Entrant(&'static str),
}

/// What has to come out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Whose figure.
    pub(crate) entrant: &'static str,
    /// Which, by number.
    pub(crate) figure: usize,
    /// The figure itself, or compared.
    pub(crate) of: Of,
    /// It has to be so much at most.
    pub(crate) most: f64,
}

/// What a target is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The figure itself.
    Value,
    /// How it compares.
    Ratio,
}

/// Etna's first figure, compared.
const fn ratio(most: f64) -> Target {
    Target { entrant: "etna", figure: 0, of: Of::Ratio, most }
}

/// A measured quantity.
pub(crate) struct Figure {
    /// With its unit: the column's head.
    pub(crate) name: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// Whether entrants are compared by it.
    pub(crate) compared: bool,
}

/// Where a measurement takes place.
pub(crate) struct Place<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) entrant: &'a Entrant,
    pub(crate) peer: &'a Running,
    /// How long, in seconds.
    pub(crate) seconds: u32,
}

/// What the closed-loop scenarios measure.
const CLOSED_LOOP: &[Figure] = &[
    Figure { name: "CPU µs/request", digits: 1, compared: true },
    Figure { name: "requests/s", digits: 0, compared: false },
    RSS,
];

const RSS: Figure = Figure { name: "RSS MiB", digits: 1, compared: false };

/// Those that are compared by TLS.
const SPEAK_TLS: &[Kind] = &[Kind::Etna, Kind::Haproxy, Kind::Nginx];

/// Runs a load for a second to warm up, then for the time of the place, and yields [`CLOSED_LOOP`].
async fn closed_loop(at: &Place<'_>, load: Load<'_>) -> anyhow::Result<Vec<f64>> {
    let dir = at.bed.directory("load")?;
    counted_loop(at, async |seconds| load.run(at.bed.cores.load, at.peer, seconds, &dir).await).await
}

/// The same with a load that counts its requests in its own way.
async fn counted_loop(at: &Place<'_>, run: impl AsyncFn(u32) -> anyhow::Result<Counted>) -> anyhow::Result<Vec<f64>> {
    run(1).await?;
    let before = at.peer.process.cpu();
    let counted = run(at.seconds).await?;
    let spent = at.peer.process.cpu().saturating_sub(before);
    let requests = counted.requests as f64;
    Ok(vec![
        spent.as_secs_f64() * 1e6 / requests,
        requests / counted.duration.as_secs_f64(),
        mebibytes(&at.peer.process),
    ])
}

fn mebibytes(process: &Process) -> f64 {
    process.resident() as f64 / f64::from(1 << 20)
}
