//! Where header fields lie in bytes, as HTTP/1.1 writes them, and what is none (RFC 9112 section 5). Nothing is copied.

/// Where fields lie in the bytes that were read.
pub struct Found {
    pub(super) places: Vec<Place>,
    /// Where what follows them begins, after the empty line.
    pub end: usize,
}

/// What a line ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// CR LF, and nothing else.
    Strict,
    /// CR LF, or a line feed alone (RFC 9112 section 2.2).
    LineFeed,
}

/// Why something is no fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There are more than may be.
    TooMany,
    /// What stands there is not a field.
    Malformed,
}

/// Where a field lies, in bytes from the buffer's beginning. A head is far shorter than 4 GiB.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) name: u32,
    pub(super) name_end: u32,
    pub(super) value: u32,
    pub(super) value_end: u32,
}

impl Found {
    /// Reads fields up to the empty line that ends them; `None` where that has not come. Their names are put into lower
    /// case. As strict as RFC 9112 section 5 asks; lines end as `ending` says. Names and values are such as
    /// [`HeaderName`](http::HeaderName) and [`HeaderValue`](http::HeaderValue) take.
    pub fn read(bytes: &mut [u8], most: usize, ending: Ending) -> Result<Option<Found>, Flaw> {
        let mut places = Vec::with_capacity(LIKELY);
        let mut at = 0;
        loop {
            let name = at;
            at += lower_name(&mut bytes[name..]);
            let name_end = at;
            match &bytes[at..] {
                [b':', ..] if name_end > name => at += 1,
                [] => return Ok(None),
                [b'\r'] if name_end == name => return Ok(None),
                rest => {
                    let end = ending.of(rest).filter(|_| name_end == name).ok_or(Flaw::Malformed)?;
                    return Ok(Some(Found { places, end: at + end }));
                }
            }
            while let Some(b' ' | b'\t') = bytes.get(at) {
                at += 1;
            }
            let value = at;
            at += text_length(&bytes[value..]);
            let value_end = value + bytes[value..at].trim_ascii_end().len();
            at += match &bytes[at..] {
                [] | [b'\r'] => return Ok(None),
                rest => ending.of(rest).ok_or(Flaw::Malformed)?,
            };
            if places.len() == most {
                return Err(Flaw::TooMany);
            }
            let [name, name_end, value, value_end] = [name, name_end, value, value_end].map(|at| at as u32);
            places.push(Place { name, name_end, value, value_end });
        }
    }
}

impl Ending {
    /// How long it is, if the bytes begin with one.
    pub fn of(self, bytes: &[u8]) -> Option<usize> {
        match bytes {
            [b'\r', b'\n', ..] => Some(2),
            [b'\n', ..] if self == Ending::LineFeed => Some(1),
            _ => None,
        }
    }
}

/// What a value lists, between commas.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// How many bytes from the first on may be in a name; they are put into lower case.
fn lower_name(bytes: &mut [u8]) -> usize {
    let mut length = 0;
    for byte in bytes {
        match LOWER[usize::from(*byte)] {
            0 => break,
            lower => *byte = lower,
        }
        length += 1;
    }
    length
}

/// How many bytes from the first on may be in a value, or in a reason: no control character but tabs.
pub fn text_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length += plain_length(&bytes[length..]);
        match bytes.get(length) {
            Some(b'\t') => length += 1,
            _ => return length,
        }
    }
}

/// How many bytes from the first on are no control characters. Eight are looked at together: what is taken from each
/// sets its highest bit where it was less, and the first bit that is set is right whatever those after it are.
fn plain_length(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let (eights, rest) = bytes.as_chunks::<8>();
    for (at, eight) in eights.iter().enumerate() {
        let eight = u64::from_le_bytes(*eight);
        let deletes = eight ^ (0x7f * EACH);
        let less = |word: u64, than: u64| word.wrapping_sub(than * EACH) & !word & (0x80 * EACH);
        let controls = less(eight, 0x20) | less(deletes, 1);
        if controls != 0 {
            return 8 * at + controls.trailing_zeros() as usize / 8;
        }
    }
    let more = rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len());
    bytes.len() - rest.len() + more
}

/// What may be in a name (RFC 9110 section 5.6.2), in lower case; 0 for what may not.
const LOWER: [u8; 256] = {
    let mut lower = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            lower[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    lower
};
/// Fields that most messages have at most.
const LIKELY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::fields::Fields;
    use bytes::BytesMut;
    use http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn read(wire: &[u8]) -> Option<(Fields, usize)> {
        let mut bytes = BytesMut::from(wire);
        let found = Found::read(&mut bytes, 8, Ending::LineFeed).ok()??;
        let end = found.end;
        Some((Fields::new(bytes, found), end))
    }

    #[test]
    fn what_is_no_field_is_refused_and_what_is_missing_waited_for() {
        let read = |wire: &str, ending| Found::read(&mut wire.as_bytes().to_vec(), 2, ending);
        let found = |wire: &str| read(wire, Ending::LineFeed).map(|found| found.map(|found| found.end));
        for malformed in
            ["A : b\r\n", " A: b\r\n", ": b\r\n", "A\r\nB", "A: b\rc", "A: b\r\n c\r\n", "A: \0", "A(: b", "\r\r\n"]
        {
            assert_eq!(found(malformed), Err(Flaw::Malformed), "{malformed:?}");
        }
        let whole = "A: b\r\nC: d\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(found(&whole[..end]), Ok(None), "{end}");
        }
        assert_eq!(found(whole), Ok(Some(whole.len())));
        assert_eq!(found("\r\nA: b"), Ok(Some(2)));
        assert_eq!(found("A: b\nC: d\nE: f\n\n"), Err(Flaw::TooMany));
        assert_eq!(found("A: b\nC: d\n\n"), Ok(Some(11)));
        for bare in ["A: b\nC: d\r\n\r\n", "A: b\r\n\n", "\n"] {
            assert!(read(bare, Ending::Strict).is_err(), "{bare:?}");
        }
    }

    proptest! {
        #[test]
        fn text_ends_where_a_control_begins(bytes in proptest::collection::vec(prop_oneof![9 => 0x20..=0x7eu8, 1 => any::<u8>()], 0..40)) {
            let is_control = |byte: &u8| *byte != b'\t' && byte.is_ascii_control();
            prop_assert_eq!(text_length(&bytes), bytes.iter().position(is_control).unwrap_or(bytes.len()));
        }

        /// Others have read far more of them.
        #[test]
        fn fields_are_read_as_httparse_reads_them(wire in "([a-zA-C:!(_ \t\r\n\x00\x7f-\u{100}]{0,9}: ?[ -~\t\u{80}\r\n]{0,20}(\r\n|\n| \r\n)){0,4}(\r\n|\n|\r|x)?") {
            let mut room = [httparse::EMPTY_HEADER; 8];
            let theirs = match httparse::parse_headers(wire.as_bytes(), &mut room) {
                Ok(httparse::Status::Complete((end, found))) => {
                    let lower = |name: &str| name.to_ascii_lowercase().into_bytes();
                    Some((end, found.iter().map(|field| (lower(field.name), field.value.to_vec())).collect::<Vec<_>>()))
                }
                _ => None,
            };
            let ours = read(wire.as_bytes()).map(|(fields, end)| {
                (end, fields.iter().map(|field| (field.name().to_vec(), field.value().to_vec())).collect())
            });
            prop_assert_eq!(ours, theirs);
        }

        /// What is not checked again is such as it would pass.
        #[test]
        fn what_is_read_is_well_formed(wire in "([!-~]{0,9}:[\x00-\u{ff}]{0,9}\r\n){0,5}\r\n") {
            for field in read(wire.as_bytes()).iter().flat_map(|(fields, _)| fields.iter()) {
                let name = HeaderName::from_bytes(field.name());
                prop_assert!(name.is_ok_and(|name| name.as_str().as_bytes() == field.name()));
                prop_assert!(HeaderValue::from_bytes(field.value()).is_ok());
            }
        }
    }
}
