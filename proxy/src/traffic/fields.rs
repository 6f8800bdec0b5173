//! Header fields as they came: one buffer, and where in it each name and value lies.
//!
//! A message has some ten of them, and most are only passed on. To look through all of them is faster than to hash each,
//! and nothing is allocated, checked again or copied for one alone. Names are in lower case, whatever came. No map:
//! what came twice stays twice, in its place.

use std::fmt;

use bytes::BytesMut;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A message's fields.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: BytesMut,
    places: Vec<Place>,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct Field<'f> {
    /// Its name, in lower case.
    pub name: &'f [u8],
    /// Its value, without the spaces around it.
    pub value: &'f [u8],
    /// From the one to the other's end.
    line: &'f [u8],
}

/// Where fields lie in the bytes that were parsed.
pub struct Found(Vec<Place>);

/// Where a field lies, in bytes from the buffer's beginning. A head is far shorter than 4 GiB.
#[derive(Clone, Copy)]
struct Place {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
}

impl Found {
    /// What httparse found in `bytes`. Its names and values are such as [`HeaderName`] and [`HeaderValue`] take.
    pub fn of(bytes: &[u8], found: &[httparse::Header<'_>]) -> Found {
        let base = bytes.as_ptr() as usize;
        let at = |part: &[u8]| (part.as_ptr() as usize - base) as u32;
        let place = |field: &httparse::Header<'_>| {
            let (name, value) = (at(field.name.as_bytes()), at(field.value));
            let (name_end, value_end) = (name + field.name.len() as u32, value + field.value.len() as u32);
            Place { name, name_end, value, value_end }
        };
        Found(found.iter().map(place).collect())
    }
}

impl Fields {
    /// Those that were found in `bytes`.
    pub fn new(mut bytes: BytesMut, found: Found) -> Fields {
        for place in &found.0 {
            // Eight at once are one step of the processor.
            let (eights, rest) = bytes[place.name as usize..place.name_end as usize].as_chunks_mut::<8>();
            eights.iter_mut().for_each(|eight| eight.make_ascii_lowercase());
            rest.make_ascii_lowercase();
        }
        Fields { bytes, places: found.0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All of them, as they came.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| place.of(&self.bytes))
    }

    /// The first value of a name, which is given in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// Every value of a name, which is given in lower case.
    pub fn get_all<'f, 'n>(&'f self, name: &'n str) -> impl Iterator<Item = &'f [u8]> + use<'f, 'n> {
        let is_its = move |place: &&Place| {
            let Place { name: begin, name_end, .. } = **place;
            (name_end - begin) as usize == name.len()
                && self.bytes[begin as usize..name_end as usize] == *name.as_bytes()
        };
        self.places.iter().filter(is_its).map(|place| &self.bytes[place.value as usize..place.value_end as usize])
    }

    /// Whether there is one of a name, which is given in lower case.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds one.
    pub fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        let at = |bytes: &BytesMut| bytes.len() as u32;
        let start = at(&self.bytes);
        self.bytes.extend_from_slice(name.as_str().as_bytes());
        let name_end = at(&self.bytes);
        self.bytes.extend_from_slice(b": ");
        let begun = at(&self.bytes);
        self.bytes.extend_from_slice(value.as_bytes());
        self.places.push(Place { name: start, name_end, value: begun, value_end: at(&self.bytes) });
    }

    /// Adds one in the place of all of that name.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.retain(|field| field.name != name.as_str().as_bytes());
        self.append(name, value);
    }

    /// Leaves out what is not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = &self.bytes;
        self.places.retain(|place| keep(place.of(bytes)));
    }

    /// The same as a map.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.len() + 2);
        for Field { name, value, .. } in self.iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
        map
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Fields {
        let mut fields = Fields::default();
        map.iter().for_each(|(name, value)| fields.append(name, value));
        fields
    }
}

/// Names alone: values may be secrets.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|field| String::from_utf8_lossy(field.name).into_owned())).finish()
    }
}

impl Place {
    fn of<'b>(&self, bytes: &'b [u8]) -> Field<'b> {
        let Place { name, name_end, value, value_end } = *self;
        Field {
            name: &bytes[name as usize..name_end as usize],
            value: &bytes[value as usize..value_end as usize],
            line: &bytes[name as usize..value_end as usize],
        }
    }
}

impl Field<'_> {
    /// Writes it as HTTP/1.1 does.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Field { name, value, line } = self;
        // Most lie there as they are written.
        if line[name.len()..line.len() - value.len()] == *b": " {
            out.extend_from_slice(line);
        } else {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(wire: &[u8]) -> Option<Fields> {
        let mut room = [httparse::EMPTY_HEADER; 8];
        let Ok(httparse::Status::Complete((_, found))) = httparse::parse_headers(wire, &mut room) else { return None };
        let found = Found::of(wire, found);
        Some(Fields::new(BytesMut::from(wire), found))
    }

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.iter().for_each(|field| field.write(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_came_is_written_with_names_in_lower_case() {
        let fields = parsed(b"Host: a.test\r\nX-Rather-Long-Name:b \r\nA: \tc\r\nEmpty:\r\nHost: B\r\n\r\n").unwrap();
        assert_eq!(written(&fields), "host: a.test\r\nx-rather-long-name: b\r\na: c\r\nempty: \r\nhost: B\r\n");
        assert_eq!(fields.get("host"), Some(&b"a.test"[..]));
        assert_eq!(fields.get_all("host").collect::<Vec<_>>(), [&b"a.test"[..], b"B"]);
        assert!(fields.contains("empty") && !fields.contains("hosts") && !fields.contains("b"));
        assert_eq!(format!("{fields:?}"), r#"["host", "x-rather-long-name", "a", "empty", "host"]"#);
    }

    #[test]
    fn fields_come_and_go() {
        let mut fields = parsed(b"A: 1\r\nB: 2\r\nA: 3\r\n\r\n").unwrap();
        fields.append(&http::header::AGE, &HeaderValue::from_static("4"));
        fields.set(&HeaderName::from_static("a"), &HeaderValue::from_static("5"));
        assert_eq!(written(&fields), "b: 2\r\nage: 4\r\na: 5\r\n");
        fields.retain(|field| field.value != b"4");
        assert_eq!((fields.len(), fields.is_empty()), (2, false));
        assert_eq!(written(&Fields::from(&fields.to_map())), written(&fields));
    }

    proptest! {
        /// What is not checked again would pass.
        #[test]
        fn what_is_parsed_is_well_formed(wire in "([!-~]{0,9}:[\\x00-\\xff]{0,9}\r\n){0,5}\r\n") {
            for field in parsed(wire.as_bytes()).iter().flat_map(|fields| fields.iter()) {
                prop_assert!(HeaderName::from_bytes(field.name).is_ok_and(|name| name.as_str().as_bytes() == field.name));
                prop_assert!(HeaderValue::from_bytes(field.value).is_ok());
            }
        }
    }
}
