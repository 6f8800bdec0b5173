//! Not yet.
use crate::drill::{Length, Outcome};

pub(super) async fn denied(_length: Length) -> Outcome {
    Outcome::fail("not written")
}
pub(super) async fn hidden(_length: Length) -> Outcome {
    Outcome::fail("not written")
}
