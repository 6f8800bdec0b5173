//! `etna_store::duration`: what is written of a duration that was read is read as the same.

use etna_store::duration::{format, parse};

/// Any text.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(duration) = parse(text) else { return };
    let written = format(duration);
    assert_eq!(parse(&written), Ok(duration), "{text:?} was written as {written:?}");
    assert_eq!(format(duration), written);
}
