//! Fields of responses as the `h2` crate takes them, kept for when they come again.
//!
//! Servers say much the same with every response: their name, a type, the second. To find that again costs less than to
//! look up a name and to check and copy a value. Bounded, and nothing is kept that came once, is long, or is one
//! client's own.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::RandomState;
use http::header::{HeaderName, HeaderValue};

/// A worker's fields that came before.
#[derive(Default)]
pub struct Known {
    /// Sets of [`WAYS`], what came last first; empty until the first comes.
    places: RefCell<Vec<Place>>,
    hasher: RandomState,
}

#[derive(Clone, Default)]
struct Place {
    hash: u64,
    /// It, where it came twice.
    field: Option<(HeaderName, HeaderValue)>,
}

impl Known {
    /// A field, as the crate takes it; `None` where it cannot be one.
    pub(super) fn field(&self, name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        if value.len() > LONGEST || name.len() > LONGEST || is_somebodys(name) {
            return made(name, value);
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        hasher.write(value);
        let hash = hasher.finish();
        let mut places = self.places.borrow_mut();
        if places.is_empty() {
            places.resize(PLACES, Place::default());
        }
        let (sets, _) = places.as_chunks_mut::<WAYS>();
        let set = sets.get_mut(hash as usize % SETS)?;
        let Some(place) = set.iter_mut().find(|place| place.hash == hash) else {
            set.rotate_right(1);
            set[0] = Place { hash, field: None };
            return made(name, value);
        };
        match &place.field {
            Some((its_name, its_value)) if its_value == value && its_name.as_str().as_bytes() == name => {
                place.field.clone()
            }
            Some(_) => made(name, value),
            None => {
                place.field = made(name, value);
                place.field.clone()
            }
        }
    }
}

/// Whether a field's values are one client's own.
fn is_somebodys(name: &[u8]) -> bool {
    matches!(name, b"set-cookie" | b"location" | b"authentication-info")
}

fn made(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

const SETS: usize = 64;
/// So many fields find room beside each other whatever their hashes are.
const WAYS: usize = 4;
const PLACES: usize = SETS * WAYS;
/// Bytes of a name, and of a value, at most.
const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(known: &Known) -> usize {
        known.places.borrow().iter().filter(|place| place.field.is_some()).count()
    }

    #[test]
    fn what_came_twice_is_kept() {
        let known = Known::default();
        for (time, kept_then) in [(1, 0), (2, 1), (3, 1)] {
            let (name, value) = known.field(b"server", b"nginx").unwrap();
            assert_eq!((name.as_str(), value.as_bytes(), kept(&known)), ("server", &b"nginx"[..], kept_then), "{time}");
        }
        // It is never another's.
        assert_eq!(known.field(b"server", b"apache").unwrap().1, "apache");
        assert_eq!(known.field(b"serve", b"rnginx").unwrap().1, "rnginx");
    }

    #[test]
    fn what_is_one_clients_own_or_long_is_not_kept() {
        let known = Known::default();
        let long = [b'a'; LONGEST + 1];
        for _ in 0..3 {
            assert_eq!(known.field(b"set-cookie", b"session=1").unwrap().1, "session=1");
            assert_eq!(known.field(b"link", &long).unwrap().1.as_bytes(), long);
            assert!(known.field(b"a b", b"c").is_none() && known.field(b"a", b"b\n").is_none());
        }
        assert_eq!(kept(&known), 0);
    }

    #[test]
    fn much_that_comes_takes_the_same_room() {
        let known = Known::default();
        for number in 0..4 * PLACES {
            for _ in 0..2 {
                known.field(b"etag", number.to_string().as_bytes()).unwrap();
            }
        }
        assert!(kept(&known) <= PLACES && known.places.borrow().len() == PLACES);
    }
}
