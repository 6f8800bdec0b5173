//! A line's parts in JSON, straight into a buffer: text that clients wrote, numbers, query strings. Pure.
//!
//! Whatever bytes a client sent, what comes out is one line, valid JSON in valid UTF-8, without a control character: no
//! reader of it, machine or terminal, can be told anything but text.

use std::net::IpAddr;
use std::time::Duration;

/// What is shown of a query: names of resets, tokens and signatures are known, those of the next plugin are not.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Query {
    /// Names of parameters, `*` for each value.
    #[default]
    Names,
    /// As it came.
    Full,
    /// Nothing.
    None,
}

/// Appends `,"name":"text"`, the text cut to `most` bytes.
pub(super) fn text(out: &mut Vec<u8>, name: &str, text: &[u8], most: usize) {
    begin(out, name);
    quoted(out, cut(text, most), text.len() > most);
}

/// Appends `,"name":"text"` for a text that shows an address.
pub(super) fn address(out: &mut Vec<u8>, name: &str, address: IpAddr) {
    use std::io::Write as _;
    begin(out, name);
    // A vector takes everything.
    let _ = write!(out, "\"{address}\"");
}

/// Appends `,"name":number`.
pub(super) fn number(out: &mut Vec<u8>, name: &str, number: u64) {
    begin(out, name);
    decimal(out, number, 1);
}

/// Appends `,"name":milliseconds`, to the microsecond.
pub(super) fn milliseconds(out: &mut Vec<u8>, name: &str, time: Duration) {
    begin(out, name);
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    decimal(out, us / 1000, 1);
    out.push(b'.');
    decimal(out, us % 1000, 3);
}

/// Appends `,"name":"query"` as far as it is to be shown.
pub(super) fn query(out: &mut Vec<u8>, name: &str, query: &[u8], how: Query, most: usize) {
    match how {
        Query::None => {}
        Query::Full => text(out, name, query, most),
        Query::Names => {
            begin(out, name);
            out.push(b'"');
            masked(out, query, most);
            out.push(b'"');
        }
    }
}

/// Appends `,"name":"url"`, its query as far as it is to be shown, and without a password.
pub(super) fn url(out: &mut Vec<u8>, name: &str, url: &[u8], how: Query, most: usize) {
    let url = &url[..url.iter().position(|byte| *byte == b'#').unwrap_or(url.len())];
    let (place, asked) = match url.iter().position(|byte| *byte == b'?') {
        Some(at) => (&url[..at], Some(&url[at + 1..])),
        None => (url, None),
    };
    begin(out, name);
    out.push(b'"');
    let relative = if place.starts_with(b"//") { 2 } else { 0 };
    let scheme = memchr::memmem::find(place, b"://").map_or(relative, |at| at + 3);
    let authority = place[scheme..].iter().position(|byte| *byte == b'/').map_or(place.len(), |at| scheme + at);
    // Who it was, before `@`, is a secret, too.
    let host = memchr::memrchr(b'@', &place[..authority]).map_or(scheme, |at| (at + 1).max(scheme));
    escaped(out, cut(&place[..scheme], most));
    escaped(out, cut(&place[host..], most));
    if place.len() > most {
        out.extend_from_slice(CUT);
    }
    match (asked, how) {
        (Some(asked), Query::Full) => {
            out.push(b'?');
            escaped(out, cut(asked, most));
            if asked.len() > most {
                out.extend_from_slice(CUT);
            }
        }
        (Some(asked), Query::Names) => {
            out.push(b'?');
            masked(out, asked, most);
        }
        (Some(_), Query::None) | (None, _) => {}
    }
    out.push(b'"');
}

/// Names with `*` for values. What has no name may be a value.
fn masked(out: &mut Vec<u8>, query: &[u8], most: usize) {
    for (n, parameter) in cut(query, most).split(|byte| matches!(byte, b'&' | b';')).enumerate() {
        if n > 0 {
            out.push(b'&');
        }
        if let Some(at) = memchr::memchr(b'=', parameter) {
            escaped(out, &parameter[..at]);
            out.push(b'=');
        }
        if !parameter.is_empty() {
            out.push(b'*');
        }
    }
    if query.len() > most {
        out.extend_from_slice(CUT);
    }
}

fn begin(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn quoted(out: &mut Vec<u8>, text: &[u8], is_cut: bool) {
    out.push(b'"');
    escaped(out, text);
    if is_cut {
        out.extend_from_slice(CUT);
    }
    out.push(b'"');
}

/// The beginning of a text, not ended within a character.
fn cut(text: &[u8], most: usize) -> &[u8] {
    if text.len() <= most {
        return text;
    }
    let end = (most.saturating_sub(3)..=most).rev().find(|at| text[*at] & 0xc0 != 0x80);
    &text[..end.unwrap_or(most)]
}

/// Text within quotes.
fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = plain(rest);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        match rest.first() {
            None => return,
            Some(byte) if byte.is_ascii() => {
                escape(out, u32::from(*byte));
                rest = &rest[1..];
            }
            Some(_) => {
                let end = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
                beyond_ascii(out, &rest[..end]);
                rest = &rest[end..];
            }
        }
    }
}

fn beyond_ascii(out: &mut Vec<u8>, text: &[u8]) {
    for piece in text.utf8_chunks() {
        for c in piece.valid().chars() {
            // C1 controls move a terminal's cursor as C0 ones do; the others break lines, or turn their order around.
            if matches!(c, '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                escape(out, u32::from(c));
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if !piece.invalid().is_empty() {
            escape(out, u32::from(char::REPLACEMENT_CHARACTER));
        }
    }
}

/// How many bytes of a text begin it that stand for themselves. In pieces of one length without a way out, so that the
/// processor looks at a whole one at once.
fn plain(text: &[u8]) -> usize {
    let are_plain = |piece: &&[u8]| piece.iter().fold(true, |all, byte| all & is_plain(*byte));
    let whole = text.chunks_exact(AT_ONCE).take_while(are_plain).count() * AT_ONCE;
    let rest = &text[whole..];
    whole + rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len())
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// A character below 0x10000, escaped.
fn escape(out: &mut Vec<u8>, code: u32) {
    match code {
        0x22 | 0x5c => out.extend_from_slice(&[b'\\', code as u8]),
        _ => {
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                out.push(b"0123456789abcdef"[(code >> shift & 15) as usize]);
            }
        }
    }
}

/// A number with at least so many digits.
pub(super) fn decimal(out: &mut Vec<u8>, mut number: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 || digits.len() - at < least {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Bytes that are looked at together.
const AT_ONCE: usize = 16;
/// What stands for what was cut off.
const CUT: &[u8] = "…".as_bytes();

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn value(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"{\"a\":1".to_vec();
        write(&mut out);
        out.push(b'}');
        assert!(out.iter().all(|byte| *byte >= b' ' && *byte != 0x7f), "{}", out.escape_ascii());
        let line: Value = serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e}: {}", out.escape_ascii()));
        line["x"].as_str().map_or_else(|| line["x"].to_string(), str::to_owned)
    }

    fn shown(bytes: &[u8], most: usize) -> String {
        value(|out| text(out, "x", bytes, most))
    }

    #[test]
    fn what_clients_wrote_stays_text() {
        for (bytes, wanted) in [
            (b"a b~".as_slice(), "a b~"),
            (b"\"},{\"status\":200,\"x\":\"\\", "\"},{\"status\":200,\"x\":\"\\"),
            (b"a\r\n{\"b\":1}\n", "a\r\n{\"b\":1}\n"),
            (b"\x00\x1b[2J\x7f", "\u{0}\u{1b}[2J\u{7f}"),
            ("héllo 日本 😀".as_bytes(), "héllo 日本 😀"),
            ("\u{9b}2J \u{2028}\u{202e}".as_bytes(), "\u{9b}2J \u{2028}\u{202e}"),
            (b"a\xff\xfe\xc3z\xc3", "a\u{fffd}\u{fffd}\u{fffd}z\u{fffd}"),
            (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(shown(bytes, 100), wanted, "{}", bytes.escape_ascii());
        }
        let mut out = Vec::new();
        text(&mut out, "x", "\u{9b}\u{202e}é".as_bytes(), 100);
        assert_eq!(out, ",\"x\":\"\\u009b\\u202eé\"".as_bytes());
    }

    #[test]
    fn wherever_it_stands() {
        for (before, after) in (0..40).flat_map(|before| [0, 7, 16, 33].map(|after| (before, after))) {
            let (before, after) = ("a".repeat(before), "b".repeat(after));
            let mut out = Vec::new();
            escaped(&mut out, format!("{before}\"{after}").as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), format!("{before}\\\"{after}"));
        }
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(shown(b"abcdef", 6), "abcdef");
        assert_eq!(shown(b"abcdefg", 6), "abcdef…");
        assert_eq!(shown("aéé".as_bytes(), 4), "aé…");
        assert_eq!(shown(&[0x80; 9], 4), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}…");
    }

    #[test]
    fn values_of_a_query_are_not_shown() {
        let names = |text: &str| value(|out| query(out, "x", text.as_bytes(), Query::Names, 40));
        assert_eq!(names("action=rp&key=s3cret&login=me"), "action=*&key=*&login=*");
        assert_eq!(names("s3cret"), "*");
        assert_eq!(names("a=b=s3cret;s3cret&&c="), "a=*&*&&c=*");
        assert_eq!(names(""), "");
        assert_eq!(names(&"a=1&".repeat(20)), "a=*&".repeat(10) + "…");
        assert_eq!(value(|out| query(out, "x", b"a=1", Query::Full, 40)), "a=1");
        assert_eq!(value(|out| query(out, "x", b"a=1", Query::None, 40)), "null");
    }

    #[test]
    fn nor_are_those_of_an_address_nor_its_password() {
        let shown = |text: &str, how| value(|out| url(out, "x", text.as_bytes(), how, 60));
        let referer = "https://me:s3cret@a.test/wp-login.php?key=s3cret#s3cret";
        assert_eq!(shown(referer, Query::Names), "https://a.test/wp-login.php?key=*");
        assert_eq!(shown(referer, Query::None), "https://a.test/wp-login.php");
        assert_eq!(shown(referer, Query::Full), "https://a.test/wp-login.php?key=s3cret");
        assert_eq!(shown("https://a.test/@me", Query::Names), "https://a.test/@me");
        assert_eq!(shown("me:s3cret@a.test", Query::Names), "a.test");
        assert_eq!(shown("//me:s3cret@a.test/b", Query::Names), "//a.test/b");
        assert_eq!(shown("?", Query::Names), "?");
        assert_eq!(shown("", Query::Names), "");
    }

    #[test]
    fn numbers() {
        for (n, wanted) in [(0, "0"), (7, "7"), (1_234_567, "1234567"), (u64::MAX, "18446744073709551615")] {
            assert_eq!(value(|out| number(out, "x", n)), wanted);
        }
        for (us, wanted) in [(0, "0.000"), (7, "0.007"), (1_234_567, "1234.567")] {
            let mut out = Vec::new();
            milliseconds(&mut out, "x", Duration::from_micros(us));
            assert_eq!(out, format!(",\"x\":{wanted}").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_line_of_json(bytes in prop::collection::vec(any::<u8>(), 0..80), most in 4usize..90) {
            let cut = shown(&bytes, most);
            if bytes.len() <= most {
                prop_assert_eq!(cut, String::from_utf8_lossy(&bytes));
            }
            for how in [Query::Names, Query::Full, Query::None] {
                value(|out| query(out, "x", &bytes, how, most));
                value(|out| url(out, "x", &bytes, how, most));
            }
        }
    }
}
