//! S5: what most requests are, encrypted.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Place, SPEAK_TLS, Scenario, alike, closed_loop, ratio};
use crate::load::SMALL;
use crate::peer::Setup;
use crate::tls::Key;

pub(super) struct EncryptedKeepAlive;

#[async_trait(?Send)]
impl Scenario for EncryptedKeepAlive {
    fn about(&self) -> About {
        About {
            id: "s5",
            title: "HTTPS (TLS 1.3, AES-256-GCM), small bodies (130 bytes), 64 kept connections",
            targets: const { &[ratio(0.95)] },
            quick: true,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(SPEAK_TLS, Setup { key: Some(Key::Ecdsa), ..Setup::default() })
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, SMALL).await
    }
}
