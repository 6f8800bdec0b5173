//! Docker's event stream: bytes in, events out.
//!
//! The stream is one JSON object a line, cut into chunks anywhere. A line that is no event is counted and skipped;
//! a line longer than [`LINE_MAX`] is dropped to its end. Pure: the connection is in `mod.rs`.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

/// The longest line read, in bytes. Docker's own are below 10 KiB unless labels are huge.
pub const LINE_MAX: usize = 1 << 20;

/// One event, of whatever type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// `container`, `network`, …; `container` where an old API does not say.
    pub kind: String,
    /// `start`, `kill`, `health_status: healthy`, …
    pub action: String,
    /// The container it is about, also for network events; empty if about none.
    pub container: String,
    /// `signal` and the like.
    pub attributes: BTreeMap<String, String>,
    /// When, in nanoseconds since 1970 by Docker's clock; 0 if it does not say.
    pub time: i64,
}

impl Event {
    /// Reads the newer form, and the three fields that were all of it before API 1.22; `None` if it is no object.
    fn read(raw: &Value) -> Option<Event> {
        raw.as_object()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let first = |a: &Value, b: &Value| if a.as_str().is_some_and(|a| !a.is_empty()) { text(a) } else { text(b) };
        let attributes: BTreeMap<String, String> = raw["Actor"]["Attributes"]
            .as_object()
            .map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
            .unwrap_or_default();
        let kind = first(&raw["Type"], &Value::from("container"));
        let container = match kind.as_str() {
            "container" => first(&raw["Actor"]["ID"], &raw["id"]),
            _ => attributes.get("container").cloned().unwrap_or_default(),
        };
        let seconds = || raw["time"].as_i64().unwrap_or(0).saturating_mul(1_000_000_000);
        let time = raw["timeNano"].as_i64().unwrap_or_else(seconds);
        Some(Event { kind, action: first(&raw["Action"], &raw["status"]), container, attributes, time })
    }
}

/// Cuts bytes into lines and lines into events.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    skipping: bool,
    ready: VecDeque<Event>,
    bad: u64,
}

impl Parser {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..end]);
            self.finish_line();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// The next whole event.
    pub fn pop(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// How many lines were no events since this was last asked.
    pub fn take_bad(&mut self) -> u64 {
        std::mem::take(&mut self.bad)
    }

    fn extend(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.line.len() + part.len() > LINE_MAX {
            self.line = Vec::new();
            self.skipping = true;
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn finish_line(&mut self) {
        if std::mem::take(&mut self.skipping) {
            self.bad += 1;
            return;
        }
        // Several objects on one line are tolerated: some proxies in front of the socket re-frame the stream.
        for raw in serde_json::Deserializer::from_slice(&self.line).into_iter::<Value>() {
            match raw.ok().as_ref().and_then(Event::read) {
                Some(event) => self.ready.push_back(event),
                None => {
                    self.bad += 1;
                    break;
                }
            }
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KILL: &str = r#"{"status":"kill","id":"c1","from":"tb-wp:1","Type":"container","Action":"kill","Actor":{"ID":"c1","Attributes":{"image":"tb-wp:1","name":"wordpress-1","signal":"28"}},"scope":"local","time":1795243380,"timeNano":1795243380123456789}"#;

    fn all(chunks: &[&[u8]]) -> (Vec<Event>, u64) {
        let mut parser = Parser::default();
        chunks.iter().for_each(|chunk| parser.feed(chunk));
        (std::iter::from_fn(|| parser.pop()).collect(), parser.take_bad())
    }

    #[test]
    fn reads_the_new_form_the_old_form_and_networks() {
        let text = format!(
            "{KILL}\n{}\n{}\n",
            r#"{"status":"die","id":"c2","from":"x","time":12}"#,
            r#"{"Type":"network","Action":"disconnect","Actor":{"ID":"n1","Attributes":{"container":"c3","name":"bridge"}},"time":5}"#
        );
        let (events, bad) = all(&[text.as_bytes()]);
        assert_eq!(bad, 0);
        assert_eq!((events[0].action.as_str(), events[0].container.as_str()), ("kill", "c1"));
        assert_eq!(events[0].attributes["signal"], "28");
        assert_eq!(events[0].time, 1_795_243_380_123_456_789);
        assert_eq!((events[1].kind.as_str(), events[1].action.as_str()), ("container", "die"));
        assert_eq!((events[1].container.as_str(), events[1].time), ("c2", 12_000_000_000));
        assert_eq!((events[2].kind.as_str(), events[2].container.as_str()), ("network", "c3"));
    }

    #[test]
    fn a_bad_line_costs_only_itself() {
        let text = format!("{{\"Type\":\n{KILL}\nnot json\n\n[1]\n{KILL}{KILL}\n");
        let (events, bad) = all(&[text.as_bytes()]);
        assert_eq!(events.len(), 3);
        assert!(bad >= 2);
    }

    #[test]
    fn an_endless_line_is_dropped_to_its_end() {
        let flood = vec![b'x'; LINE_MAX / 2 + 1];
        let tail = format!("\n{KILL}\n");
        let (events, bad) = all(&[&flood, &flood, &flood, tail.as_bytes()]);
        assert_eq!((events.len(), bad), (1, 1));
    }

    proptest! {
        #[test]
        fn where_chunks_are_cut_does_not_matter(cuts in proptest::collection::vec(0usize..900, 0..12)) {
            let text = format!("{KILL}\ngarbage\n{KILL}\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(all(&chunks), all(&[text.as_bytes()]));
        }

        #[test]
        fn never_panics(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            all(&chunks);
        }

        #[test]
        fn never_panics_on_almost_json(text in r#"(\{"(Type|Action|Actor|time|id)":(null|1|"a"|\{"ID":2,"Attributes":\[\]\}|-1e99)\}\n?){0,8}"#) {
            all(&[text.as_bytes()]);
        }
    }
}
