//! Sidekicks and containers that die.

use crate::drill::{Length, Outcome};

/// C18.
pub(super) async fn die(_length: Length) -> Outcome {
    Outcome::fail("not written")
}
