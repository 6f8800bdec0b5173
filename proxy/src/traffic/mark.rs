//! What this process writes on every request it forwards, so that it knows one that comes back.
//!
//! `CDN-Loop` (RFC 8586), not `Via`: servers take a request with `Via` for one that must not be compressed, as nginx does
//! by default. What others wrote there stays. A loop over other proxies is found the same, for none of them takes it off.

use crate::message::fields::Fields;

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
    pub fn is_in(&self, fields: &Fields) -> bool {
        let mut items = fields.get_all(CDN_LOOP).flat_map(|value| value.split(|byte| *byte == b','));
        items.any(|item| {
            let name = item.split(|byte| *byte == b';').next().unwrap_or_default();
            name.trim_ascii() == self.name.as_bytes()
        })
    }
}

impl Default for Mark {
    fn default() -> Mark {
        Mark::new()
    }
}

const CDN_LOOP: &str = "cdn-loop";

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_process_knows_its_own_mark_among_others() {
        let (mark, other) = (Mark::new(), Mark::new());
        let has = |values: &[&str]| {
            let mut fields = Fields::default();
            for value in values {
                fields.append(&HeaderName::from_static(CDN_LOOP), &HeaderValue::from_str(value).unwrap());
            }
            mark.is_in(&fields)
        };
        let line = String::from_utf8(mark.line().to_vec()).unwrap();
        let own = line.strip_prefix("cdn-loop: ").unwrap().strip_suffix("\r\n").unwrap();
        assert!(has(&[own]) && has(&["cloud.example", &format!("a.example;x=1 , {own};hop=2")]));
        assert!(!has(&[]) && !has(&["", &other.name, &format!("{own}0"), &format!("x;{own}")]));
    }
}
