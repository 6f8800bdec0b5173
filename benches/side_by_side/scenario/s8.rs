//! S8: clients that are there and ask nothing. What a connection that has been used once costs while it waits.
//!
//! No floor: a relay would hold a connection to a server for each.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Figure, Of, Place, SPEAK_TLS, Scenario, Target, alike, ratio};
use crate::drive::hold::Hold;
use crate::drive::{Driver, Order};
use crate::limits;
use crate::peer::{BLOG, Kind, Setup};
use crate::tls::Key;

/// In the clear, or not.
pub(super) struct IdleConnections {
    id: &'static str,
    title: &'static str,
    key: Option<Key>,
    targets: &'static [Target],
}

pub(super) const PLAIN: IdleConnections = IdleConnections {
    id: "s8-plain",
    title: "10,000 idle connections",
    key: None,
    targets: &[ratio(2.0), a_connection(4096.0)],
};
pub(super) const SECURE: IdleConnections = IdleConnections {
    id: "s8-tls",
    title: "10,000 idle connections, TLS 1.3",
    key: Some(Key::Ecdsa),
    targets: &[ratio(2.0), a_connection(16384.0)],
};

const fn a_connection(most: f64) -> Target {
    Target { entrant: "etna", figure: 1, of: Of::Value, most }
}

#[async_trait(?Send)]
impl Scenario for IdleConnections {
    fn about(&self) -> About {
        About { id: self.id, title: self.title, figures: FIGURES, targets: self.targets, most_rounds: 3, ..ABOUT }
    }

    fn entrants(&self) -> Vec<Entrant> {
        let peers = if self.key.is_some() { SPEAK_TLS } else { &[Kind::Etna, Kind::Haproxy, Kind::Nginx, Kind::Caddy] };
        alike(peers, Setup { key: self.key, ..Setup::default() })
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        limits::allow(CONNECTIONS)?;
        let hold = async |connections: usize| {
            let order = Hold {
                to: at.peer.address,
                host: BLOG.to_owned(),
                connections,
                roots: self.key.map(|key| at.bed.pair(key).certificate.clone()),
            };
            Driver::start(at.bed.cores.load, &Order::Hold(order)).await
        };
        // What the first connections take has nothing to do with how many come.
        hold(WARM).await?.end().await?;
        tokio::time::sleep(SETTLED).await;
        let before = at.peer.process.resident();
        let mut held = hold(CONNECTIONS).await?;
        tokio::time::sleep(SETTLED).await;
        let with_them = at.peer.process.resident();
        held.check().await.context("not all are held")?;
        let each = with_them.saturating_sub(before) as f64 / CONNECTIONS as f64;
        Ok(vec![with_them as f64 / f64::from(1 << 20), each])
    }
}

const CONNECTIONS: usize = 10_000;
const WARM: usize = 64;
/// After that, whoever gives back what a waiting connection does not need has done so.
const SETTLED: Duration = Duration::from_secs(3);

const FIGURES: &[Figure] = &[
    Figure { name: "RSS MiB", digits: 1, compared: true },
    Figure { name: "bytes/connection", digits: 0, compared: false },
];
