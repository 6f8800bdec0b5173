//! The scenarios: one file each, listed in [`SCENARIOS`]. A scenario measures one started peer once and yields a value
//! for each of its figures; comparing, repeating and printing is not its business.

mod s1;
mod s2;
mod s3;
mod s5;
mod s6;

use async_trait::async_trait;

use crate::bed::Bed;
use crate::load::Load;
use crate::peer::{Kind, Running};
use crate::tls::Key;

/// All, in the order in which they run.
pub(crate) const SCENARIOS: &[&dyn Scenario] = &[
    &s1::SmallKeepAlive,
    &s2::ConnectionPerRequest,
    &s3::TenKilobytes,
    &s5::EncryptedKeepAlive,
    &s6::ECDSA_13,
    &s6::ECDSA_12,
    &s6::RSA_13,
    &s6::RSA_12,
    &s6::RESUMED_13,
    &s6::RESUMED_12,
];

/// Something to measure.
#[async_trait(?Send)]
pub(crate) trait Scenario {
    /// As the command line says it: `s1`.
    fn id(&self) -> &'static str;
    /// In words.
    fn title(&self) -> &'static str;
    /// What is measured. The first figure is the one that peers are compared by; less of it is better.
    fn figures(&self) -> &'static [Figure];
    /// Whether a peer can do it.
    fn suits(&self, peer: Kind) -> bool;
    /// With which key a peer is to speak TLS; none: it is measured in the clear.
    fn key(&self) -> Option<Key> {
        None
    }
    /// Measures once; a value for each figure.
    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>>;
}

/// A measured quantity.
pub(crate) struct Figure {
    /// With its unit: the column's head.
    pub(crate) name: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
}

/// Where a measurement takes place.
pub(crate) struct Place<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) peer: &'a Running,
    /// How long, in seconds.
    pub(crate) seconds: u32,
}

/// What the closed-loop scenarios measure.
const CLOSED_LOOP: &[Figure] = &[
    Figure { name: "CPU µs/request", digits: 1 },
    Figure { name: "requests/s", digits: 0 },
    Figure { name: "RSS MiB", digits: 1 },
];

/// Whether a peer is configured for TLS: those that are compared by it.
fn speaks_tls(peer: Kind) -> bool {
    matches!(peer, Kind::Etna | Kind::Haproxy | Kind::Nginx)
}

/// Runs a load for a second to warm up, then for the time of the place, and yields [`CLOSED_LOOP`].
async fn closed_loop(at: &Place<'_>, load: Load) -> anyhow::Result<Vec<f64>> {
    let dir = at.bed.directory("load")?;
    let run = async |seconds| load.run(at.bed.cores.load, at.peer, seconds, &dir).await;
    run(1).await?;
    let before = at.peer.process.cpu();
    let counted = run(at.seconds).await?;
    let spent = at.peer.process.cpu().saturating_sub(before);
    let requests = counted.requests as f64;
    Ok(vec![
        spent.as_secs_f64() * 1e6 / requests,
        requests / counted.duration.as_secs_f64(),
        at.peer.process.resident() as f64 / f64::from(1 << 20),
    ])
}
