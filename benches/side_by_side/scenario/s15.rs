//! S15: WebSockets that talk. Past the handshake no byte of theirs concerns a proxy.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Figure, Place, RSS, Scenario, alike, mebibytes, ratio};
use crate::drive::sockets::{Echoed, Sockets};
use crate::drive::{Driver, Order};
use crate::peer::{BLOG, Kind, Servers, Setup};

pub(super) struct Echo;

#[async_trait(?Send)]
impl Scenario for Echo {
    fn about(&self) -> About {
        About {
            id: "s15",
            title: "WebSocket echo, messages of 64 bytes, 1,000 connections",
            figures: const {
                &[
                    Figure { name: "CPU µs/message", digits: 1, compared: true },
                    Figure { name: "messages/s", digits: 0, compared: false },
                    RSS,
                ]
            },
            targets: const { &[ratio(1.0)] },
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(Kind::ALL, Setup { websocket: true, servers: Servers::Ours(2), ..Setup::default() })
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let (to, host) = (at.peer.address, BLOG.to_owned());
        let order = Order::Sockets(Sockets { to, host, connections: 1000, seconds: at.seconds });
        let driver = Driver::start(at.bed.cores.load, &order).await?;
        let before = at.peer.process.cpu();
        let echoed: Echoed = driver.counted().await?;
        let spent = at.peer.process.cpu().saturating_sub(before);
        let messages = echoed.messages as f64;
        Ok(vec![spent.as_secs_f64() * 1e6 / messages, messages / echoed.seconds, mebibytes(&at.peer.process)])
    }
}
