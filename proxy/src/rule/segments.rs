//! The segments of a path as an application sees them: percent-decoded once, empty ones dropped, `.` and `..` resolved.
//!
//! Decoded first and split then, so that `%2F` separates as `/` does, and so does a backslash: there are servers that
//! take it for one. What follows a script (PATH_INFO) stays. Bytes that are no UTF-8 are bytes like any other; what is
//! encoded twice stays encoded once.
//! Only for asking: what is forwarded are the bytes that came.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The segments of a normalised path.
#[derive(Debug)]
pub(crate) enum Segments<'a> {
    /// Of a path that is as good as normalised: nothing is copied.
    Plain(&'a str),
    /// Of any other.
    Resolved {
        /// The segments, one after the other.
        bytes: Vec<u8>,
        /// Where each of them ends.
        ends: Vec<usize>,
    },
}

impl<'a> Segments<'a> {
    /// Normalises a path that begins with a slash.
    pub(crate) fn of(path: &'a str) -> Segments<'a> {
        let dotted = path.as_bytes().windows(2).any(|pair| pair == b"/.");
        if !dotted && !path.contains(['%', '\\']) {
            return Segments::Plain(path);
        }
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
        for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
            match segment {
                b"" | b"." => {}
                b".." => {
                    ends.pop();
                    bytes.truncate(ends.last().copied().unwrap_or(0));
                }
                name => {
                    bytes.extend_from_slice(name);
                    ends.push(bytes.len());
                }
            }
        }
        Segments::Resolved { bytes, ends }
    }

    /// Whether one of them is as asked.
    pub(crate) fn any(&self, asked: impl Fn(&[u8]) -> bool) -> bool {
        match self {
            Segments::Plain(path) => {
                path.as_bytes().split(|byte| *byte == b'/').any(|name| !name.is_empty() && asked(name))
            }
            Segments::Resolved { bytes, ends } => {
                let starts = std::iter::once(0).chain(ends.iter().copied());
                starts.zip(ends).any(|(start, end)| asked(&bytes[start..*end]))
            }
        }
    }

    /// The last of them; a slash at the path's end adds none.
    pub(crate) fn last(&self) -> Option<&[u8]> {
        match self {
            Segments::Plain(path) => path.rsplit('/').find(|name| !name.is_empty()).map(str::as_bytes),
            Segments::Resolved { bytes, ends } => {
                let (end, before) = ends.split_last()?;
                Some(&bytes[before.last().copied().unwrap_or(0)..*end])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(path: &str) -> Vec<String> {
        let names = std::cell::RefCell::new(Vec::new());
        let segments = Segments::of(path);
        segments.any(|name| {
            names.borrow_mut().push(String::from_utf8_lossy(name).into_owned());
            false
        });
        let names = names.into_inner();
        assert_eq!(segments.last().map(|name| String::from_utf8_lossy(name).into_owned()).as_ref(), names.last());
        names
    }

    #[test]
    fn a_path_is_decoded_once_merged_and_resolved() {
        for (path, segments) in [
            ("/", vec![]),
            ("*", vec!["*"]),
            ("//a///b//", vec!["a", "b"]),
            ("/a/./b/../c", vec!["a", "c"]),
            ("/../../a", vec!["a"]),
            ("/a/..", vec![]),
            ("/.hidden/..x", vec![".hidden", "..x"]),
            ("/%61%2Fb%2f%2e%2E/c", vec!["a", "c"]),
            ("/%252e%252e/%2577", vec!["%2e%2e", "%77"]),
            ("/%zz/%4/%", vec!["%zz", "%4", "%"]),
            ("/a\\b/%5c..\\c", vec!["a", "c"]),
            ("/a%00", vec!["a\0"]),
            ("/%ff", vec!["\u{fffd}"]),
            ("/a;x/..;/b", vec!["a;x", "..;", "b"]),
        ] {
            assert_eq!(all(path), segments, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_sees_what_the_other_sees(path in "/[a./]{0,12}") {
            // An escape that decodes to itself takes the slow way.
            prop_assert_eq!(all(&path), all(&path.replace('a', "%61")));
        }
    }
}
