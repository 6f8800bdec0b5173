//! Compiling what concerns https servers: a backend's TLS.

use std::sync::Arc;
use std::time::SystemTime;

use etna_store::object::Id;
use etna_store::{Key, Problem};

use super::compile::Compiler;
use crate::backend::Backend;
use crate::tls::certificate::Certificate;
use crate::tls::servers::ServerTls;

impl Compiler {
    /// How a backend's https servers are spoken to. Settings that cannot be used do not replace those that could.
    pub(super) fn server_tls(
        &self,
        spec: &etna_store::Backend,
        old: Option<&Backend>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<ServerTls>> {
        let known = old.and_then(|old| old.tls.as_ref());
        let mut tell = |reason: String, hint: &str, effect: &str| {
            problems.push(Problem {
                key: Key::Backend(spec.id.clone()).to_string(),
                reason,
                hint: hint.into(),
                line: None,
                column: None,
                effect: effect.into(),
            });
        };
        let client = match spec.tls.as_ref().and_then(|tls| tls.key_pair.as_deref()) {
            Some(sealed) => self.open(&spec.id, sealed).map(Some),
            None => Ok(None),
        };
        if let Ok(Some(certificate)) = &client
            && !certificate.holds(SystemTime::now())
        {
            let reason = "Settings.TLS.KeyPair: the client certificate has ended, or does not hold yet".into();
            tell(reason, "put a certificate that holds now", "it is shown to servers all the same");
        }
        // The same value as long as the settings are the same: sessions and connections go on.
        if let Some(known) = known.filter(|known| known.is_made_of(spec.tls.as_ref(), spec.protocol)) {
            if let Err((reason, hint)) = client {
                tell(format!("Settings.TLS.{reason}"), hint, LAST_GOOD);
            }
            return Some(known.clone());
        }
        let made = client.map_err(|(reason, hint)| (format!("Settings.TLS.{reason}"), hint)).and_then(|client| {
            ServerTls::of(spec.tls.as_ref(), spec.protocol, client.as_ref())
                .map_err(|error| (error.to_string(), error.hint()))
        });
        match made {
            Ok(made) => Some(Arc::new(made)),
            Err((reason, hint)) => {
                let effect = if known.is_some() { LAST_GOOD } else { "its https servers are not used" };
                tell(reason, hint, effect);
                known.cloned()
            }
        }
    }

    /// Opens a sealed key pair and reads it; otherwise what is wrong, and what helps.
    pub(super) fn open(&self, owner: &Id, sealed: &[u8]) -> Result<Certificate, (String, &'static str)> {
        let keyring = self.keyring.as_ref().ok_or((NO_SEAL_KEY.to_owned(), "start etna with --seal-key FILE"))?;
        let pair = keyring
            .open(sealed)
            .map_err(|error| (format!("KeyPair: {error}"), "seal it with the key that --seal-key names"))?;
        Certificate::read(owner.clone(), &pair)
            .map_err(|error| (format!("KeyPair: {error}"), "put a PEM certificate chain, leaf first, and its key"))
    }
}

/// Whether an https server can be used. What was meant to be encrypted never goes in the clear.
pub(super) fn is_usable(
    tls: Option<&ServerTls>,
    server: &etna_store::Server,
    backend: &Id,
    problems: &mut Vec<Problem>,
) -> bool {
    // Why there is nothing is told already.
    let Some(tls) = tls else { return false };
    let is_usable = tls.name_of(&server.host).is_some();
    if !is_usable {
        problems.push(Problem {
            key: Key::Server(backend.clone(), server.id.clone()).to_string(),
            reason: format!("no certificate can be for the host {:?}", server.host),
            hint: "say which name its certificate is for as Settings.TLS.ServerName of the backend".into(),
            line: None,
            column: None,
            effect: "the server is not used".into(),
        });
    }
    is_usable
}

const LAST_GOOD: &str = "the last good settings are used";
/// What is wrong with a key pair where nobody here can tell what is in it.
pub(crate) const NO_SEAL_KEY: &str = "KeyPair is sealed and there is no key to open it";
