//! Places for the admin API's connections: when all are taken, whoever waits longest without a whole request gives way.
//!
//! So connections that say nothing, or half of something, keep nobody out. One whose request is being answered, or that
//! follows a stream, is left alone. Not here: how long a head may take (`listen.rs`), or an answer (`guard.rs`).

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// All of them.
pub(super) struct Places {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// Tells that a connection began to wait.
    begun: Notify,
}

#[derive(Default)]
struct Idle {
    /// Who waits, by when it began.
    waiting: BTreeMap<u64, CancellationToken>,
    last: u64,
}

/// One that is taken.
pub(super) struct Place {
    places: Arc<Places>,
    gives_way: CancellationToken,
    /// Under which number it waits.
    number: Mutex<Option<u64>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Places> {
        Arc::new(Places { free: Arc::new(Semaphore::new(most)), idle: Mutex::default(), begun: Notify::new() })
    }

    /// A place for a connection to come, which does not wait before it is there.
    pub(super) async fn take(self: &Arc<Places>) -> Option<Arc<Place>> {
        loop {
            if let Ok(permit) = self.free.clone().try_acquire_owned() {
                return Some(self.place(permit));
            }
            if self.close_longest() {
                return Some(self.place(self.free.clone().acquire_owned().await.ok()?));
            }
            tokio::select! {
                permit = self.free.clone().acquire_owned() => return Some(self.place(permit.ok()?)),
                () = self.begun.notified() => {}
            }
        }
    }

    fn place(self: &Arc<Places>, permit: OwnedSemaphorePermit) -> Arc<Place> {
        let (gives_way, number) = (CancellationToken::new(), Mutex::default());
        Arc::new(Place { places: self.clone(), gives_way, number, _permit: permit })
    }

    fn close_longest(&self) -> bool {
        let longest = self.idle().waiting.pop_first();
        longest.map(|(_, gives_way)| gives_way.cancel()).is_some()
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for a request, from now on.
    pub(super) fn waits(&self) {
        self.works();
        let mut idle = self.places.idle();
        idle.last += 1;
        let last = idle.last;
        idle.waiting.insert(last, self.gives_way.clone());
        *self.number() = Some(last);
        drop(idle);
        self.places.begun.notify_one();
    }

    /// Has a whole request.
    pub(super) fn works(&self) {
        if let Some(number) = self.number().take() {
            self.places.idle().waiting.remove(&number);
        }
    }

    /// Ends when the connection must make room.
    pub(super) async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.works();
    }
}

/// A request's body. While it comes, its connection waits; it fails when nothing comes for too long.
pub(super) struct Arriving {
    body: Incoming,
    place: Arc<Place>,
    silence: Pin<Box<Sleep>>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, place: Arc<Place>) -> Arriving {
        if body.is_end_stream() {
            place.works();
        }
        Arriving { body, place, silence: Box::pin(sleep(LONGEST_SILENCE)) }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if frame.is_none() || self.body.is_end_stream() {
                    self.place.works();
                }
                self.silence.as_mut().reset(Instant::now() + LONGEST_SILENCE);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => self.silence.as_mut().poll(cx).map(|()| {
                let seconds = LONGEST_SILENCE.as_secs();
                Some(Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {seconds} s")).into()))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. When it has gone, its connection waits again.
pub(super) struct Leaving {
    body: axum::body::Body,
    place: Arc<Place>,
}

impl Leaving {
    pub(super) fn new(body: axum::body::Body, place: Arc<Place>) -> Leaving {
        Leaving { body, place }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.place.waits();
    }
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// In a request's body.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);
