//! What a worker has made and will need again: buffers, tasks.
//!
//! Given back last, taken first: so few are in use, and the processor has them at hand. How many wait is bounded, and
//! those that nobody needed for a second go: what a burst took does not stay taken. One thread's, without a lock.

use std::cell::{Cell, RefCell};

/// Values that nobody uses.
#[derive(Debug)]
pub struct Spare<T> {
    kept: RefCell<Vec<T>>,
    /// The fewest that there were since the last look.
    least: Cell<usize>,
    most: usize,
}

impl<T> Spare<T> {
    /// None yet, and never more than so many.
    pub const fn new(most: usize) -> Spare<T> {
        Spare { kept: RefCell::new(Vec::new()), least: Cell::new(0), most }
    }

    /// The one that was given back last.
    pub fn take(&self) -> Option<T> {
        let mut kept = self.kept.borrow_mut();
        let taken = kept.pop();
        self.least.set(self.least.get().min(kept.len()));
        taken
    }

    /// Takes one back; where there are enough already, the caller has it again.
    pub fn give(&self, value: T) -> Result<(), T> {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= self.most {
            return Err(value);
        }
        kept.push(value);
        Ok(())
    }

    /// Those that were not needed since it was called last. Called every second.
    pub fn sweep(&self) -> Vec<T> {
        let mut kept = self.kept.borrow_mut();
        let unneeded = self.least.get().min(kept.len());
        let swept = kept.drain(..unneeded).collect();
        self.least.set(kept.len());
        swept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_taken_first_and_no_more_than_some_are_kept() {
        let spare = Spare::new(2);
        assert_eq!(spare.take(), None);
        assert_eq!([1, 2, 3].map(|value| spare.give(value)), [Ok(()), Ok(()), Err(3)]);
        assert_eq!([spare.take(), spare.take(), spare.take()], [Some(2), Some(1), None]);
    }

    #[test]
    fn what_nobody_needed_goes() {
        let spare = Spare::new(9);
        (0..5).for_each(|value| spare.give(value).unwrap());
        assert!(spare.sweep().is_empty(), "they were all in use");
        let two = [spare.take(), spare.take()];
        two.into_iter().flatten().for_each(|value| spare.give(value).unwrap());
        assert_eq!(spare.sweep(), [0, 1, 2]);
        assert_eq!(spare.sweep(), [4, 3]);
        assert_eq!(spare.take(), None);
    }
}
