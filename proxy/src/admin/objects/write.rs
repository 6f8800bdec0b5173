//! Writing objects: the envelope is opened, the object checked, committed, and answered once it is in force.
//!
//! What is stored is what the client sent, so that fields another program knows and we do not are kept; but for a host's
//! key pair in the clear, which is sealed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use etna_store::object::Id;
use etna_store::seal::Keyring;
use etna_store::{Compare, Key, Model, Op, Revision, Txn};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use zeroize::Zeroize as _;

use super::super::audit::Touched;
use super::super::reply::{self, Refusal};
use super::{Answer, check::check, pair, shape};
use crate::control::State;

/// What vulcand's API can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// `{"Backend": …}`
    Backend,
    /// `{"Server": …, "TTL": …}`, in a backend
    Server,
    /// `{"Frontend": …, "TTL": …}`
    Frontend,
    /// `{"Middleware": …, "TTL": …}`, of a frontend
    Middleware,
    /// `{"Host": …}`
    Host,
    /// `{"Listener": …}`
    Listener,
}

impl Noun {
    fn name(self) -> &'static str {
        match self {
            Noun::Backend => "Backend",
            Noun::Server => "Server",
            Noun::Frontend => "Frontend",
            Noun::Middleware => "Middleware",
            Noun::Host => "Host",
            Noun::Listener => "Listener",
        }
    }

    fn key(self, parent: Id, id: Id) -> Key {
        match self {
            Noun::Backend => Key::Backend(id),
            Noun::Server => Key::Server(parent, id),
            Noun::Frontend => Key::Frontend(id),
            Noun::Middleware => Key::Middleware(parent, id),
            Noun::Host => Key::Host(id.to_lowercase().into()),
            Noun::Listener => Key::Listener(id),
        }
    }

    fn can_expire(self) -> bool {
        matches!(self, Noun::Server | Noun::Frontend | Noun::Middleware)
    }
}

/// An object that a client sent, and that would be served as written.
pub struct Checked {
    /// Where it goes.
    pub key: Key,
    /// What is stored: its JSON as it came, a host's key pair sealed.
    pub value: Bytes,
    /// How long it lives; `None`: for ever.
    pub ttl: Option<Duration>,
    /// As the API shows it.
    pub shown: Value,
    model: Model,
}

/// Reads the envelope of an object, for a server or a middleware the one of its `parent`. Pure: whether what it names
/// exists is not asked.
pub fn read(noun: Noun, parent: &str, body: &[u8], keyring: Option<&Arc<Keyring>>) -> Result<Checked, Refusal> {
    let envelope = Envelope::open(noun, body)?;
    let key = checked_key(noun.key(parent.into(), envelope.id.as_str().into()))?;
    refuse_what_is_not_ours_to_store(noun, &envelope)?;
    let value = match noun {
        Noun::Host => pair::without_open_key(envelope.object.get(), keyring.map(|ring| &**ring))?,
        _ => Cow::Borrowed(envelope.object.get()),
    };
    let value = Bytes::copy_from_slice(value.as_bytes());
    let model = check(&key, &value, keyring)?;
    let shown = shape_of(&model, &key).unwrap_or_else(|| json!({ "Id": envelope.id }));
    Ok(Checked { key, value, ttl: envelope.ttl, shown, model })
}

/// Writes the object in an envelope, and answers with it as it is now served.
pub(super) async fn upsert(state: &Arc<State>, noun: Noun, parent: &str, body: Bytes) -> Answer {
    let checked = read(noun, parent, &body, state.keyring().as_ref());
    if noun == Noun::Host
        && let Ok(mut body) = body.try_into_mut()
    {
        // A private key may have come in it.
        body.as_mut().zeroize();
    }
    let Checked { key, value, ttl, shown, model } = checked?;
    needs(state, &key, &model).await?;
    let lease = match ttl {
        Some(ttl) => Some(state.engine.grant(ttl).await.map_err(|error| Refusal::store(&error))?),
        None => None,
    };
    commit(state, Txn { compares: Vec::new(), ops: vec![Op::Put(key.path(), value, lease)] }).await?;
    Ok(touching(&key, reply::json(&shown)))
}

/// Deletes an object and what belongs to it.
pub(super) async fn delete(state: &Arc<State>, key: Key, done: String) -> Answer {
    delete_if(state, key, Vec::new(), done).await
}

/// The same, if the conditions hold.
pub(super) async fn delete_if(state: &Arc<State>, key: Key, compares: Vec<Compare>, done: String) -> Answer {
    let key = checked_key(key)?;
    refuse_what_is_in_use(state, &key)?;
    let keys = keys_of(state, &key).await?;
    if keys.is_empty() {
        return Err(Refusal::not_found());
    }
    // One transaction, except beyond what a store takes at once; then the object itself goes in the first, so that
    // what remains for a moment serves nothing.
    let mut compares = Some(compares);
    for keys in keys.chunks(MOST_OPS) {
        let ops = keys.iter().cloned().map(Op::Delete).collect();
        commit(state, Txn { compares: compares.take().unwrap_or_default(), ops }).await?;
    }
    Ok(touching(&key, reply::json(&json!({ "message": done }))))
}

/// Commits, and waits until what was written is in force here, so that who reads next reads it.
pub(super) async fn commit(state: &Arc<State>, txn: Txn) -> Result<Revision, Refusal> {
    let revision = state.engine.commit(txn).await.map_err(|error| Refusal::store(&error))?;
    if state.store().following {
        let mut published = state.live.subscribe();
        // It is written whether or not it is seen in time: the answer is the same.
        let _ = tokio::time::timeout(LONGEST_WAIT, published.wait_for(|seen| *seen >= revision)).await;
    }
    Ok(revision)
}

/// A key that reads back as itself: ids of a client could hold a slash, and name something else.
pub(super) fn checked_key(key: Key) -> Result<Key, Refusal> {
    if Key::parse(key.path().as_bytes()).as_ref() == Ok(&key) {
        return Ok(key);
    }
    Err(Refusal::bad("an id is neither empty nor has a slash in it, and a key has at most 512 bytes"))
}

/// A response that names its key to the audit trail.
pub(super) fn touching(key: &Key, mut response: Response) -> Response {
    response.extensions_mut().insert(Touched(key.path()));
    response
}

/// What a client sent: `{"Server": {…}, "TTL": "30s"}`, names in any case.
struct Envelope<'b> {
    object: &'b RawValue,
    id: String,
    ttl: Option<Duration>,
}

impl<'b> Envelope<'b> {
    fn open(noun: Noun, body: &'b [u8]) -> Result<Envelope<'b>, Refusal> {
        let name = noun.name();
        let mut fields = fields(body).map_err(|error| Refusal::bad(format!("the body is no JSON object: {error}")))?;
        let object = take(&mut fields, name)
            .ok_or_else(|| Refusal::bad(format!("{name} is missing: send {{\"{name}\": {{…}}}}")))?;
        let mut inner = self::fields(object.get().as_bytes())
            .map_err(|error| Refusal::bad(format!("{name} is no JSON object: {error}")))?;
        let id_name = if noun == Noun::Host { "Name" } else { "Id" };
        let id = match take(&mut inner, id_name) {
            Some(id) => serde_json::from_str::<Option<String>>(id.get())
                .map_err(|_| Refusal::bad(format!("{name}.{id_name} must be a string")))?
                .unwrap_or_default(),
            None => String::new(),
        };
        if id.is_empty() {
            return Err(Refusal::bad(format!("{} {} can not be empty", name.to_lowercase(), id_name.to_lowercase())));
        }
        let ttl = match take(&mut fields, "TTL").filter(|_| noun.can_expire()) {
            Some(ttl) => time_to_live(ttl)?,
            None => None,
        };
        Ok(Envelope { object, id, ttl })
    }
}

/// Borrowed, so that what is secret in them is in memory once.
fn fields(text: &[u8]) -> Result<BTreeMap<String, &RawValue>, serde_json::Error> {
    serde_json::from_slice(text)
}

fn take<'b>(fields: &mut BTreeMap<String, &'b RawValue>, name: &str) -> Option<&'b RawValue> {
    let key = fields.keys().find(|key| key.eq_ignore_ascii_case(name))?.clone();
    fields.remove(&key).filter(|value| value.get() != "null")
}

/// A duration as Go writes it; nothing, empty and zero mean: for ever.
fn time_to_live(text: &RawValue) -> Result<Option<Duration>, Refusal> {
    let text: String =
        serde_json::from_str(text.get()).map_err(|_| Refusal::bad("TTL must be a string such as \"30s\""))?;
    if text.is_empty() {
        return Ok(None);
    }
    match etna_store::duration::parse(&text) {
        Ok(Duration::ZERO) => Ok(None),
        Ok(ttl) if ttl <= LONGEST_TTL => Ok(Some(ttl)),
        Ok(_) => Err(Refusal::bad("TTL is longer than a year: leave it out to keep the object for ever")),
        Err(error) => Err(Refusal::bad(format!("TTL is {error}: write it like \"30s\" or \"1m30s\""))),
    }
}

fn refuse_what_is_not_ours_to_store(noun: Noun, envelope: &Envelope<'_>) -> Result<(), Refusal> {
    if noun == Noun::Frontend && envelope.id.starts_with("site:") {
        return Err(Refusal::bad("ids that begin with site: belong to frontends of sites: choose another one"));
    }
    Ok(())
}

/// As vulcand: a frontend needs its backend, a middleware its frontend. (In the store itself their order is free.)
async fn needs(state: &State, key: &Key, object: &Model) -> Result<(), Refusal> {
    let (needed, known) = {
        let model = state.model();
        match key {
            Key::Frontend(id) => match object.frontend(id) {
                Some(frontend) => (Key::Backend(frontend.backend.clone()), model.backend(&frontend.backend).is_some()),
                None => return Ok(()),
            },
            Key::Middleware(frontend, _) => (Key::Frontend(frontend.clone()), model.frontend(frontend).is_some()),
            _ => return Ok(()),
        }
    };
    if known || state.engine.get(&needed.path()).await.map_err(|error| Refusal::store(&error))?.is_some() {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::NOT_FOUND, format!("{needed} does not exist: create it first")))
}

fn refuse_what_is_in_use(state: &State, key: &Key) -> Result<(), Refusal> {
    let model = state.model();
    let refuse = |message: String| Err(Refusal::new(StatusCode::CONFLICT, message));
    match key {
        Key::Backend(id) => {
            let users: Vec<&str> = model.frontends_of(id).map(|id| &**id).collect();
            if users.is_empty() {
                return Ok(());
            }
            let shown = users.iter().take(MOST_SHOWN).copied().collect::<Vec<_>>().join(" ");
            let more = if users.len() > MOST_SHOWN { " …" } else { "" };
            refuse(format!("can not delete backend '{id}', it is in use by [{shown}{more}]"))
        }
        Key::Frontend(id) => match model.frontend(id).and_then(|frontend| frontend.site.clone()) {
            Some(site) => refuse(format!("frontend '{id}' belongs to the site '{site}': change or delete the site")),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Every key of an object and of what belongs to it, in either layout and spelling, its own first.
async fn keys_of(state: &State, key: &Key) -> Result<Vec<String>, Refusal> {
    let found = state.model().entries_under(key);
    if found.is_empty() {
        let path = key.path();
        let item = state.engine.get(&path).await.map_err(|error| Refusal::store(&error))?;
        return Ok(item.map(|_| path).into_iter().collect());
    }
    let is_own = |raw: &String| Key::parse(raw.as_bytes()).ok().and_then(|raw| raw.object()).as_ref() == Some(key);
    let (mut own, mut parts): (Vec<String>, Vec<String>) = found.into_iter().partition(is_own);
    own.append(&mut parts);
    Ok(own)
}

fn shape_of(model: &Model, key: &Key) -> Option<Value> {
    Some(match key {
        Key::Backend(id) => shape::backend(model.backend(id)?),
        Key::Server(backend, id) => shape::server(model.server(backend, id)?),
        Key::Frontend(id) => shape::frontend(model.frontend(id)?),
        Key::Middleware(frontend, id) => shape::middleware(model.middlewares(frontend).find(|step| step.id == *id)?),
        Key::Host(name) => shape::host(model.host(name)?),
        Key::Listener(id) => shape::listener(model.listener(id)?),
        Key::Site(id) => shape::site(model.site(id)?),
        _ => return None,
    })
}

/// Until a write is in force here, before it is answered all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
/// etcd takes 128 operations in one transaction.
const MOST_OPS: usize = 100;
const MOST_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(noun: Noun, body: &str) -> Result<Envelope<'_>, Refusal> {
        Envelope::open(noun, body.as_bytes())
    }

    #[test]
    fn envelopes_are_read_in_any_case() {
        let envelope = open(Noun::Server, r#"{"server":{"ID":"s1","Url":"http://a:1"},"ttl":"1m30s"}"#).unwrap();
        assert_eq!((envelope.id.as_str(), envelope.ttl), ("s1", Some(Duration::from_secs(90))));
        let envelope = open(Noun::Backend, r#"{"Backend":{"Id":"b"},"TTL":"5s"}"#).unwrap();
        assert_eq!(envelope.ttl, None);
        for forever in [r#""""#, "null", r#""0s""#] {
            let body = format!(r#"{{"Server":{{"Id":"s"}},"TTL":{forever}}}"#);
            assert_eq!(open(Noun::Server, &body).unwrap().ttl, None, "{forever}");
        }
    }

    #[test]
    fn bad_envelopes_are_refused() {
        for body in [
            "",
            "[]",
            "{}",
            "{\"Server\":1}",
            "{\"Server\":{}}",
            "{\"Server\":{\"Id\":\"\"}}",
            "{\"Server\":{\"Id\":3}}",
            "{\"Backend\":{\"Id\":\"x\"}}",
            "{\"Server\":{\"Id\":\"s\"},\"TTL\":5}",
            "{\"Server\":{\"Id\":\"s\"},\"TTL\":\"5\"}",
            "{\"Server\":{\"Id\":\"s\"},\"TTL\":\"-5s\"}",
            "{\"Server\":{\"Id\":\"s\"},\"TTL\":\"99999h\"}",
        ] {
            assert!(open(Noun::Server, body).is_err(), "{body}");
        }
    }

    #[test]
    fn ids_cannot_name_another_key() {
        for id in ["a/b", "", "a/servers/b", "/"] {
            assert!(checked_key(Key::Backend(id.into())).is_err(), "{id}");
        }
        assert!(checked_key(Key::Backend("a b%2F".into())).is_ok());
        assert!(checked_key(Key::Server("b".into(), "x/../y".into())).is_err());
        assert!(checked_key(Key::Site("x".repeat(600).into())).is_err());
    }
}
