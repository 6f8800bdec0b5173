//! Following an etcd: whole revisions, in order, and never silence without knowing.
//!
//! etcd does not split a revision over answers unless it is asked to, and it is not. Every 2 s without an answer we
//! ask for progress: a member that does not answer within 3.5 s is frozen. A revision or a raft term lower than one
//! already seen means that the history was replaced (a backup was restored), which etcd itself never tells; since a
//! member may also only lag behind, the cluster is asked before a lower revision is believed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{Client, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use tokio::time::Instant;

use super::error::Trouble;
use super::{Inner, error};
use crate::engine::{Batch, Change, Error, Revision};

/// Watches what comes after a revision.
pub(super) async fn start(
    etcd: Arc<Inner>,
    after: Revision,
) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
    let first = |client: Client| open(&etcd, client, after);
    let (requests, answers, first) = etcd.members.ask("watch", true, first).await?;
    let (cluster, term) = (etcd.cluster.load(Ordering::Relaxed), etcd.term.load(Ordering::Relaxed));
    if cluster != 0 && first.header().is_some_and(|now| now.cluster_id() != cluster || now.raft_term() < term) {
        tracing::warn!("etcd is not the cluster it was, or its history was replaced; it is read anew");
        return Err(replaced());
    }
    let mut watching = Watching {
        etcd,
        requests,
        answers,
        waiting: VecDeque::new(),
        seen: after,
        last: after,
        heard: Instant::now(),
        asked: None,
    };
    watching.take(&first).await?;
    Ok(unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(batch) => Some((Ok(batch), Some(watching))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

type Opened = (WatchRequestSender, WatchResponseStream, WatchResponse);

/// Opens the watch and waits for its first answer. With a login that has ended it is opened twice: etcd reports that
/// in an answer, which the client library does not look at.
async fn open(etcd: &Inner, client: Client, after: Revision) -> Result<Opened, etcd_client::Error> {
    let options = WatchOptions::new()
        .with_range(etcd.end())
        .with_start_revision(after.0.saturating_add(1))
        .with_progress_notify();
    let mut fresh = false;
    loop {
        let mut watch = client.watch_client().max_decoding_message_size(LONGEST_ANSWER);
        let stream = watch.watch(etcd.prefix.clone(), Some(options.clone())).await?;
        let (requests, mut answers) = stream.split();
        let Some(first) = answers.message().await? else {
            return Err(etcd_client::Error::WatchError("the watch ended before it began".into()));
        };
        if !first.canceled() || fresh || !first.cancel_reason().contains(LOGIN_ENDED) {
            return Ok((requests, answers, first));
        }
        client.refresh_token().await?;
        fresh = true;
    }
}

struct Watching {
    etcd: Arc<Inner>,
    requests: WatchRequestSender,
    answers: WatchResponseStream,
    waiting: VecDeque<Batch>,
    /// The newest revision a member has told of.
    seen: Revision,
    /// The newest revision queued or yielded.
    last: Revision,
    heard: Instant,
    /// When progress was asked for and not yet told.
    asked: Option<Instant>,
}

impl Watching {
    async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            if let Some(batch) = self.waiting.pop_front() {
                return Ok(batch);
            }
            let wake = match self.asked {
                Some(at) => at + LONGEST_SILENCE,
                None => self.heard + QUIET,
            };
            tokio::select! {
                // Whoever polls us may come late; what has arrived by then counts.
                biased;
                answer = self.answers.message() => match answer {
                    Ok(Some(answer)) => self.take(&answer).await?,
                    Ok(None) => return Err(self.lost("etcd ended the watch".into())),
                    // A snapshot is read in pages.
                    Err(cause) if error::is_too_long(&cause) => return Err(replaced()),
                    Err(cause) => {
                        self.etcd.members.avoid_current();
                        return Err(Trouble::read("the watch broke", cause).error);
                    }
                },
                () = tokio::time::sleep_until(wake) => {
                    if self.asked.is_some() {
                        return Err(self.lost("etcd has fallen silent".into()));
                    }
                    self.asked = Some(Instant::now());
                    if let Err(cause) = self.requests.request_progress().await {
                        return Err(self.lost(format!("the watch broke: {cause}")));
                    }
                }
            }
        }
    }

    async fn take(&mut self, answer: &WatchResponse) -> Result<(), Error> {
        self.heard = Instant::now();
        self.asked = None;
        if answer.compact_revision() > 0 {
            return Err(Error::Compacted { oldest: Revision(answer.compact_revision()) });
        }
        if answer.canceled() {
            return Err(self.canceled(answer.cancel_reason()));
        }
        let told = Revision(answer.header().map_or(0, |header| header.revision()));
        if told < self.seen {
            let newest = self.etcd.newest().await?;
            if newest < self.seen {
                tracing::warn!(seen = self.seen.0, now = newest.0, "etcd's history was replaced; it is read anew");
                return Err(replaced());
            }
        }
        self.seen = self.seen.max(told);
        for event in answer.events() {
            let Some(pair) = event.kv() else { continue };
            let revision = Revision(pair.mod_revision());
            let Some(key) = self.etcd.relative(pair.key().to_vec()) else { continue };
            // A deleted key has no version; the event's own type panics on what it does not know.
            let value = (pair.version() > 0).then(|| pair.value().to_vec().into());
            let change = Change { key, value };
            match self.waiting.back_mut() {
                Some(batch) if batch.revision == revision => batch.changes.push(change),
                _ if revision > self.last => {
                    self.last = revision;
                    self.waiting.push_back(Batch { revision, changes: vec![change] });
                }
                _ => {}
            }
        }
        self.seen = self.seen.max(self.last);
        Ok(())
    }

    fn canceled(&self, reason: &str) -> Error {
        if reason.contains("permission denied") || reason.contains("PermissionDenied") {
            let reason = format!("etcd ended the watch: {reason}; give the user's role access to the prefix");
            return Error::Denied { reason };
        }
        if REFUSED.iter().any(|said| reason.contains(said)) {
            // The next try reads password and certificates again.
            self.etcd.members.avoid_current();
            let reason = format!("etcd ended the watch: {reason}; check user and password");
            return Error::Denied { reason };
        }
        self.lost(format!("etcd ended the watch: {reason}"))
    }

    fn lost(&self, context: String) -> Error {
        self.etcd.members.avoid_current();
        Error::Unavailable { context, source: None }
    }
}

/// Where only a snapshot helps.
fn replaced() -> Error {
    Error::Compacted { oldest: Revision::default() }
}

/// What etcd says of a login that it does not take.
const REFUSED: [&str; 3] = ["user name is empty", "authentication", "auth token"];
const LOGIN_ENDED: &str = "invalid auth token";
/// In bytes. What waits for a watcher comes in answers of up to a thousand revisions.
const LONGEST_ANSWER: usize = 64 << 20;
const QUIET: Duration = Duration::from_secs(2);
const LONGEST_SILENCE: Duration = Duration::from_millis(3500);
