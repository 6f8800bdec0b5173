//! Sealing anew what a store holds sealed, so that an old seal key can go. All else of each value stays byte for byte,
//! and what somebody else changes meanwhile is read again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etna_store::seal::{Keyring, SealError};
use etna_store::{Compare, Engine, Error, Key, Op, Txn, key};
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::store;

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Resealed {
    /// The keys whose values were sealed anew.
    pub(crate) done: Vec<String>,
    /// How many were sealed with the first key already.
    pub(crate) current: usize,
    /// Those that could not be, and why.
    pub(crate) failed: Vec<(String, String)>,
}

/// Seals with the first key whatever is sealed with another one.
pub(crate) async fn all(engine: &dyn Engine, ring: &Keyring) -> Result<Resealed, Failure> {
    let snapshot = engine.snapshot().await.map_err(|error| store::failed(engine, "cannot read", &error))?;
    let mut resealed = Resealed::default();
    for change in &snapshot.changes {
        let Some(path) = Key::parse(&change.key).ok().and_then(|key| Place::of(&key)) else { continue };
        let Ok(name) = std::str::from_utf8(&change.key) else { continue };
        match one(engine, ring, name, path).await? {
            Ok(Sealed::Anew(_)) => resealed.done.push(name.to_owned()),
            Ok(Sealed::Current) => resealed.current += 1,
            Ok(Sealed::Nothing) => {}
            Err(reason) => resealed.failed.push((key::show(&change.key), reason)),
        }
    }
    Ok(resealed)
}

async fn one(engine: &dyn Engine, ring: &Keyring, name: &str, place: Place) -> Result<Result<Sealed, String>, Failure> {
    for _ in 0..MOST_ATTEMPTS {
        let found = engine.get(name).await.map_err(|error| store::failed(engine, "cannot read", &error))?;
        let Some(item) = found else { return Ok(Ok(Sealed::Nothing)) };
        let value = match place.anew(&item.value, ring) {
            Ok(Sealed::Anew(value)) => value,
            other => return Ok(other.map_err(|error| error.to_string())),
        };
        let compares = vec![Compare::Unchanged(name.to_owned(), item.revision)];
        let ops = vec![Op::Put(name.to_owned(), value.clone(), item.lease)];
        match engine.commit(Txn { compares, ops }).await {
            Ok(_) => return Ok(Ok(Sealed::Anew(value))),
            Err(Error::Conflict | Error::LeaseLost) => {}
            Err(error) => return Err(store::failed(engine, "cannot write to", &error)),
        }
    }
    Ok(Err("somebody else changes it all the time: try again".into()))
}

/// Where in a value something sealed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A field of a JSON object, in base64.
    Field(&'static [&'static str]),
    /// The value is an envelope.
    Whole,
    /// It may be one.
    Perhaps,
}

/// What became of a value.
#[derive(Debug, PartialEq, Eq)]
enum Sealed {
    /// Nothing in it is sealed.
    Nothing,
    /// It is sealed with the first key.
    Current,
    /// The value with that sealed anew.
    Anew(Bytes),
}

impl Place {
    fn of(key: &Key) -> Option<Place> {
        match key {
            Key::Host(_) => Some(Place::Field(&["Settings", "KeyPair"])),
            Key::Backend(_) => Some(Place::Field(&["Settings", "TLS", "KeyPair"])),
            Key::LegacyKeyPair(_) => Some(Place::Whole),
            Key::Shared(_) => Some(Place::Perhaps),
            _ => None,
        }
    }

    fn anew(self, value: &[u8], ring: &Keyring) -> Result<Sealed, SealError> {
        match self {
            Place::Whole => envelope(value, ring),
            Place::Perhaps => match envelope(value, ring) {
                Err(SealError::Malformed(_)) => Ok(Sealed::Nothing),
                other => other,
            },
            Place::Field(path) => {
                let Ok(text) = std::str::from_utf8(value) else { return Ok(Sealed::Nothing) };
                // Of names that differ in case alone the last counts; it does not harm to seal all.
                let mut anew = text.to_owned();
                let mut found = Sealed::Nothing;
                for written in fields(text, path) {
                    match encoded(written, ring)? {
                        Some(replacement) => {
                            anew = anew.replacen(written, &format!("\"{replacement}\""), 1);
                            found = Sealed::Anew(anew.clone().into());
                        }
                        None if found == Sealed::Nothing => found = Sealed::Current,
                        None => {}
                    }
                }
                Ok(found)
            }
        }
    }
}

fn envelope(sealed: &[u8], ring: &Keyring) -> Result<Sealed, SealError> {
    if ring.is_of_first(sealed)? {
        return Ok(Sealed::Current);
    }
    ring.seal_bytes(&ring.open_bytes(sealed)?).map(|anew| Sealed::Anew(anew.into()))
}

/// A JSON string of an envelope in base64, sealed anew; `None` if the first key opens it.
fn encoded(written: &str, ring: &Keyring) -> Result<Option<String>, SealError> {
    let wrong = || SealError::Malformed("it is not base64 of a sealed envelope".into());
    let text: String = serde_json::from_str(written).map_err(|_| wrong())?;
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match envelope(&STANDARD.decode(text).map_err(|_| wrong())?, ring)? {
        Sealed::Anew(anew) => Ok(Some(STANDARD.encode(anew))),
        Sealed::Current | Sealed::Nothing => Ok(None),
    }
}

/// The texts of the fields at a path, whose names match in any case; not those that say nothing.
fn fields<'a>(text: &'a str, path: &[&str]) -> Vec<&'a str> {
    let [name, rest @ ..] = path else {
        return if matches!(text, "null" | r#""""#) { Vec::new() } else { vec![text] };
    };
    let Ok(entries) = serde_json::from_str::<BTreeMap<Cow<'a, str>, &'a RawValue>>(text) else { return Vec::new() };
    let same = entries.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    same.flat_map(|(_, value)| fields(value.get(), rest)).collect()
}

const MOST_ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use etna_store::engine::Options;
    use etna_store::seal::{KeyPair, SealKey};

    /// An old ring, and one of a new key and the old one.
    fn rings() -> (Keyring, Keyring) {
        let [old, new] = [(); 2].map(|()| SealKey::generate().unwrap().to_hex());
        (Keyring::parse(&old).unwrap(), Keyring::parse(&format!("{}\n{}", *new, *old)).unwrap())
    }

    #[tokio::test]
    async fn everything_sealed_is_sealed_anew_and_all_else_stays() {
        let (old, both) = rings();
        let pair = KeyPair::new(b"cert".to_vec(), b"key".to_vec());
        let envelope = old.seal(&pair).unwrap();
        let text = STANDARD.encode(&envelope);
        let host = format!("{{ \"X\":1.50, \"settings\": {{\"KEYPAIR\":\"{text}\",\"Default\":true}}}}\n");
        let backend = format!(r#"{{"Type":"http","Settings":{{"TLS":{{"KeyPair":"{text}"}}}}}}"#);
        let engine = etna_store::open("memory:", &Options::default()).await.unwrap();
        let puts = [
            ("hosts/a/host", host.clone().into_bytes()),
            ("hosts/b/host", br#"{"Settings":{"KeyPair":null}}"#.to_vec()),
            ("hosts/c/host", format!(r#"{{"Settings":{{"KeyPair":"{}"}}}}"#, STANDARD.encode("{}")).into_bytes()),
            ("hosts/d/keypair", envelope.clone()),
            ("hosts/e/host", b"no JSON".to_vec()),
            ("backends/b/backend", backend.into_bytes()),
            ("acme/account", old.seal_bytes(b"account").unwrap()),
            ("tickets/1", both.seal_bytes(b"ticket").unwrap()),
            ("proxies/p", b"{}".to_vec()),
        ];
        let ops = puts.into_iter().map(|(key, value)| Op::Put(key.into(), value.into(), None)).collect();
        engine.commit(Txn { compares: Vec::new(), ops }).await.unwrap();

        let resealed = all(&*engine, &both).await.unwrap();
        let mut done = resealed.done;
        done.sort_unstable();
        assert_eq!(done, ["acme/account", "backends/b/backend", "hosts/a/host", "hosts/d/keypair"]);
        assert_eq!((resealed.current, resealed.failed.len()), (1, 1));
        assert!(resealed.failed[0].0 == "hosts/c/host" && resealed.failed[0].1.contains("Encryption"));

        let now = String::from_utf8(engine.get("hosts/a/host").await.unwrap().unwrap().value.to_vec()).unwrap();
        let written = fields(&now, &["Settings", "KeyPair"])[0].trim_matches('"').to_owned();
        assert_eq!(now.replace(&written, &text), host);
        let first = both.is_of_first(&STANDARD.decode(written).unwrap());
        assert_eq!(first, Ok(true));

        let again = all(&*engine, &both).await.unwrap();
        assert_eq!((again.done.len(), again.current, again.failed.len()), (0, 5, 1));
        let failed = all(&*engine, &old).await.unwrap().failed;
        assert!(failed.iter().all(|(key, why)| key == "hosts/c/host" || why.contains("no key")), "{failed:?}");
        assert_eq!(failed.len(), 6);
    }
}
