//! Waiting for what is waited for, never for time to pass.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Asks again until the answer is `Ok`, and panics with the last `Err` once the time is up.
pub async fn eventually<T, E: Display>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        let error = match ask().await {
            Ok(answer) => return answer,
            Err(error) => error,
        };
        assert!(started.elapsed() < within, "{what}: not within {within:?}; last: {error}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Holds for as long as it is asked; panics with the first `Err`.
pub async fn always<E: Display>(what: &str, during: Duration, mut ask: impl AsyncFnMut() -> Result<(), E>) {
    let started = Instant::now();
    while started.elapsed() < during {
        if let Err(error) = ask().await {
            panic!("{what}: no longer after {:?}: {error}", started.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `Err` with what is said, unless it holds: for the closures of [`eventually`].
pub fn ensure(holds: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(5);
