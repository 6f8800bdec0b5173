//! `etna_store::key`: a key that is read is written as what reads as the same key.

use etna_store::Key;
use etna_store::key::show;

/// Any bytes.
pub fn check(data: &[u8]) {
    let shown = show(data);
    assert!(!shown.chars().any(char::is_control), "{shown:?} would move a terminal");
    let Ok(key) = Key::parse(data) else { return };
    let path = key.path();
    assert_eq!(Key::parse(path.as_bytes()), Ok(key.clone()), "{shown} was written as {path}");
    if let Some(object) = key.object() {
        assert!(!object.is_legacy(), "{shown} is the object {object}");
        assert_eq!(object.object(), Some(object.clone()), "{shown}");
    }
}
