//! S7: HTTP/2 from clients, which share connections.

use async_trait::async_trait;

use super::{CLOSED_LOOP, Entrant, Figure, Place, Scenario, Target, alike, counted_loop, ratio};
use crate::h2load::Streams;
use crate::peer::{Kind, Setup};
use crate::tls::Key;

pub(super) struct ManyStreams;

#[async_trait(?Send)]
impl Scenario for ManyStreams {
    fn id(&self) -> &'static str {
        "s7"
    }

    fn title(&self) -> &'static str {
        "HTTP/2 over TLS, small bodies (130 bytes), 4 connections of 100 streams"
    }

    fn figures(&self) -> &'static [Figure] {
        CLOSED_LOOP
    }

    fn entrants(&self) -> Vec<Entrant> {
        let setup = Setup { key: Some(Key::Ecdsa), http2: true, ..Setup::default() };
        alike(&[Kind::Etna, Kind::Haproxy, Kind::Nginx, Kind::Caddy], setup)
    }

    fn targets(&self) -> &'static [Target] {
        const { &[ratio(0.70)] }
    }

    fn is_quick(&self) -> bool {
        true
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let load = Streams { connections: 4, streams: 100 };
        counted_loop(at, async |seconds| load.run(at.bed.cores.load, at.peer, seconds).await).await
    }
}
