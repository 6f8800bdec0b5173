//! Private keys at rest: vulcand's sealed envelopes, and the ring of keys that seals and opens them.
//!
//! An envelope is `{"Encryption":"secretbox.v1","Value":{"Val":"…","Nonce":"…"}}`: NaCl's secretbox (XSalsa20-Poly1305)
//! under a key of 32 bytes, in standard base64. What is in it for a host is `{"Key":"…","Cert":"…"}`, base64 of PEM.
//!
//! Not here: where envelopes are stored, and whether a certificate fits its key. Nothing of this file prints what it
//! holds, and what it holds is overwritten when dropped.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::{AeadInPlace as _, Key, KeyInit as _, Nonce, XSalsa20Poly1305};
use zeroize::Zeroizing;

use crate::file;
use crate::json::{LONGEST_VALUE, Node, clip};

/// Why something is not sealed, or not opened. Never tells what is inside.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is something sealed, and no key to open it with.
    #[error("there is no seal key: give its file with --seal-key (make one with `etnactl secret new-key`)")]
    NoKey,
    /// Whole and well-formed, but sealed with a key that is not in the ring, or changed since.
    #[error("no key of the seal key file opens it: add the key it was sealed with, or seal it again")]
    WrongKey,
    /// No envelope, or not what belongs in it.
    #[error("{0}: seal it again with `etnactl secret seal-keypair`")]
    Malformed(String),
    /// No key, or a file that holds none.
    #[error("{0}")]
    NotAKey(String),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// A key of 32 bytes, written as 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Zeroizing<[u8; 32]>);

/// Keys for sealing: the first one seals, all of them open. To change the key, put a new one first, seal everything
/// again, and take the old one away.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    first: SealKey,
    others: Vec<SealKey>,
}

/// A certificate with its chain, and its private key, both PEM.
#[derive(Clone)]
pub struct KeyPair {
    cert: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl SealKey {
    /// A new one.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`]
    pub fn generate() -> Result<SealKey, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        random(key.as_mut_slice())?;
        Ok(SealKey(key))
    }

    /// Reads 64 hex digits, in either case; white space around them does not count.
    ///
    /// # Errors
    /// [`SealError::NotAKey`]
    pub fn parse(text: &str) -> Result<SealKey, SealError> {
        let digits = text.trim().as_bytes();
        let mut key = Zeroizing::new([0; 32]);
        if digits.len() != 2 * key.len() {
            let reason = format!("a seal key is 64 hex digits, not {} characters", digits.len());
            return Err(SealError::NotAKey(reason));
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let [Some(high), Some(low)] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16)) else {
                return Err(SealError::NotAKey("a seal key has only the digits 0-9 and a-f".into()));
            };
            *byte = u8::try_from(16 * high + low).unwrap_or_default();
        }
        Ok(SealKey(key))
    }

    /// As it is written.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in self.0.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        text
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new(Key::from_slice(self.0.as_slice()))
    }
}

impl Keyring {
    /// A ring of one key.
    pub fn new(key: SealKey) -> Keyring {
        Keyring { first: key, others: Vec::new() }
    }

    /// Reads one key a line, 1 to 64 of them; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// [`SealError::NotAKey`] with the line
    pub fn parse(text: &str) -> Result<Keyring, SealError> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            if keys.len() == MOST_KEYS {
                return Err(SealError::NotAKey(format!("there are more than {MOST_KEYS} seal keys")));
            }
            keys.push(SealKey::parse(line).map_err(|error| SealError::NotAKey(format!("line {number}: {error}")))?);
        }
        if keys.is_empty() {
            return Err(SealError::NotAKey("there is no seal key: make one with `etnactl secret new-key`".into()));
        }
        let first = keys.remove(0);
        Ok(Keyring { first, others: keys })
    }

    /// Reads them from a file, which no other user may read.
    ///
    /// # Errors
    /// [`SealError::NotAKey`] with the file's name
    pub fn read(path: &Path) -> Result<Keyring, SealError> {
        let wrong = |reason: String| SealError::NotAKey(format!("seal key file {}: {reason}", path.display()));
        let told = |error: std::io::Error| wrong(error.to_string());
        let mut file = file::open(path).map_err(told)?;
        let mode = file.metadata().map_err(told)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(wrong("every user can read it, or write to it: `chmod o=` it".into()));
        }
        let bytes = file::contents(&mut file, LONGEST_FILE).map_err(told)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text".into()))?;
        Keyring::parse(text).map_err(|error| wrong(error.to_string()))
    }

    /// The ring that there must be.
    ///
    /// # Errors
    /// [`SealError::NoKey`]
    pub fn of(ring: Option<&Keyring>) -> Result<&Keyring, SealError> {
        ring.ok_or(SealError::NoKey)
    }

    /// Seals a key pair into an envelope, with the first key.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`]
    pub fn seal(&self, pair: &KeyPair) -> Result<Vec<u8>, SealError> {
        let encoded = |bytes: &[u8]| Zeroizing::new(STANDARD.encode(bytes));
        let (key, cert) = (encoded(&pair.key), encoded(&pair.cert));
        let mut plain = Zeroizing::new(Vec::with_capacity(key.len() + cert.len() + 32));
        for part in [r#"{"Key":""#, &key, r#"","Cert":""#, &cert, r#""}"#] {
            plain.extend_from_slice(part.as_bytes());
        }
        self.seal_bytes(&plain)
    }

    /// Opens the envelope of a key pair.
    ///
    /// # Errors
    /// [`SealError::WrongKey`] or [`SealError::Malformed`]
    pub fn open(&self, envelope: &[u8]) -> Result<KeyPair, SealError> {
        KeyPair::read(&self.open_bytes(envelope)?)
    }

    /// Seals any bytes into an envelope, with the first key.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`]
    pub fn seal_bytes(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = Nonce::default();
        random(&mut nonce)?;
        // Room for the tag, so that the plain text is not moved.
        let mut sealed = Zeroizing::new(Vec::with_capacity(plain.len() + XSalsa20Poly1305::TAG_SIZE));
        sealed.extend_from_slice(plain);
        let sealing = self.first.cipher().encrypt_in_place(&nonce, b"", &mut *sealed);
        sealing.map_err(|_| SealError::Malformed("it is too long".into()))?;
        let (sealed, nonce) = (STANDARD.encode(&*sealed), STANDARD.encode(nonce));
        let envelope = format!(r#"{{"Encryption":"{ENCRYPTION}","Value":{{"Val":"{sealed}","Nonce":"{nonce}"}}}}"#);
        Ok(envelope.into_bytes())
    }

    /// Opens the envelope of any bytes.
    ///
    /// # Errors
    /// [`SealError::WrongKey`] or [`SealError::Malformed`]
    pub fn open_bytes(&self, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let envelope = Envelope::read(envelope)?;
        let mut keys = std::iter::once(&self.first).chain(&self.others);
        keys.find_map(|key| envelope.open(key)).ok_or(SealError::WrongKey)
    }

    /// Whether the first key opens it, and not only another.
    ///
    /// # Errors
    /// [`SealError::WrongKey`] if none does, or [`SealError::Malformed`]
    pub fn is_of_first(&self, envelope: &[u8]) -> Result<bool, SealError> {
        let envelope = Envelope::read(envelope)?;
        match envelope.open(&self.first) {
            Some(_) => Ok(true),
            None if self.others.iter().any(|key| envelope.open(key).is_some()) => Ok(false),
            None => Err(SealError::WrongKey),
        }
    }
}

impl KeyPair {
    /// Of a certificate and its key, both PEM.
    pub fn new(cert: Vec<u8>, key: Vec<u8>) -> KeyPair {
        KeyPair { cert: Zeroizing::new(cert), key: Zeroizing::new(key) }
    }

    /// The certificate and its chain, PEM.
    pub fn cert(&self) -> &[u8] {
        &self.cert
    }

    /// The private key, PEM. Not to be shown.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    fn read(plain: &[u8]) -> Result<KeyPair, SealError> {
        // What JSON readers say of errors may quote what they read.
        let wrong = |what: &str| SealError::Malformed(format!("what is sealed {what}"));
        let text = std::str::from_utf8(plain).map_err(|_| wrong("is no key pair"))?;
        let fields = Node::parse(text).and_then(|node| node.fields()).map_err(|_| wrong("is no key pair"))?;
        let part = |name: &str, missing: &str| {
            let text = Zeroizing::new(fields.string(name).map_err(|_| wrong("is no key pair"))?);
            if text.is_empty() {
                return Err(wrong(missing));
            }
            STANDARD.decode(&*text).map_err(|_| wrong("is no key pair: its parts are not base64"))
        };
        let key = Zeroizing::new(part("Key", "has no Key")?);
        Ok(KeyPair { cert: Zeroizing::new(part("Cert", "has no Cert")?), key })
    }
}

/// An envelope, taken apart.
struct Envelope {
    value: Vec<u8>,
    nonce: Nonce,
}

impl Envelope {
    /// Reads it as Go would.
    fn read(envelope: &[u8]) -> Result<Envelope, SealError> {
        if envelope.len() > LONGEST_VALUE {
            return Err(SealError::Malformed(format!("the envelope has more than {LONGEST_VALUE} bytes")));
        }
        let no_envelope = || SealError::Malformed("it is no sealed envelope".into());
        let text = std::str::from_utf8(envelope).map_err(|_| no_envelope())?;
        let fields = Node::parse(text).and_then(|node| node.fields()).map_err(|_| no_envelope())?;
        let encryption = fields.string("Encryption").map_err(|_| no_envelope())?;
        if encryption != ENCRYPTION {
            let reason = format!("the envelope's Encryption is {:?}, not {ENCRYPTION:?}", clip(&encryption));
            return Err(SealError::Malformed(reason));
        }
        let parts = fields.object("Value").map_err(|_| no_envelope())?;
        let part = |name: &str| {
            let text = parts.string(name).map_err(|_| no_envelope())?;
            let wrong = |_| SealError::Malformed(format!("the envelope's Value.{name} is not base64"));
            STANDARD.decode(text).map_err(wrong)
        };
        let (value, nonce) = (part("Val")?, part("Nonce")?);
        if value.len() < XSalsa20Poly1305::TAG_SIZE {
            return Err(SealError::Malformed("the envelope's Value.Val is too short".into()));
        }
        if nonce.len() != XSalsa20Poly1305::NONCE_SIZE {
            return Err(SealError::Malformed(format!("the envelope's Value.Nonce has {} bytes", nonce.len())));
        }
        Ok(Envelope { value, nonce: *Nonce::from_slice(&nonce) })
    }

    fn open(&self, key: &SealKey) -> Option<Zeroizing<Vec<u8>>> {
        let mut plain = Zeroizing::new(self.value.clone());
        key.cipher().decrypt_in_place(&self.nonce, b"", &mut *plain).ok()?;
        Some(plain)
    }
}

fn random(bytes: &mut [u8]) -> Result<(), SealError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| SealError::NoRandomness)
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(hidden)")
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} hidden)", 1 + self.others.len())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(hidden)")
    }
}

const ENCRYPTION: &str = "secretbox.v1";
const MOST_KEYS: usize = 64;
const LONGEST_FILE: usize = 64 << 10;
