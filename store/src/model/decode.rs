//! From one key and its value to what it says, alone: without the model, and without any other key.

use std::sync::Arc;

use super::legacy;
use crate::key::{self, Key};
use crate::object::{Backend, Frontend, FrontendSettings, Host, Listener, Middleware, Server, Site};
use crate::problem::{Flaw, Problem};

/// What one value says.
#[derive(Clone, Debug)]
pub(super) enum Good {
    Host(Arc<Host>),
    Listener(Arc<Listener>),
    Backend(Arc<Backend>),
    Server(Arc<Server>),
    Frontend(Arc<Frontend>),
    Middleware(Arc<Middleware>),
    Site(Arc<Site>),
    /// A legacy location's condition, as a rule without its host.
    Path(Arc<String>),
    /// The backend a legacy location leads to.
    Target(Arc<String>),
    Options(Arc<FrontendSettings>),
    HostDefault(bool),
    KeyPair(Arc<Vec<u8>>),
}

/// What the model would say about a key and its value, were it stored: for checking before storing. `Ok` are remarks
/// about settings that are not in force; `Err` is why the value would not be taken.
pub fn check(raw: &[u8], value: &[u8]) -> Result<Vec<Problem>, Problem> {
    let refused = |flaw: Flaw| flaw.into_problem(key::show(raw), "refused");
    let key = Key::parse(raw).map_err(|error| refused(Flaw::new(error.to_string(), error.hint())))?;
    let mut notes = Vec::new();
    if key.object().is_some() {
        decode(&key, value, &mut notes).map_err(refused)?;
    }
    Ok(notes.into_iter().map(|note| note.into_problem(key::show(raw), "ignored")).collect())
}

pub(super) fn decode(key: &Key, value: &[u8], notes: &mut Vec<Flaw>) -> Result<Good, Flaw> {
    Ok(match key {
        Key::Host(name) => Good::Host(Host::decode(name.clone(), value, notes)?.into()),
        Key::Listener(id) | Key::LegacyListener(_, id) => {
            Good::Listener(Listener::decode(id.clone(), value, notes)?.into())
        }
        Key::Backend(id) => Good::Backend(Backend::decode(id.clone(), value, notes)?.into()),
        Key::Server(_, id) => Good::Server(Server::decode(id.clone(), value, notes)?.into()),
        Key::Frontend(id) => Good::Frontend(Frontend::decode(id.clone(), value, notes)?.into()),
        Key::Middleware(frontend, id) => {
            Good::Middleware(Middleware::decode(frontend.clone(), id.clone(), value, notes)?.into())
        }
        Key::Site(id) => Good::Site(Site::decode(id.clone(), value, notes)?.into()),
        Key::LegacyPath(host, name) => Good::Path(legacy::path(host, name, value)?.into()),
        Key::LegacyTarget(..) => Good::Target(legacy::target(value)?.into()),
        Key::LegacyOptions(..) => Good::Options(FrontendSettings::decode_legacy(value, notes)?.into()),
        Key::LegacyMiddleware { id, .. } => match key.object() {
            Some(Key::Middleware(frontend, _)) => {
                Good::Middleware(Middleware::decode(frontend, id.clone(), value, notes)?.into())
            }
            _ => return Err(no_object()),
        },
        Key::LegacyHostOptions(_) => Good::HostDefault(Host::decode_legacy_options(value)?),
        Key::LegacyKeyPair(_) => Good::KeyPair(Host::decode_legacy_key_pair(value)?.into()),
        Key::LegacyBackend(id) => Good::Backend(Backend::decode_legacy(id.clone(), value)?.into()),
        Key::LegacyServer(_, id) => Good::Server(Server::decode_legacy(id.clone(), value)?.into()),
        Key::Shared(_) => return Err(no_object()),
    })
}

fn no_object() -> Flaw {
    Flaw::new("the key holds no object", "nothing is to be done")
}
