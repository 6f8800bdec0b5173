//! What this process writes on every request it forwards, so that it knows one that comes back.
//!
//! `CDN-Loop` (RFC 8586), not `Via`: servers take a request with `Via` for one that must not be compressed, as nginx does
//! by default. What others wrote there stays. A loop over other proxies is found the same, for none of them takes it off.

use http::header::{HeaderMap, HeaderName};

/// A name that no other process has, and the field that says it.
#[derive(Debug)]
pub struct Mark {
    name: String,
    line: Vec<u8>,
}

impl Mark {
    /// Another one than any before.
    pub fn new() -> Mark {
        let name = format!("etna-{:016x}", fastrand::u64(..));
        Mark { line: format!("{CDN_LOOP}: {name}\r\n").into_bytes(), name }
    }

    /// As it is written into a request's head.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Whether a request was here before.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&CDN_LOOP) && self.is_among(headers)
    }

    #[cold]
    fn is_among(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(&CDN_LOOP).iter().filter_map(|value| value.to_str().ok());
        let mut names =
            values.flat_map(|value| value.split(',')).map(|item| item.split(';').next().unwrap_or_default());
        names.any(|name| name.trim() == self.name)
    }
}

impl Default for Mark {
    fn default() -> Mark {
        Mark::new()
    }
}

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_process_knows_its_own_mark_among_others() {
        let (mark, other) = (Mark::new(), Mark::new());
        let has = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("cdn-loop", HeaderValue::from_str(value).unwrap());
            }
            mark.is_in(&headers)
        };
        let line = String::from_utf8(mark.line().to_vec()).unwrap();
        let own = line.strip_prefix("cdn-loop: ").unwrap().strip_suffix("\r\n").unwrap();
        assert!(has(&[own]) && has(&["cloud.example", &format!("a.example;x=1 , {own};hop=2")]));
        assert!(!has(&[]) && !has(&["", &other.name, &format!("{own}0"), &format!("x;{own}")]));
    }
}
