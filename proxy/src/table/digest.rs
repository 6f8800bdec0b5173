//! What every request asks of a frontend's settings, copied out of what is stored of it.
//!
//! Among many frontends what is stored of one is in no cache: each look at it is a wait for memory. What few frontends
//! set is not copied; that one sets nothing of it is.

use std::time::Duration;

use etna_store::object::{HttpsMode, OnClientAbort};

use super::Frontend;
use crate::backend::{hash, sticky};
use crate::message::fields::Fields;

/// The settings that every request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Digest {
    /// What happens to requests in the clear.
    pub https: HttpsMode,
    /// What happens upstream when the client leaves before the answer.
    pub on_client_abort: OnClientAbort,
    /// Whether any client's `X-Forwarded-*` is kept.
    pub trust_forward_header: bool,
    /// Whether servers see the client's `Host`.
    pub pass_host_header: bool,
    /// Whether anything is set of what few set.
    has_rare: bool,
}

impl Digest {
    pub(super) fn of(spec: &etna_store::Frontend) -> Digest {
        let settings = &spec.settings;
        Digest {
            https: spec.https,
            on_client_abort: spec.on_client_abort,
            trust_forward_header: settings.trust_forward_header,
            pass_host_header: settings.pass_host_header,
            has_rare: spec.session.is_some()
                || spec.answer_within.is_some()
                || spec.hsts > 0
                || settings.limits.max_body_bytes.is_some()
                || settings.hostname.is_some(),
        }
    }
}

impl Frontend {
    /// What a request hashes to that belongs to a session of the application's.
    pub fn session(&self, fields: &Fields) -> Option<u64> {
        Some(hash::bytes(sticky::cookie_value(fields, self.rare()?.session?)?))
    }

    /// How long its servers have to begin an answer where their backend does not say.
    pub fn answer_within(&self) -> Option<Duration> {
        self.rare()?.answer_within
    }

    /// For how many seconds browsers are told to come by https only; 0: nothing is said.
    pub fn hsts(&self) -> u32 {
        self.rare().map_or(0, |spec| spec.hsts)
    }

    /// Longest request body in bytes.
    pub fn max_body_bytes(&self) -> Option<u64> {
        self.rare()?.settings.limits.max_body_bytes
    }

    /// What servers are told as `X-Forwarded-Server`.
    pub fn server_name(&self) -> Option<&str> {
        self.rare()?.settings.hostname.as_deref()
    }

    /// Where to look for what few frontends set, if this one sets any of it. All that is read of it above, [`Digest::of`]
    /// asks for.
    fn rare(&self) -> Option<&etna_store::Frontend> {
        self.digest.has_rare.then_some(&*self.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_rare_is_looked_for() {
        let plain = etna_store::Frontend::new("f".into(), "r", "b".into());
        assert!(!Digest::of(&plain).has_rare);
        let rare: [fn(&mut etna_store::Frontend); 5] = [
            |spec| spec.session = Some("session"),
            |spec| spec.answer_within = Some(Duration::ZERO),
            |spec| spec.hsts = 1,
            |spec| spec.settings.limits.max_body_bytes = Some(0),
            |spec| spec.settings.hostname = Some(String::new()),
        ];
        for set in rare {
            let mut spec = plain.clone();
            set(&mut spec);
            assert!(Digest::of(&spec).has_rare, "{spec:?}");
        }
    }
}
