//! S7: HTTP/2 from clients, which share connections.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Place, Scenario, alike, counted_loop, ratio};
use crate::h2load::Streams;
use crate::peer::{Kind, Setup};
use crate::tls::Key;

pub(super) struct ManyStreams;

#[async_trait(?Send)]
impl Scenario for ManyStreams {
    fn about(&self) -> About {
        About {
            id: "s7",
            title: "HTTP/2 over TLS, small bodies (130 bytes), 4 connections of 100 streams",
            targets: const { &[ratio(0.70)] },
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        let setup = Setup { key: Some(Key::Ecdsa), http2: true, ..Setup::default() };
        alike(&[Kind::Etna, Kind::Haproxy, Kind::Nginx, Kind::Caddy], setup)
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let load = Streams { connections: 4, streams: 100 };
        counted_loop(at, async |seconds| load.run(at.bed.cores.load, at.peer, seconds).await).await
    }
}
