//! S5: what most requests are, encrypted.

use async_trait::async_trait;

use super::{CLOSED_LOOP, Figure, Place, Scenario, closed_loop, speaks_tls};
use crate::load::Load;
use crate::peer::{BLOG, Kind};
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

    fn suits(&self, peer: Kind) -> bool {
        speaks_tls(peer)
    }

    fn key(&self) -> Option<Key> {
        Some(Key::Ecdsa)
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        closed_loop(at, Load { connections: 64, host: BLOG, path: "/", close: false }).await
    }
}
