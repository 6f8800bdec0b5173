//! Header fields as they came: one buffer, and where in it each name and value lies.
//!
//! A message has some ten of them, and most are only passed on. To look through all of them is faster than to hash each,
//! and nothing is allocated, checked again or copied for one alone. Names are in lower case, whatever came. No map:
//! what came twice stays twice, in its place.

use std::fmt;

use bytes::BytesMut;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::found::{Found, Place, text_length};

/// A message's fields.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: BytesMut,
    places: Vec<Place>,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct Field<'f> {
    bytes: &'f [u8],
    place: Place,
}

impl Fields {
    /// Those that were found in `bytes`.
    pub fn new(bytes: BytesMut, found: Found) -> Fields {
        Fields { bytes, places: found.places }
    }

    /// None yet, with room for so many of so many bytes together.
    pub fn with_room(many: usize, bytes: usize) -> Fields {
        // What stands between a name and its value takes two.
        Fields { bytes: BytesMut::with_capacity(bytes + 2 * many), places: Vec::with_capacity(many) }
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
        self.places.iter().map(|place| Field { bytes: &self.bytes, place: *place })
    }

    /// The first value of a name, which is given in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// Every value of a name, which is given in lower case.
    pub fn get_all<'f, 'n>(&'f self, name: &'n str) -> impl Iterator<Item = &'f [u8]> + use<'f, 'n> {
        let of_length = move |place: &&Place| (place.name_end - place.name) as usize == name.len();
        let fields = self.places.iter().filter(of_length).map(|place| Field { bytes: &self.bytes, place: *place });
        fields.filter(move |field| field.name() == name.as_bytes()).map(|field| field.value())
    }

    /// Whether there is one of a name, which is given in lower case.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds one.
    pub fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.push(name, value.as_bytes());
    }

    /// Adds one of a value that was not checked; `false` where it cannot be one.
    pub fn try_append(&mut self, name: &HeaderName, value: &[u8]) -> bool {
        let fits = text_length(value) == value.len();
        if fits {
            self.push(name, value);
        }
        fits
    }

    /// Adds to the value of the last one.
    pub fn extend_last(&mut self, between: &[u8; 2], value: &HeaderValue) {
        if let Some(last) = self.places.last_mut().filter(|last| last.value_end as usize == self.bytes.len()) {
            self.bytes.extend_from_slice(between);
            self.bytes.extend_from_slice(value.as_bytes());
            last.value_end = self.bytes.len() as u32;
        }
    }

    fn push(&mut self, name: &HeaderName, value: &[u8]) {
        let at = |bytes: &BytesMut| bytes.len() as u32;
        let start = at(&self.bytes);
        self.bytes.extend_from_slice(name.as_str().as_bytes());
        let name_end = at(&self.bytes);
        self.bytes.extend_from_slice(b": ");
        let begun = at(&self.bytes);
        self.bytes.extend_from_slice(value);
        self.places.push(Place { name: start, name_end, value: begun, value_end: at(&self.bytes) });
    }

    /// Adds one in the place of all of that name.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.retain(|field| field.name() != name.as_str().as_bytes());
        self.append(name, value);
    }

    /// Leaves out what is not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = &self.bytes;
        self.places.retain(|place| keep(Field { bytes, place: *place }));
    }

    /// The same as a map.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.len() + 2);
        for field in self.iter() {
            let (name, value) = (HeaderName::from_bytes(field.name()), HeaderValue::from_bytes(field.value()));
            if let (Ok(name), Ok(value)) = (name, value) {
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
        f.debug_list().entries(self.iter().map(|field| String::from_utf8_lossy(field.name()).into_owned())).finish()
    }
}

impl<'f> Field<'f> {
    /// Its name, in lower case.
    pub fn name(&self) -> &'f [u8] {
        &self.bytes[self.place.name as usize..self.place.name_end as usize]
    }

    /// Its value, without the spaces around it.
    pub fn value(&self) -> &'f [u8] {
        &self.bytes[self.place.value as usize..self.place.value_end as usize]
    }

    /// Writes it as HTTP/1.1 does.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Place { name, name_end, value, value_end } = self.place;
        // Most lie there as they are written.
        if self.bytes[name_end as usize..value as usize] == *b": " {
            out.extend_from_slice(&self.bytes[name as usize..value_end as usize]);
        } else {
            out.extend_from_slice(self.name());
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.value());
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::found::Ending;
    use super::*;

    fn parsed(wire: &[u8]) -> Option<Fields> {
        let mut bytes = BytesMut::from(wire);
        let found = Found::read(&mut bytes, 8, Ending::LineFeed).ok()??;
        Some(Fields::new(bytes, found))
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
        fields.retain(|field| field.value() != b"4");
        assert_eq!((fields.len(), fields.is_empty()), (2, false));
        assert_eq!(written(&Fields::from(&fields.to_map())), written(&fields));
    }
}
