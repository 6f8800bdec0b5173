//! How much a client may ask of a connection beside what it is for: frames that carry nothing, requests taken back,
//! heads of requests that wait. Whoever exceeds it is told to calm down (RFC 9113 section 10.5).
//!
//! Allowances grow with time and with what was really served, so that a busy client is never short of them and an idle
//! one cannot save up. The `h2` crate has limits of its own for some of this; none of them counts frames. Frames whose
//! length alone is wrong are found here, too: to it they are any malformed frames.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use h2::Reason;

use super::frames::{self, Frame, Frames};
use super::unsent::Unsent;
use super::upload::Uploads;
use crate::listener::watch::Watch;

/// What a connection's streams and its meter share.
#[derive(Debug)]
pub(super) struct Calm {
    watch: Rc<Watch>,
    frames: RefCell<Frames>,
    idle_frames: Allowance,
    resets: Allowance,
    /// Heads that did not become requests.
    bad_heads: Allowance,
    /// Heads that came and may not have been looked at.
    ahead: Cell<u32>,
    /// Bytes of heads of requests without an answer.
    heads: Cell<usize>,
    /// Bytes written that were not counted in favour yet.
    written: Cell<usize>,
    uploads: Rc<Uploads>,
    unsent: Rc<Unsent>,
    begun: Cell<bool>,
    /// Why the connection must end, once it must.
    fault: Cell<Option<Reason>>,
}

impl Calm {
    /// A connection that was just accepted.
    pub(super) fn new(watch: Rc<Watch>) -> Calm {
        Calm {
            frames: RefCell::new(Frames::after(super::PREFACE.len())),
            idle_frames: Allowance::new(MOST_IDLE_FRAMES, IDLE_FRAMES_A_SECOND),
            resets: Allowance::new(MOST_RESETS, RESETS_A_SECOND),
            bad_heads: Allowance::new(MOST_BAD_HEADS, BAD_HEADS_A_SECOND),
            ahead: Cell::new(0),
            heads: Cell::new(0),
            written: Cell::new(0),
            uploads: Rc::default(),
            unsent: Rc::default(),
            begun: Cell::new(false),
            fault: Cell::new(None),
            watch,
        }
    }

    /// The connection's watch.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What arrives on it.
    pub(super) fn uploads(&self) -> Rc<Uploads> {
        self.uploads.clone()
    }

    /// What was given to it and is not written.
    pub(super) fn unsent(&self) -> &Rc<Unsent> {
        &self.unsent
    }

    /// Why the connection must end, once it must.
    pub(super) fn fault(&self) -> Option<Reason> {
        self.fault.get()
    }

    /// Whether a request's head has begun and is not all there.
    pub(super) fn is_in_head(&self) -> bool {
        self.frames.borrow().is_in_head()
    }

    /// Bytes came from the client.
    pub(super) fn read(&self, bytes: &[u8]) {
        let (mut cost, mut heads) = (0, 0);
        let mut fault = None;
        self.frames.borrow_mut().scan(bytes, |frame| {
            cost += cost_of(frame);
            heads += u32::from(frame.kind == frames::HEADERS);
            let first = !self.begun.replace(true);
            fault = fault.or(fault_of(frame, first));
        });
        if cost > 0 && !self.idle_frames.take(cost, self.watch.now()) {
            fault = fault.or(Some(Reason::ENHANCE_YOUR_CALM));
        }
        self.ahead.set(self.ahead.get().saturating_add(heads));
        // What it becomes is known later: one that is too large, the crate answers 431 without saying so.
        if heads > 0 && !self.bad_heads.take(heads, self.watch.now()) {
            fault = fault.or(Some(Reason::ENHANCE_YOUR_CALM));
        }
        self.fault.set(self.fault.get().or(fault));
    }

    /// A head became a request.
    pub(super) fn accepted(&self) {
        self.bad_heads.give(1);
        self.ahead.set(self.ahead.get().saturating_sub(1));
    }

    /// No head waits to become a request.
    pub(super) fn all_accepted(&self) {
        self.ahead.set(0);
    }

    /// Whether more heads came than should wait to be looked at.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.get() >= MOST_AHEAD
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
        // It may have had trailers.
        self.bad_heads.give(1);
    }

    /// A request was taken back.
    pub(super) fn taken_back(&self) {
        if !self.resets.take(1, self.watch.now()) {
            self.fault.set(self.fault.get().or(Some(Reason::ENHANCE_YOUR_CALM)));
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

/// What is wrong with a frame by its head alone: a connection begins with settings (RFC 9113 section 3.4), and some
/// frames have one length (sections 6.4, 6.5, 6.7 and 6.9).
fn fault_of(frame: Frame, first: bool) -> Option<Reason> {
    let acknowledges = frame.flags & frames::ACK != 0;
    if first && (frame.kind != frames::SETTINGS || acknowledges) {
        return Some(Reason::PROTOCOL_ERROR);
    }
    let fits = match frame.kind {
        frames::RST_STREAM | frames::WINDOW_UPDATE => frame.length == 4,
        frames::PING => frame.length == 8,
        frames::SETTINGS if acknowledges => frame.length == 0,
        frames::SETTINGS => frame.length.is_multiple_of(6),
        _ => true,
    };
    // Inside a head it is worse that it is there at all.
    (!fits && !frame.inside).then_some(Reason::FRAME_SIZE_ERROR)
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
/// Heads that the `h2` crate may have made of what came before we look at the first.
const MOST_AHEAD: u32 = 16;
/// Heads that are malformed, too large or too many, at once: as many as a client may send that does not know yet how
/// many it may, and as many again.
const MOST_BAD_HEADS: u32 = 200;
const BAD_HEADS_A_SECOND: u32 = 2;
/// Bytes of heads that may wait for answers, as the `h2` crate counts them. Each is in memory up to four times: as it
/// came, as fields, as its server gets it.
const MOST_HEADS: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Rc<Calm> {
        let calm = Rc::new(Calm::new(Rc::new(Watch::new(Rc::default()))));
        calm.read(super::super::PREFACE);
        calm.read(&frame(frames::SETTINGS, 0, 6));
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
            let fault = calm.fault();
            assert!(fault.is_none_or(|fault| fault == Reason::ENHANCE_YOUR_CALM), "{fault:?}");
            fault.is_some()
        })
    }

    #[test]
    fn frames_that_carry_nothing_are_borne_for_a_while() {
        for (kind, length) in [(2, 5), (4, 0), (6, 8), (8, 4), (9, 4), (0xb, 4)] {
            assert_eq!(borne(&frame(kind, 0, length)), Some(1000), "{kind}");
        }
        assert_eq!(borne(&frame(frames::RST_STREAM, 0, 4)), Some(500));
        assert_eq!(borne(&frame(frames::DATA, 0, 0)), Some(500));
        assert_eq!(borne(&frame(frames::DATA, frames::PADDED, 1)), Some(1000));
        assert_eq!(borne(&frame(frames::DATA, 0, 1)), None);
    }

    #[test]
    fn frames_have_their_lengths() {
        let fault = |wire: Vec<u8>| {
            let calm = calm();
            calm.read(&wire);
            calm.fault()
        };
        for wrong in [frame(6, 0, 7), frame(3, 0, 5), frame(8, 0, 3), frame(4, 0, 5), frame(4, frames::ACK, 6)] {
            assert_eq!(fault(wrong.clone()), Some(Reason::FRAME_SIZE_ERROR), "{wrong:?}");
            assert_eq!(fault([frame(frames::HEADERS, 0, 1), wrong].concat()), None);
        }
        for right in [frame(6, 0, 8), frame(3, 0, 4), frame(8, 0, 4), frame(4, 0, 12), frame(4, frames::ACK, 0)] {
            assert_eq!(fault(right.clone()), None, "{right:?}");
        }
        let begins = Calm::new(Rc::new(Watch::new(Rc::default())));
        begins.read(super::super::PREFACE);
        begins.read(&frame(4, frames::ACK, 0));
        assert_eq!(begins.fault(), Some(Reason::PROTOCOL_ERROR));
    }

    #[test]
    fn who_is_served_may_send_as_much_as_that_takes() {
        let calm = calm();
        for _ in 0..100_000 {
            calm.read(&frame(frames::HEADERS, 5, 10));
            calm.accepted();
            calm.read(&frame(8, 0, 4));
            calm.answered();
            calm.written(16 * 1024);
            (0..8).for_each(|_| calm.read(&frame(8, 0, 4)));
        }
        assert_eq!(calm.fault(), None);
    }

    #[test]
    fn heads_that_become_no_requests_are_counted() {
        let calm = calm();
        let head = frame(frames::HEADERS, 5, 10);
        for _ in 0..MOST_BAD_HEADS {
            calm.read(&head);
        }
        assert_eq!(calm.fault(), None);
        calm.accepted();
        calm.read(&head);
        assert_eq!(calm.fault(), None);
        calm.read(&head);
        assert_eq!(calm.fault(), Some(Reason::ENHANCE_YOUR_CALM));
    }

    #[test]
    fn heads_are_looked_at_before_more_are_read() {
        let calm = calm();
        let head = frame(frames::HEADERS, 5, 10);
        (0..MOST_AHEAD).for_each(|_| calm.read(&head));
        assert!(calm.is_ahead());
        calm.accepted();
        assert!(!calm.is_ahead());
        // Those that become no requests are not waited for.
        (0..MOST_AHEAD).for_each(|_| calm.read(&head));
        assert!(calm.is_ahead());
        calm.all_accepted();
        assert!(!calm.is_ahead());
    }

    #[test]
    fn requests_may_be_taken_back_as_often_as_others_are_answered() {
        let calm = calm();
        for _ in 0..1000 {
            calm.taken_back();
            calm.answered();
        }
        assert_eq!(calm.fault(), None);
        (0..MOST_RESETS).for_each(|_| calm.taken_back());
        assert_eq!(calm.fault(), None);
        calm.taken_back();
        assert_eq!(calm.fault(), Some(Reason::ENHANCE_YOUR_CALM));
    }

    #[test]
    fn heads_that_wait_are_bounded() {
        let calm = calm();
        let held: Vec<Held> = (0..8).map(|_| calm.hold(32 * 1024).unwrap()).collect();
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
