//! Certificates for tests.

use etna_store::seal::KeyPair;

/// A certificate for these names, signed by itself.
pub(crate) fn pair(names: &[&str]) -> KeyPair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    KeyPair::new(made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
}
