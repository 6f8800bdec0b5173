//! `etna_proxy::proxy_protocol`: where a connection's first bytes are cut and what follows them does not matter, and
//! what is read can be written.

use etna_proxy::proxy_protocol::{LONGEST, read, write};
use etna_store::object::ProxyVersion;

/// The first bytes of a connection.
pub fn check(data: &[u8]) {
    let whole = read(data);
    for cut in (0..data.len()).take(LONGEST + 1) {
        match read(&data[..cut]) {
            Ok(None) => {}
            Ok(Some(header)) => {
                assert_eq!(whole, Ok(Some(header)), "what follows matters");
                assert_eq!(header.length, cut, "it was not read as soon as it was there");
                break;
            }
            Err(_) => {
                assert!(whole.is_err(), "refused before, then {whole:?}");
                break;
            }
        }
    }
    match whole {
        Ok(None) => assert!(data.len() < LONGEST, "nothing comes of it, and it is not refused"),
        Ok(Some(header)) => {
            assert!(header.length <= data.len().min(LONGEST));
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let mut written = Vec::new();
                write(&mut written, version, header.origin.as_ref());
                let again = read(&written).unwrap().expect("what was written is whole");
                assert_eq!((again.length, again.version), (written.len(), version));
                let ends = |origin: Option<etna_proxy::proxy_protocol::Origin>| origin.map(|o| (o.from, o.to));
                assert_eq!(ends(again.origin), ends(header.origin));
                let tls = header.origin.is_some_and(|origin| origin.tls) && version == ProxyVersion::V2;
                assert_eq!(again.origin.is_some_and(|origin| origin.tls), tls);
            }
        }
        Err(_) => {}
    }
}
