//! How much a client may ask of a connection beside what it is for: frames that carry nothing, requests taken back,
//! heads of requests that wait. Whoever exceeds it is told to calm down (RFC 9113 section 10.5).
//!
//! Allowances grow with time and with what was really served, so that a busy client is never short of them and an idle
//! one cannot save up. The `h2` crate has limits of its own for some of this; none of them counts frames.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::frames::{self, Frame, Frames};
use crate::listener::watch::Watch;

/// What a connection's streams and its meter share.
#[derive(Debug)]
pub(super) struct Calm {
    watch: Arc<Watch>,
    frames: RefCell<Frames>,
    idle_frames: Allowance,
    resets: Allowance,
    /// Bytes of heads of requests without an answer.
    heads: Cell<usize>,
    /// Bytes written that were not counted in favour yet.
    written: Cell<usize>,
    exceeded: Cell<bool>,
}

impl Calm {
    /// A connection that was just accepted.
    pub(super) fn new(watch: Arc<Watch>) -> Calm {
        Calm {
            frames: RefCell::new(Frames::after(super::PREFACE.len())),
            idle_frames: Allowance::new(MOST_IDLE_FRAMES, IDLE_FRAMES_A_SECOND),
            resets: Allowance::new(MOST_RESETS, RESETS_A_SECOND),
            heads: Cell::new(0),
            written: Cell::new(0),
            exceeded: Cell::new(false),
            watch,
        }
    }

    /// The connection's watch.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Whether the client asked for too much.
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeded.get()
    }

    /// Whether a request's head has begun and is not all there.
    pub(super) fn is_in_head(&self) -> bool {
        self.frames.borrow().is_in_head()
    }

    /// Bytes came from the client.
    pub(super) fn read(&self, bytes: &[u8]) {
        let mut cost = 0;
        self.frames.borrow_mut().scan(bytes, |frame| cost += cost_of(frame));
        if cost > 0 && !self.idle_frames.take(cost, self.watch.now()) {
            self.exceeded.set(true);
        }
    }

    /// Bytes went to the client: to take them, it has to send frames that carry nothing.
    pub(super) fn written(&self, bytes: usize) {
        let all = self.written.get() + bytes;
        self.written.set(all % BYTES_FOR_A_FRAME);
        self.idle_frames.give((all / BYTES_FOR_A_FRAME) as u32);
    }

    /// A request was answered whole.
    pub(super) fn answered(&self) {
        self.idle_frames.give(FRAMES_FOR_A_REQUEST);
        self.resets.give(1);
    }

    /// A request was taken back.
    pub(super) fn taken_back(&self) {
        if !self.resets.take(1, self.watch.now()) {
            self.exceeded.set(true);
        }
    }

    /// Makes room for a head, until what is given back is dropped; `None` where too many wait.
    pub(super) fn hold(self: &Rc<Calm>, bytes: usize) -> Option<Held> {
        let all = self.heads.get() + bytes;
        (all <= MOST_HEADS).then(|| {
            self.heads.set(all);
            Held { calm: self.clone(), bytes }
        })
    }
}

/// Room for a head, as long as this value lives.
#[derive(Debug)]
pub(super) struct Held {
    calm: Rc<Calm>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.calm.heads.set(self.calm.heads.get() - self.bytes);
    }
}

/// What a frame costs. A request is paid for by being answered; bytes of bodies are a matter of flow control.
fn cost_of(frame: Frame) -> u32 {
    match frame.kind {
        frames::DATA if frame.flags & frames::END_STREAM != 0 => 0,
        frames::DATA if frame.length == 0 => 2,
        // Most or all of it may be padding.
        frames::DATA if frame.flags & frames::PADDED != 0 && frame.length <= 256 => 1,
        frames::DATA => 0,
        frames::RST_STREAM => 2,
        _ => 1,
    }
}

/// Something that may be done so often, and again after a while.
#[derive(Debug)]
struct Allowance {
    left: Cell<u32>,
    most: u32,
    a_second: u32,
    /// The second up to which it has grown.
    grown: Cell<u32>,
}

impl Allowance {
    fn new(most: u32, a_second: u32) -> Allowance {
        Allowance { left: Cell::new(most), most, a_second, grown: Cell::new(0) }
    }

    fn give(&self, n: u32) {
        self.left.set(self.left.get().saturating_add(n).min(self.most));
    }

    fn take(&self, n: u32, now: u32) -> bool {
        let seconds = now.saturating_sub(self.grown.replace(now));
        self.give(self.a_second.saturating_mul(seconds));
        let left = self.left.get().checked_sub(n);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Frames that carry nothing, at once.
const MOST_IDLE_FRAMES: u32 = 1000;
const IDLE_FRAMES_A_SECOND: u32 = 100;
/// Bytes that went to the client for which it may send one of these.
const BYTES_FOR_A_FRAME: usize = 1024;
/// Such frames that come with a request: its head, updates of windows, a ping.
const FRAMES_FOR_A_REQUEST: u32 = 4;
/// Requests that may be taken back at once.
const MOST_RESETS: u32 = 90;
const RESETS_A_SECOND: u32 = 1;
/// Bytes of heads that may wait for answers, as the `h2` crate counts them.
const MOST_HEADS: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Rc<Calm> {
        let calm = Rc::new(Calm::new(Arc::new(Watch::new(Arc::default()))));
        calm.read(super::super::PREFACE);
        calm
    }

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut wire = [&length[1..], &[kind, flags, 0, 0, 0, 1]].concat();
        wire.resize(9 + payload, 0);
        wire
    }

    fn borne(wire: &[u8]) -> Option<usize> {
        let calm = calm();
        (1..10_000).find(|_| {
            calm.read(wire);
            calm.is_exceeded()
        })
    }

    #[test]
    fn frames_that_carry_nothing_are_borne_for_a_while() {
        for kind in [2, 4, 6, 8, 9, 0xb] {
            assert_eq!(borne(&frame(kind, 0, 4)), Some(1001), "{kind}");
        }
        assert_eq!(borne(&frame(frames::RST_STREAM, 0, 4)), Some(501));
        assert_eq!(borne(&frame(frames::DATA, 0, 0)), Some(501));
        assert_eq!(borne(&frame(frames::DATA, frames::PADDED, 1)), Some(1001));
        assert_eq!(borne(&frame(frames::DATA, 0, 1)), None);
    }

    #[test]
    fn who_is_served_may_send_as_much_as_that_takes() {
        let calm = calm();
        for _ in 0..100_000 {
            calm.read(&frame(frames::HEADERS, 5, 10));
            calm.read(&frame(8, 0, 4));
            calm.answered();
            calm.written(16 * 1024);
            (0..8).for_each(|_| calm.read(&frame(8, 0, 4)));
        }
        assert!(!calm.is_exceeded());
    }

    #[test]
    fn requests_may_be_taken_back_as_often_as_others_are_answered() {
        let calm = calm();
        for _ in 0..1000 {
            calm.taken_back();
            calm.answered();
        }
        assert!(!calm.is_exceeded());
        (0..MOST_RESETS).for_each(|_| calm.taken_back());
        assert!(!calm.is_exceeded());
        calm.taken_back();
        assert!(calm.is_exceeded());
    }

    #[test]
    fn heads_that_wait_are_bounded() {
        let calm = calm();
        let held: Vec<Held> = (0..16).map(|_| calm.hold(32 * 1024).unwrap()).collect();
        assert!(calm.hold(1).is_none());
        drop(held);
        assert!(calm.hold(1).is_some());
    }

    #[test]
    fn time_gives_back() {
        let allowance = Allowance::new(10, 2);
        assert!(allowance.take(10, 0) && !allowance.take(1, 0));
        assert!(allowance.take(2, 1) && !allowance.take(1, 1));
        assert!(allowance.take(10, 100) && !allowance.take(1, 100));
    }
}
