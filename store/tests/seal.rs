//! Sealed envelopes, against ones that libsodium sealed, and against bytes that are none.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_store::seal::{KeyPair, Keyring, SealError, SealKey};
use proptest::prelude::*;
use serde::Deserialize;

/// What `seal/make.py` wrote.
#[derive(Deserialize)]
struct Vector {
    name: String,
    key: String,
    plain: String,
    envelope: String,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("seal/vectors.json")).unwrap()
}

fn ring(keys: &[&str]) -> Keyring {
    Keyring::parse(&keys.join("\n")).unwrap()
}

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

#[test]
fn what_libsodium_sealed_is_opened() {
    for vector in vectors() {
        let plain = STANDARD.decode(&vector.plain).unwrap();
        let ring = ring(&[&vector.key]);
        assert_eq!(*ring.open_bytes(vector.envelope.as_bytes()).unwrap(), plain, "{}", vector.name);
        let again = ring.seal_bytes(&plain).unwrap();
        assert_eq!(again.len(), vector.envelope.len(), "{}", vector.name);
        assert_ne!(again, vector.envelope.as_bytes(), "a nonce is used once");
        assert_eq!(*ring.open_bytes(&again).unwrap(), plain, "{}", vector.name);
    }
    let vectors = vectors();
    let pair = vectors.iter().find(|vector| vector.name == "a key pair").unwrap();
    let opened = ring(&[&pair.key]).open(pair.envelope.as_bytes()).unwrap();
    assert_eq!(opened.key(), b"the private key, as PEM\n");
    assert_eq!(opened.cert(), b"the certificate, as PEM\n");
}

#[test]
fn a_pair_is_sealed_as_vulcand_does() {
    let ring = ring(&[KEY]);
    let envelope = ring.seal(&KeyPair::new(b"cert".to_vec(), b"key".to_vec())).unwrap();
    assert_eq!(&**ring.open_bytes(&envelope).unwrap(), br#"{"Key":"a2V5","Cert":"Y2VydA=="}"#);
    let text = String::from_utf8(envelope).unwrap();
    assert!(text.starts_with(r#"{"Encryption":"secretbox.v1","Value":{"Val":""#), "{text}");
    // As Go reads it: names in any case and any order, more of them, white space.
    let (value, nonce) = text[45..].trim_end_matches("\"}}").split_once("\",\"Nonce\":\"").unwrap();
    let loose = format!(
        "{{\"value\": {{\"NONCE\":\"{nonce}\",\"x\":1,\n\"val\":\"{value}\"}}, \"encryption\":\"secretbox.v1\"}}\n"
    );
    assert_eq!(ring.open(loose.as_bytes()).unwrap().key(), b"key");
}

#[test]
fn the_first_key_seals_and_all_of_them_open() {
    let old = SealKey::generate().unwrap().to_hex();
    let new = SealKey::generate().unwrap().to_hex();
    let envelope = ring(&[&old]).seal_bytes(b"x").unwrap();
    let both = ring(&["# the new one", &new, "", &old.to_uppercase()]);
    assert_eq!(&**both.open_bytes(&envelope).unwrap(), b"x");
    assert_eq!(both.is_of_first(&envelope), Ok(false));
    let again = both.seal_bytes(b"x").unwrap();
    assert_eq!(both.is_of_first(&again), Ok(true));
    assert_eq!(ring(&[&old]).open_bytes(&again).unwrap_err(), SealError::WrongKey);
    assert_eq!(ring(&[&old]).is_of_first(&again), Err(SealError::WrongKey));
    assert_eq!(Keyring::of(None).unwrap_err(), SealError::NoKey);
}

#[test]
fn every_changed_bit_is_noticed() {
    let ring = ring(&[KEY]);
    let envelope = String::from_utf8(ring.seal_bytes(b"secret").unwrap()).unwrap();
    let value = envelope[45..].split_once('"').unwrap().0;
    let bytes = STANDARD.decode(value).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = envelope.replace(value, &STANDARD.encode(changed));
        assert_eq!(ring.open_bytes(changed.as_bytes()).unwrap_err(), SealError::WrongKey, "{bit}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_never_what_is_inside() {
    let ring = ring(&[KEY]);
    for (envelope, reason) in [
        ("", "it is no sealed envelope"),
        ("{", "it is no sealed envelope"),
        ("[]", "it is no sealed envelope"),
        (r#"{"Encryption":7}"#, "it is no sealed envelope"),
        ("{}", r#"Encryption is "", not "secretbox.v1""#),
        (r#"{"Encryption":"secretbox.v2"}"#, r#"Encryption is "secretbox.v2""#),
        (r#"{"Encryption":"secretbox.v1"}"#, "Value.Val is too short"),
        (r#"{"Encryption":"secretbox.v1","Value":[]}"#, "it is no sealed envelope"),
        (r#"{"Encryption":"secretbox.v1","Value":{"Val":"*"}}"#, "Value.Val is not base64"),
        (r#"{"Encryption":"secretbox.v1","Value":{"Val":"AAAAAAAAAAAAAAAAAAAAAAAA","Nonce":"AA=="}}"#, "has 1 bytes"),
    ] {
        let error = ring.open_bytes(envelope.as_bytes()).unwrap_err();
        assert!(matches!(error, SealError::Malformed(_)), "{envelope}: {error:?}");
        assert!(error.to_string().contains(reason) && error.to_string().contains("seal it again"), "{error}");
    }
    for plain in [
        "hunter2",
        r#""hunter2""#,
        r#"{"Key":"hunter2*","Cert":"Y2VydA=="}"#,
        r#"{"Key":"","Cert":"hunter2"}"#,
        r#"{"Key":"hunter22"}"#,
        r#"{"Key":["hunter2"],"Cert":1}"#,
    ] {
        let error = ring.open(&ring.seal_bytes(plain.as_bytes()).unwrap()).unwrap_err();
        assert!(matches!(error, SealError::Malformed(_)), "{plain}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let pair = KeyPair::new(b"cert".to_vec(), b"hunter2".to_vec());
    let shown = format!("{pair:?} {ring:?} {:?}", SealKey::parse(KEY).unwrap());
    assert_eq!(shown, "KeyPair(hidden) Keyring(1 hidden) SealKey(hidden)");
}

#[test]
fn keys_are_64_hex_digits() {
    assert_eq!(*SealKey::parse(&format!(" {}\n", KEY.to_uppercase())).unwrap().to_hex(), KEY);
    for bad in ["", &KEY[1..], &format!("{KEY}0"), &KEY.replace('f', "g"), &"é".repeat(32), &KEY.replace("00", "+0")] {
        let error = SealKey::parse(bad).unwrap_err().to_string();
        assert!(bad.is_empty() || !error.contains(bad), "{error}");
    }
    let error = Keyring::parse(&format!("{KEY}\n\n{}\n", &KEY[2..])).unwrap_err();
    assert_eq!(error.to_string(), "line 3: a seal key is 64 hex digits, not 62 characters");
    assert!(Keyring::parse("# none\n").unwrap_err().to_string().contains("new-key"));
    assert!(Keyring::parse(&format!("{KEY}\n").repeat(65)).is_err());
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &[u8], mode: u32| -> PathBuf {
        let path = dir.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for mode in [0o600, 0o400, 0o640] {
        assert!(Keyring::read(&file(KEY.as_bytes(), mode)).is_ok(), "{mode:o}");
        fs::remove_file(dir.path().join("key")).unwrap();
    }
    for mode in [0o604, 0o666, 0o602] {
        let error = Keyring::read(&file(KEY.as_bytes(), mode)).unwrap_err().to_string();
        assert!(error.contains("chmod o=") && error.contains("/key"), "{error}");
    }
    for (text, reason) in [(&b""[..], "no seal key"), (b"\xff", "not text"), (&[b'#'; 70_000], "more than 65536 bytes")]
    {
        let error = Keyring::read(&file(text, 0o600)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let missing = Keyring::read(&dir.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("/none") && missing.contains("No such file"), "{missing}");
}

proptest! {
    #[test]
    fn any_bytes_are_sealed_and_opened(plain in prop::collection::vec(any::<u8>(), 0..300)) {
        let ring = ring(&[KEY]);
        let envelope = ring.seal_bytes(&plain).unwrap();
        prop_assert_eq!(&*ring.open_bytes(&envelope).unwrap(), &plain);
        // Whatever was sealed, it is a pair or is refused.
        let _ = ring.open(&envelope);
    }

    #[test]
    fn any_envelope_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "[{}\\[\\]\",:A-Za-z0-9+/= ]{0,80}") {
        let ring = ring(&[KEY]);
        for envelope in [&bytes[..], text.as_bytes()] {
            prop_assert!(ring.open(envelope).is_err());
            prop_assert!(ring.is_of_first(envelope).is_err());
        }
        let value = STANDARD.encode(&bytes);
        let envelope = format!(r#"{{"Encryption":"secretbox.v1","Value":{{"Val":"{value}","Nonce":"{}"}}}}"#, "A".repeat(32));
        prop_assert!(ring.open_bytes(envelope.as_bytes()).is_err());
    }
}
