//! `etna_store::dump`: what is read of an export is written as an export of the same.

use etna_store::dump::{read, write};

/// Any text.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match read(text) {
        Ok(batch) => assert_eq!(read(&write(&batch)), Ok(batch)),
        Err(error) => {
            let lines = u32::try_from(text.lines().count()).unwrap().max(1);
            assert!((1..=lines + 1).contains(&error.line), "{error} of {lines} lines");
        }
    }
}
