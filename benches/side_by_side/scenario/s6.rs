//! S6: handshakes and nothing else. A connection each, closed by both as soon as hands are shaken.

use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Figure, Place, RSS, SPEAK_TLS, Scenario, alike, mebibytes, ratio};
use crate::peer::Setup;
use crate::tls::{Key, Shake};

/// One kind of handshake.
pub(super) struct Handshakes {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) key: Key,
    pub(super) shake: Shake,
}

/// Those that are measured. RSA's are of no interest where a session goes on: no key is used then.
pub(super) const ECDSA_13: Handshakes = Handshakes {
    id: "s6-ecdsa-13",
    title: "full handshakes, TLS 1.3, ECDSA P-256",
    key: Key::Ecdsa,
    shake: Shake { is_13: true, resumes: false },
};
pub(super) const ECDSA_12: Handshakes = Handshakes {
    id: "s6-ecdsa-12",
    title: "full handshakes, TLS 1.2, ECDSA P-256",
    shake: Shake { is_13: false, resumes: false },
    ..ECDSA_13
};
pub(super) const RSA_13: Handshakes =
    Handshakes { id: "s6-rsa-13", title: "full handshakes, TLS 1.3, RSA 2048", key: Key::Rsa, ..ECDSA_13 };
pub(super) const RSA_12: Handshakes =
    Handshakes { id: "s6-rsa-12", title: "full handshakes, TLS 1.2, RSA 2048", key: Key::Rsa, ..ECDSA_12 };
pub(super) const RESUMED_13: Handshakes = Handshakes {
    id: "s6-resumed-13",
    title: "handshakes that go on with a session, TLS 1.3",
    shake: Shake { is_13: true, resumes: true },
    ..ECDSA_13
};
pub(super) const RESUMED_12: Handshakes = Handshakes {
    id: "s6-resumed-12",
    title: "handshakes that go on with a session, TLS 1.2",
    shake: Shake { is_13: false, resumes: true },
    ..ECDSA_13
};

#[async_trait(?Send)]
impl Scenario for Handshakes {
    fn about(&self) -> About {
        About {
            id: self.id,
            title: self.title,
            figures: FIGURES,
            // 1.3 times the handshakes in the same time.
            targets: match self.key {
                Key::Ecdsa => const { &[ratio(1.0 / 1.3)] },
                Key::Rsa => &[],
            },
            quick: self.id == ECDSA_13.id,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        alike(SPEAK_TLS, Setup { key: Some(self.key), ..Setup::default() })
    }

    async fn measure(&self, at: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        let (pair, core) = (at.bed.pair(self.key), at.bed.cores.load);
        self.shake.run(core, at.peer.address, 1, pair).await?;
        let before = at.peer.process.cpu();
        let counted = self.shake.run(core, at.peer.address, at.seconds, pair).await?;
        let spent = at.peer.process.cpu().saturating_sub(before).as_secs_f64();
        let handshakes = counted.requests as f64;
        Ok(vec![
            spent * 1e6 / handshakes,
            handshakes / spent,
            handshakes / counted.duration.as_secs_f64(),
            mebibytes(&at.peer.process),
        ])
    }
}

const FIGURES: &[Figure] = &[
    Figure { name: "CPU µs/handshake", digits: 1, compared: true },
    Figure { name: "handshakes/CPU s", digits: 0, compared: false },
    Figure { name: "handshakes/s", digits: 0, compared: false },
    RSS,
];
