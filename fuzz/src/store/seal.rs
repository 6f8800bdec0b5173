//! `etna_store::seal`: any bytes are an envelope or are refused; what was opened is sealed and opened as the same; what
//! stands in a file is a ring or is refused.

use etna_store::seal::{Keyring, SealError};

/// An envelope, what is in one, or the text of a file of keys.
pub fn check(data: &[u8]) {
    let ring = Keyring::parse(KEY).unwrap();
    opened(&ring, data);
    // The text as what is inside, so that this is reached without guessing a tag.
    let envelope = ring.seal_bytes(data).unwrap();
    assert_eq!(*ring.open_bytes(&envelope).unwrap(), data);
    assert_eq!(ring.is_of_first(&envelope), Ok(true));
    match ring.open(&envelope) {
        Ok(pair) => {
            let again = ring.open(&ring.seal(&pair).unwrap()).unwrap();
            assert_eq!((again.cert(), again.key()), (pair.cert(), pair.key()));
        }
        Err(SealError::Malformed(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ring) = Keyring::parse(text) {
        assert_eq!(*ring.open_bytes(&ring.seal_bytes(b"x").unwrap()).unwrap(), b"x");
        assert!(!format!("{ring:?}").contains(text.trim()));
    }
}

fn opened(ring: &Keyring, envelope: &[u8]) {
    match ring.open_bytes(envelope) {
        Ok(plain) => {
            let again = ring.seal_bytes(&plain).unwrap();
            assert_eq!(ring.open_bytes(&again).unwrap(), plain);
        }
        Err(SealError::Malformed(_) | SealError::WrongKey) => {}
        Err(error) => panic!("{error}"),
    }
}

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
