//! S4: bodies so big that only moving them counts.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Figure, Place, RSS, Scenario, alike, mebibytes, ratio};
use crate::drive::bulk::{Bulk, Moved};
use crate::drive::{Driver, Order};
use crate::peer::{BLOG, Kind, Servers, Setup};

/// One direction.
pub(super) struct BigBodies {
    id: &'static str,
    title: &'static str,
    path: &'static str,
    upload: u64,
    servers: Servers,
}

pub(super) const DOWNLOAD: BigBodies = BigBodies {
    id: "s4-down",
    title: "downloads of 10 MiB, 8 at a time",
    path: "/10m",
    upload: 0,
    servers: Servers::Nginx,
};
/// nginx as a server answers before it has read what it does not need.
pub(super) const UPLOAD: BigBodies = BigBodies {
    id: "s4-up",
    title: "uploads of 10 MiB, 8 at a time",
    path: "/",
    upload: 10 << 20,
    servers: Servers::Ours(2),
};

#[async_trait(?Send)]
impl Scenario for BigBodies {
    fn about(&self) -> About {
        About { id: self.id, title: self.title, figures: FIGURES, targets: const { &[ratio(0.80)] }, ..ABOUT }
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(Kind::ALL, Setup { servers: self.servers, ..Setup::default() })
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let bulk = Bulk {
            to: at.peer.address,
            host: BLOG.to_owned(),
            path: self.path.to_owned(),
            upload: self.upload,
            connections: 8,
            seconds: at.seconds,
        };
        let driver = Driver::start(at.bed.cores.load, &Order::Bulk(bulk)).await?;
        let before = at.peer.process.cpu();
        let moved: Moved = driver.counted().await?;
        let spent = at.peer.process.cpu().saturating_sub(before);
        let mib = moved.bytes as f64 / f64::from(1 << 20);
        Ok(vec![spent.as_secs_f64() * 1e6 / mib, mib / moved.seconds, mebibytes(&at.peer.process)])
    }
}

const FIGURES: &[Figure] = &[
    Figure { name: "CPU µs/MiB", digits: 0, compared: true },
    Figure { name: "MiB/s", digits: 0, compared: false },
    RSS,
];
