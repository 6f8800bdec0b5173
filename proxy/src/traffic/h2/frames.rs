//! Frames in a stream of bytes, however it is cut: only where each begins and what it is. Pure.
//!
//! Nothing is checked here but how long a frame is; what is wrong with it, the `h2` crate finds.

/// What is counted of a frame (RFC 9113 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Bytes of its payload.
    pub(super) length: u32,
    /// Whether it begins inside a head.
    pub(super) inside: bool,
}

/// Where in its frames a connection is.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of the preface still to come.
    preface: usize,
    head: [u8; 9],
    /// How much of it there is.
    have: usize,
    /// Bytes of the payload still to come.
    payload: usize,
    /// Whether a head has begun that goes on in the next frame.
    open: bool,
}

impl Frames {
    /// A connection's beginning, after which the preface comes.
    pub(super) fn after(preface: usize) -> Frames {
        Frames { preface, head: [0; 9], have: 0, payload: 0, open: false }
    }

    /// Goes on, and says what frames begin.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut begins: impl FnMut(Frame)) {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.head.len() {
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.payload = length as usize;
                let inside = self.open;
                if matches!(kind, HEADERS | CONTINUATION) {
                    self.open = flags & END_HEADERS == 0;
                }
                begins(Frame { kind, flags, length, inside });
            }
        }
    }

    /// Whether a request's head has begun and is not all there.
    pub(super) fn is_in_head(&self) -> bool {
        self.open || self.preface > 0 || (self.payload > 0 && matches!(self.head[3], HEADERS | CONTINUATION))
    }
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn scanned(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
        let mut found = Vec::new();
        frames.scan(bytes, |frame| found.push(frame));
        found
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let wire = [&b"12345"[..], &frame(HEADERS, 4, b"abc"), &frame(6, 0, b""), &frame(DATA, 1, &[9; 300])].concat();
        let whole = scanned(&mut Frames::after(5), &wire);
        let kinds: Vec<(u8, u8, u32)> = whole.iter().map(|frame| (frame.kind, frame.flags, frame.length)).collect();
        assert_eq!(kinds, [(HEADERS, 4, 3), (6, 0, 0), (DATA, 1, 300)]);
        for cut in 1..wire.len() {
            let mut frames = Frames::after(5);
            let pieces: Vec<Frame> = wire.chunks(cut).flat_map(|piece| scanned(&mut frames, piece)).collect();
            assert_eq!(pieces, whole, "{cut}");
        }
    }

    #[test]
    fn a_head_is_open_until_its_last_frame_is_there() {
        let mut frames = Frames::after(0);
        scanned(&mut frames, &frame(HEADERS, 0, b"abc"));
        assert!(frames.is_in_head());
        let last = frame(CONTINUATION, END_HEADERS, b"abc");
        scanned(&mut frames, &last[..10]);
        assert!(frames.is_in_head());
        scanned(&mut frames, &last[10..]);
        assert!(!frames.is_in_head());
        scanned(&mut frames, &frame(DATA, 0, b"abc")[..10]);
        assert!(!frames.is_in_head());
        assert!(Frames::after(1).is_in_head());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(wire in proptest::collection::vec(any::<u8>(), 0..400), cut in 1usize..50) {
            let mut frames = Frames::after(24);
            for piece in wire.chunks(cut) {
                let _ = scanned(&mut frames, piece);
            }
        }
    }
}
