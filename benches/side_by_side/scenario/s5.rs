//! S5: what most requests are, encrypted.

use async_trait::async_trait;

use super::{CLOSED_LOOP, Entrant, Figure, Place, SPEAK_TLS, Scenario, Target, alike, closed_loop, ratio};
use crate::load::SMALL;
use crate::peer::Setup;
use crate::tls::Key;

pub(super) struct EncryptedKeepAlive;

#[async_trait(?Send)]
impl Scenario for EncryptedKeepAlive {
    fn id(&self) -> &'static str {
        "s5"
    }

    fn title(&self) -> &'static str {
        "HTTPS (TLS 1.3, AES-256-GCM), small bodies (130 bytes), 64 kept connections"
    }

    fn figures(&self) -> &'static [Figure] {
        CLOSED_LOOP
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(SPEAK_TLS, Setup { key: Some(Key::Ecdsa), ..Setup::default() })
    }

    fn targets(&self) -> &'static [Target] {
        const { &[ratio(0.95)] }
    }

    fn is_quick(&self) -> bool {
        true
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, SMALL).await
    }
}
