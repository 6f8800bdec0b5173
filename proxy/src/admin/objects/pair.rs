//! Key pairs that vulcand's clients send in the clear, `{"Key":"…","Cert":"…"}` in base64: sealed before anything else
//! looks at them, so that none is stored, shown, or left behind in memory of ours.
//!
//! Whether certificate and key fit is asked later, of what was sealed, as of any other.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_store::seal::{KeyPair, Keyring};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::super::reply::Refusal;

/// A host's text without a key in the clear: as it came, or with its pair sealed.
pub(super) fn without_open_key<'h>(host: &'h str, keyring: Option<&Keyring>) -> Result<Cow<'h, str>, Refusal> {
    let settings = all(host, "Settings");
    // However a reader chooses among several, none may hold a key.
    let inner = |name: &str| settings.iter().flat_map(|settings| all(settings, name)).collect::<Vec<_>>();
    let accounts = inner("AutoCert");
    if accounts.iter().flat_map(|account| all(account, "Key")).any(|key| !matches!(key, "null" | r#""""#)) {
        return Err(Refusal::bad("an account's private key would be stored in the clear: send no AutoCert.Key"));
    }
    let pairs = inner("KeyPair");
    let mut open = pairs.iter().filter(|pair| !matches!(pair.as_bytes().first(), Some(b'"' | b'n')));
    let Some(pair) = open.next() else { return Ok(Cow::Borrowed(host)) };
    if pairs.len() > 1 {
        return Err(Refusal::bad("there is more than one Settings.KeyPair: send one"));
    }
    let keyring = keyring.ok_or_else(|| {
        Refusal::bad(
            "Settings.KeyPair came in the clear, and this etna has no key to seal it with, so it is not stored: start \
             it with --seal-key FILE (`etnactl secret new-key` makes one), or send the pair sealed (`etnactl secret \
             seal-keypair`)",
        )
    })?;
    let sealed = keyring.seal(&read(pair)?).map_err(|error| Refusal::bad(format!("Settings.KeyPair: {error}")))?;
    let at = pair.as_ptr() as usize - host.as_ptr() as usize;
    let (before, after) = (&host[..at], &host[at + pair.len()..]);
    Ok(Cow::Owned(format!("{before}\"{}\"{after}", STANDARD.encode(sealed))))
}

fn read(pair: &str) -> Result<KeyPair, Refusal> {
    let part = |name: &str| {
        // What readers say of errors may quote what they read.
        let wrong = || Refusal::bad(format!("Settings.KeyPair.{name} is not PEM in standard base64"));
        let texts = all(pair, name);
        let Some(text) = texts.last() else {
            return Err(Refusal::bad(format!(
                "Settings.KeyPair has no {name}: send {{\"Key\": \"…\", \"Cert\": \"…\"}}, each PEM in base64"
            )));
        };
        let text = serde_json::from_str::<String>(text).map(Zeroizing::new).map_err(|_| wrong())?;
        // Go's decoder passes over line ends.
        let mut plain = Zeroizing::new(String::with_capacity(text.len()));
        text.split(['\r', '\n']).for_each(|line| plain.push_str(line));
        let bytes = STANDARD.decode(plain.as_bytes()).ok().filter(|bytes| !bytes.is_empty());
        bytes.map(Zeroizing::new).ok_or_else(wrong)
    };
    let (mut key, mut cert) = (part("Key")?, part("Cert")?);
    Ok(KeyPair::new(std::mem::take(&mut *cert), std::mem::take(&mut *key)))
}

/// The texts of all of an object's fields of a name, in any case; none of what is no object.
fn all<'t>(object: &'t str, name: &str) -> Vec<&'t str> {
    let entries = serde_json::from_str::<Entries<'t>>(object).map(|Entries(entries)| entries).unwrap_or_default();
    entries.into_iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.get()).collect()
}

/// An object's fields, those of equal names too.
struct Entries<'t>(Vec<(String, &'t RawValue)>);

impl<'de: 't, 't> Deserialize<'de> for Entries<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use etna_store::seal::SealKey;

    use super::*;

    fn refused(host: &str, keyring: Option<&Keyring>) -> String {
        format!("{:?}", without_open_key(host, keyring).unwrap_err())
    }

    #[test]
    fn open_pairs_are_sealed_and_all_else_stays() {
        let ring = Keyring::new(SealKey::generate().unwrap());
        let pair = format!(r#"{{"Key":"{}","cert":"{}"}}"#, STANDARD.encode("the key"), STANDARD.encode("the cert"));
        let host =
            |pair: &str| format!(r#"{{ "Name":"a", "settings":{{"Default": true,"KEYPAIR": {pair} }}, "Ours":[1] }}"#);
        let open = host(&pair);
        let sealed = without_open_key(&open, Some(&ring)).unwrap().into_owned();
        let text = serde_json::from_str::<serde_json::Value>(&sealed).unwrap()["settings"]["KEYPAIR"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(sealed, host(&format!("\"{text}\"")));
        let opened = ring.open(&STANDARD.decode(text).unwrap()).unwrap();
        assert_eq!((opened.key(), opened.cert()), (&b"the key"[..], &b"the cert"[..]));
        assert_eq!(without_open_key(&sealed, None).unwrap(), sealed);

        let without = refused(&open, None);
        assert!(without.contains("--seal-key") && !without.contains(&STANDARD.encode("the key")), "{without}");
        for closed in [r#"{"Name":"a"}"#, r#"{"Settings":null}"#, r#"{"Settings":{"KeyPair":null}}"#, "[]", "1"] {
            assert_eq!(without_open_key(closed, None).unwrap(), closed);
        }
    }

    #[test]
    fn no_key_in_the_clear_gets_by() {
        let ring = Keyring::new(SealKey::generate().unwrap());
        let pair = r#"{"Key":"aGk=","Cert":"aGk="}"#;
        for (host, reason) in [
            (r#"{"Settings":{"KeyPair":P,"KeyPair":"c2VhbGVk"}}"#, "more than one"),
            (r#"{"Settings":{"KeyPair":"c2VhbGVk","keypair":P}}"#, "more than one"),
            (r#"{"Settings":{"KeyPair":P},"settings":{"KeyPair":P}}"#, "more than one"),
            (r#"{"Settings":{"KeyPair":P},"settings":{"AutoCert":{"Key":"x"}}}"#, "AutoCert.Key"),
            (r#"{"Settings":{"autocert":{"Email":"e","key":"-----BEGIN"}}}"#, "AutoCert.Key"),
            (r#"{"Settings":{"KeyPair":{}}}"#, "has no Key"),
            (r#"{"Settings":{"KeyPair":["secret"]}}"#, "has no Key"),
            (r#"{"Settings":{"KeyPair":{"Key":"aGk="}}}"#, "has no Cert"),
            (r#"{"Settings":{"KeyPair":{"Key":"secret*","Cert":"aGk="}}}"#, "KeyPair.Key is not PEM"),
            (r#"{"Settings":{"KeyPair":{"Key":"","Cert":"aGk="}}}"#, "KeyPair.Key is not PEM"),
            (r#"{"Settings":{"KeyPair":{"Key":7,"Cert":"aGk="}}}"#, "KeyPair.Key is not PEM"),
        ] {
            let said = refused(&host.replace(":P", &format!(":{pair}")), Some(&ring));
            assert!(said.contains(reason) && !said.contains("secret*"), "{host}: {said}");
        }
        let vulcands = r#"{"Settings":{"AutoCert":{"Email":"e","Key":""}}}"#;
        assert_eq!(without_open_key(vulcands, None).unwrap(), vulcands);
    }
}
