//! What a request is sent on: a connection that was kept, a place on one that others use, or a new one.

use crate::backend::Server;
use crate::backend::multiplexed::Link;
use crate::backend::pool::{self, Limits, Unconnected, Way};
use crate::backend::wire::Announced;
use crate::listener::worker::Worker;

/// A server, and how a request wants to be sent to it.
pub(super) struct Wanted<'a> {
    pub(super) server: &'a Server,
    /// Whether by HTTP/2, where the server speaks it.
    pub(super) http2: bool,
    /// What the connection began with, or begins with.
    pub(super) announced: Option<Box<Announced>>,
}

impl Wanted<'_> {
    /// What stands already. With `idempotent` it may be closed by now: the request can be sent again then.
    pub(super) fn kept(&self, worker: &Worker, kept_closed: bool, idempotent: bool) -> Option<Link> {
        let Server { live, tls, .. } = self.server;
        let announced = self.announced.as_deref();
        if self.http2
            && let Some(call) = worker.pool.shared.join(live.number, announced, tls.as_ref())
        {
            return Some(Link::Http2(call));
        }
        if kept_closed {
            return None;
        }
        let kept = worker.pool.take(live.number, announced, tls.as_ref(), worker.now());
        // What cannot be sent twice is not entrusted to a connection that is closed by now.
        kept.filter(|kept| idempotent || kept.is_open()).map(Link::Http1)
    }

    /// A connection that is opened for it, or a place on one that others open in this moment.
    pub(super) async fn open(self, worker: &Worker, limits: Limits) -> Result<Link, Unconnected> {
        let Server { live, tls, .. } = self.server;
        let process = &*worker.process;
        let (announced, tls, buffers) = (self.announced, tls.as_ref(), worker.pool.buffers.clone());
        let way = Way { announced, tls, http1_alone: !self.http2, limits, buffers, process };
        if self.http2 {
            worker.pool.shared.open(live, way).await
        } else {
            pool::connect(live, way).await.map(Link::Http1)
        }
    }
}
