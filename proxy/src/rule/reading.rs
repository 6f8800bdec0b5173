//! What a path may mean to servers: escapes decoded once, `.` and `..` resolved, `//` merged, as each of them does it.
//!
//! Servers do not agree on whether `%2f` and a backslash separate, whether an empty segment is one that `..` takes back,
//! and whether `..;x` is `..`: a path has one reading for each way to answer what it asks. None ends a segment later than
//! at `%00`. Escapes that a path needs (`%20`, UTF-8, `%25`) stay as they are, so that one with no others reads as it is
//! written. Only for asking: what is forwarded are the bytes that came.

use std::str;

/// How a server reads.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Escapes of what needs none are decoded.
    decodes: bool,
    /// `%2f` separates.
    escaped: bool,
    backslash: bool,
    /// `%5c` separates.
    escaped_backslash: bool,
    /// An empty segment is one.
    empty: bool,
    /// What follows a `;` in `..;x` does not matter.
    parameters: bool,
}

/// Whether a path can be read in another way than it is written.
pub(crate) fn is_odd(path: &str) -> bool {
    let bytes = path.as_bytes();
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    let has_pair = pairs.fold(false, |odd, (a, b)| odd | ((*a == b'/') & ((*b == b'/') | (*b == b'.'))));
    has_pair || bytes.iter().fold(false, |odd, byte| odd | (*byte == b'%') | (*byte == b'\\'))
}

/// Every reading of a path that begins with a slash; one that is as it is written may be among them. Without `decodes`
/// escapes are what they are.
pub(crate) fn readings(path: &str, decodes: bool) -> impl Iterator<Item = String> {
    let has = |text: &str| path.as_bytes().windows(text.len()).any(|found| found.eq_ignore_ascii_case(text.as_bytes()));
    let (escaped, escaped_backslash) = (decodes && has("%2f"), decodes && has("%5c"));
    let backslash = path.contains('\\');
    let empty = has("//") || backslash || escaped || escaped_backslash;
    let parameters = path.contains(';') || (decodes && has("%3b"));
    let asks = [escaped, backslash, escaped_backslash, empty, parameters];
    let manners = (0..32_u8).filter(move |bits| (0..5).all(|n| asks[n] || bits & (1 << n) == 0));
    manners.map(move |bits| {
        let [escaped, backslash, escaped_backslash, empty, parameters] = [0, 1, 2, 3, 4].map(|n| bits & (1 << n) != 0);
        Manner { decodes, escaped, backslash, escaped_backslash, empty, parameters }.read(path)
    })
}

impl Manner {
    fn read(self, path: &str) -> String {
        let bytes = path.as_bytes();
        // The path so far, and where each of its segments begins, with its slash.
        let (mut out, mut begins) = (Vec::with_capacity(bytes.len()), Vec::new());
        let (mut segment, mut is_cut, mut at) = (Vec::new(), false, 0);
        while let Some(byte) = bytes.get(at) {
            let escape = self.escape(&bytes[at..]);
            let width = if escape.is_some() { 3 } else { 1 };
            let meant = escape.unwrap_or(*byte);
            let separates = match (meant, escape) {
                (b'/', escape) => escape.is_none() || self.escaped,
                (b'\\', None) => self.backslash,
                (b'\\', Some(_)) => self.escaped_backslash,
                _ => false,
            };
            if separates {
                // What comes before the first slash is nothing.
                if at > 0 {
                    self.end(&segment, &mut out, &mut begins);
                }
                segment.clear();
                is_cut = false;
            } else if meant == 0 && escape.is_some() {
                is_cut = true;
            } else if !is_cut && is_plain(meant) {
                segment.push(meant);
            } else if !is_cut {
                segment.extend_from_slice(&bytes[at..at + width]);
            }
            at += width;
        }
        if self.end(&segment, &mut out, &mut begins) && !out.ends_with(b"/") {
            out.push(b'/');
        }
        String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The byte that an escape stands for.
    fn escape(self, text: &[u8]) -> Option<u8> {
        let [b'%', first, second, ..] = text else { return None };
        let digits = [*first, *second];
        let is_hex = self.decodes && digits.iter().all(u8::is_ascii_hexdigit);
        u8::from_str_radix(str::from_utf8(&digits).ok().filter(|_| is_hex)?, 16).ok()
    }

    /// Appends a segment, or resolves it; whether a path that ends with it ends with a slash.
    fn end(self, segment: &[u8], out: &mut Vec<u8>, begins: &mut Vec<usize>) -> bool {
        let name = segment.split(|byte| *byte == b';' && self.parameters).next().unwrap_or_default();
        match (segment, name) {
            ([], _) if !self.empty => true,
            (_, b".") => true,
            (_, b"..") => {
                out.truncate(begins.pop().unwrap_or(0));
                true
            }
            _ => {
                begins.push(out.len());
                out.push(b'/');
                out.extend_from_slice(segment);
                segment.is_empty()
            }
        }
    }
}

/// Whether a byte stands in paths as it is; a percent sign does not.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'/' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(path: &str) -> Vec<String> {
        let mut all: Vec<String> = readings(path, true).collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn what_is_written_plainly_reads_as_it_is() {
        for path in
            ["/", "/a", "/a/b/", "/a.b/c.", "/a;x=1/b", "/a%20b", "/caf%c3%a9", "/100%25", "/%zz/%4", "/a~!$&'()*+,=:@"]
        {
            assert_eq!(all(path), [path], "{path}");
        }
        for (path, odd) in [
            ("/", false),
            ("*", false),
            ("/a/b.c/d", false),
            ("/a;b", false),
            ("//a", true),
            ("/a/", false),
            ("/a//", true),
            ("/.a", true),
            ("/%41", true),
            ("/a\\", true),
        ] {
            assert_eq!(is_odd(path), odd, "{path}");
        }
    }

    #[test]
    fn what_is_not_is_resolved() {
        for (path, reading) in [
            ("/x/../admin", "/admin"),
            ("/%61dm%69n", "/admin"),
            ("/%2e%2E/admin", "/admin"),
            ("/./admin/.", "/admin/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/../../admin/x", "/admin/x"),
            ("/admin%00.html/x", "/admin/x"),
            ("/%2561dmin", "/%2561dmin"),
            ("/.%2e;a/b", "/..;a/b"),
        ] {
            assert!(all(path).contains(&reading.to_owned()), "{path}: {:?}", all(path));
        }
    }

    #[test]
    fn what_servers_read_in_different_ways_has_a_reading_for_each() {
        for (path, readings) in [
            ("//admin", &["/admin", "//admin"][..]),
            ("/x%2f..%2fadmin", &["/admin", "/x%2f..%2fadmin"]),
            ("/admin\\x", &["/admin/x", "/admin\\x"]),
            ("/b/c%2fd/../../admin", &["/admin", "/b/admin"]),
            ("/b/c\\d/../../admin", &["/admin", "/b/admin"]),
            ("/a/../admin//../x", &["/x", "/admin/x"]),
            ("/x/..;/admin", &["/admin", "/x/..;/admin"]),
            ("/x/..%3bv=1/admin", &["/admin", "/x/..;v=1/admin"]),
            ("/a%5c..%5cb", &["/b", "/a%5c..%5cb"]),
            ("/b/c%2fd/..%5c../admin", &["/admin", "/b/admin"]),
            ("/b/c%5cd/..\\../admin", &["/admin", "/b/admin"]),
        ] {
            for reading in readings {
                assert!(all(path).contains(&(*reading).to_owned()), "{path}: {:?}", all(path));
            }
        }
        assert_eq!(readings("/%61/../b%2fc", false).collect::<Vec<_>>(), ["/b%2fc"]);
    }

    proptest! {
        #[test]
        fn no_path_is_too_odd(path in "/[a./%\\\\;025eEfFcC\u{e4}]{0,24}") {
            for reading in readings(&path, true) {
                prop_assert!(reading.starts_with('/'), "{}", reading);
                prop_assert!(!reading.contains("/../") && !reading.ends_with("/.."), "{}", reading);
            }
            if !is_odd(&path) {
                prop_assert_eq!(all(&path), [path.clone()]);
            }
        }
    }
}
