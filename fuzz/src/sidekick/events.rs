//! `etna_sidekick::docker::Parser`: Docker's event stream, cut anywhere; what is made of it never fails.

use std::time::Instant;

use etna_sidekick::docker::{Event, Parser};
use etna_sidekick::follow::Tracker;

use super::containers::policy;

/// A byte for where the rest, the stream, is cut.
pub fn check(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(whole, read(stream, usize::from(*piece) + 1), "it matters where the stream is cut");
    let mut tracker = Tracker::new(policy(), None, true);
    let now = Instant::now();
    for event in whole.0 {
        let next = tracker.event(&event, now);
        assert!(next.inspect.is_none_or(|(id, _)| id == event.container && !id.is_empty()));
    }
    assert!(tracker.wanted().members.is_empty());
}

fn read(stream: &[u8], piece: usize) -> (Vec<Event>, u64) {
    let mut parser = Parser::default();
    stream.chunks(piece).for_each(|bytes| parser.feed(bytes));
    (std::iter::from_fn(|| parser.pop()).collect(), parser.take_bad())
}
