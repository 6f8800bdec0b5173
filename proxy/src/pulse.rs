//! Whether what must never stand still moves: each worker, and the control loop. Without one of them a process would go
//! on as if all were well; systemd's watchdog is told so only as long as all move. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What moves, and how far each had come when it was last looked at.
#[derive(Default)]
pub(crate) struct Pulse {
    parts: Vec<Part>,
}

struct Part {
    name: String,
    /// Goes up as long as it moves.
    beat: Arc<AtomicU32>,
    patience: Duration,
    /// The last beat that was new, and when that was seen.
    last: Option<(u32, Instant)>,
}

impl Pulse {
    /// Looks at one more. It moves at least once in the time of `patience`.
    pub(crate) fn add(&mut self, name: String, beat: Arc<AtomicU32>, patience: Duration) {
        self.parts.push(Part { name, beat, patience, last: None });
    }

    /// One that has stood still for longer than its patience, if there is one.
    pub(crate) fn still(&mut self, now: Instant) -> Option<&str> {
        for part in &mut self.parts {
            let beat = part.beat.load(Relaxed);
            if part.last.is_none_or(|(last, _)| last != beat) {
                part.last = Some((beat, now));
            }
        }
        let is_still = |part: &&Part| part.last.is_some_and(|(_, at)| now.duration_since(at) > part.patience);
        self.parts.iter().find(is_still).map(|part| part.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_for_too_long_is_named() {
        let (worker, control) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let mut pulse = Pulse::default();
        let second = Duration::from_secs(1);
        pulse.add("worker-0".into(), worker.clone(), 5 * second);
        pulse.add("control".into(), control.clone(), 60 * second);
        let begin = Instant::now();
        assert_eq!(pulse.still(begin), None, "nothing is known yet");
        assert_eq!(pulse.still(begin + 5 * second), None);
        assert_eq!(pulse.still(begin + 6 * second), Some("worker-0"));
        worker.fetch_add(1, Relaxed);
        assert_eq!(pulse.still(begin + 7 * second), None);
        worker.fetch_add(1, Relaxed);
        assert_eq!(pulse.still(begin + 60 * second), None);
        worker.fetch_add(1, Relaxed);
        assert_eq!(pulse.still(begin + 61 * second), Some("control"));
    }
}
