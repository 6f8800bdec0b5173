//! Certificates of hosts that are gone: removed from the store a month after they were first missed.
//!
//! That moment is written into the host's record, so that neither a restart nor another proxy begins anew. A host that
//! the store names, whatever it says of certificates, keeps its own; nobody else is given it (`table/acme.rs`). One proxy
//! at a time works on a host, as for issuing, and removes only what is as it was judged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etna_store::engine::{Compare, Op};
use etna_store::object::Id;
use etna_store::{Engine, Error, Key, Model, with_causes};

use super::claim::Claim;
use super::names::{self, Record, seconds};
use crate::control::State;

/// What is done about what a host left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is missed from now on.
    Miss,
    /// It is back.
    Find,
    /// It was missed for long enough.
    Remove,
}

/// Looks every now and then, until the process drains.
pub(super) async fn run(state: Arc<State>, proxy: String) {
    let draining = state.draining.clone();
    let looks = async {
        loop {
            // Not all proxies at once.
            tokio::time::sleep(EVERY.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            let store = state.store();
            // Only who knows what the store says now, and believes it, can tell that a host is gone.
            if !store.following || store.from_disk.is_some() || state.suspects().count > 0 {
                continue;
            }
            let now = SystemTime::now();
            let due = due(&state.model(), now);
            for (host, step) in due {
                if let Err(error) = take(&state.engine, &host, step, &proxy, now).await {
                    tracing::warn!(%host, error = with_causes(&error), "what a host that is gone left behind was not removed");
                    break;
                }
            }
        }
    };
    draining.run_until_cancelled(looks).await;
}

/// What is to be done, for a few hosts at most.
fn due(model: &Model, now: SystemTime) -> Vec<(Id, Step)> {
    let left = [names::CERTIFICATES, names::RECORDS].into_iter().flat_map(|folder| model.shared(folder));
    let hosts: BTreeSet<Id> = left.filter_map(|(key, _)| names::host_of(key)).collect();
    let judged = hosts.into_iter().filter_map(|host| {
        let record = model.shared_value(&names::record(&host)).map(Record::read).unwrap_or_default();
        let step = step(model.served_host(&host).is_some(), &record, now)?;
        Some((host, step))
    });
    judged.take(MOST_AT_ONCE).collect()
}

fn step(is_known: bool, record: &Record, now: SystemTime) -> Option<Step> {
    match (is_known, record.missed_since) {
        (true, Some(_)) => Some(Step::Find),
        (true, None) => None,
        (false, None) => Some(Step::Miss),
        (false, Some(since)) => (seconds(now).saturating_sub(since) >= GRACE.as_secs()).then_some(Step::Remove),
    }
}

/// Does it, unless another proxy does or the store has changed meanwhile.
async fn take(engine: &Arc<dyn Engine>, host: &Id, judged: Step, proxy: &str, now: SystemTime) -> Result<(), Error> {
    let Some(claim) = Claim::take(engine, host, proxy).await? else { return Ok(()) };
    let done = tokio::select! {
        done = with(engine, &claim, host, judged, now) => done,
        () = claim.lost.cancelled() => Err(Error::LeaseLost),
    };
    claim.release().await;
    match done {
        // It is judged anew the next time.
        Err(Error::Conflict) => Ok(()),
        done => done,
    }
}

async fn with(engine: &Arc<dyn Engine>, claim: &Claim, host: &Id, judged: Step, now: SystemTime) -> Result<(), Error> {
    let (record_key, host_key) = (names::record(host), Key::Host(host.clone()).path());
    let stored = engine.get(&record_key).await?;
    let mut record = stored.as_ref().map(|item| Record::read(&item.value)).unwrap_or_default();
    if step(judged == Step::Find, &record, now) != Some(judged) {
        return Ok(());
    }
    let mut compares = vec![match stored {
        Some(item) => Compare::Unchanged(record_key.clone(), item.revision),
        None => Compare::Absent(record_key.clone()),
    }];
    record.missed_since = (judged == Step::Miss).then(|| seconds(now));
    let ops = match judged {
        Step::Miss | Step::Find => vec![Op::Put(record_key, Bytes::from(record.write()), None)],
        Step::Remove => {
            compares.push(Compare::Absent(host_key));
            vec![Op::Delete(names::certificate(host)), Op::Delete(record_key)]
        }
    };
    claim.commit(compares, ops).await?;
    if judged == Step::Remove {
        tracing::info!(%host, "the host is gone for a month: its certificate by ACME is removed from the store");
    }
    Ok(())
}

const EVERY: Duration = Duration::from_secs(3600);
/// From when a host is first missed until its certificate goes: long enough to put it back.
const GRACE: Duration = Duration::from_secs(30 * 86_400);
/// Hosts that are looked after in one go.
const MOST_AT_ONCE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(engine: &Arc<dyn Engine>, key: &str, value: &[u8]) {
        engine.commit(etna_store::Txn::put(key, Bytes::copy_from_slice(value))).await.unwrap();
    }

    /// Looks once, at that time.
    async fn look(engine: &Arc<dyn Engine>, now: SystemTime) -> Vec<(Id, Step)> {
        let mut model = Model::default();
        model.replace(&engine.snapshot().await.unwrap());
        let due = due(&model, now);
        for (host, step) in &due {
            take(engine, host, *step, "us", now).await.unwrap();
        }
        due
    }

    #[tokio::test]
    async fn what_a_host_leaves_behind_goes_a_month_after_it() {
        let engine = etna_store::engine::memory::open();
        let began = SystemTime::now();
        let at = |days: u64| began + Duration::from_secs(days * 86_400);
        let left =
            async || [engine.get("acme/certs/a.test").await.unwrap(), engine.get("acme/hosts/a.test").await.unwrap()];
        put(&engine, "hosts/a.test/host", br#"{"Settings":{"Acme":true}}"#).await;
        put(&engine, "acme/certs/a.test", b"sealed").await;
        put(&engine, "acme/hosts/a.test", &Record { issued: 7, ..Record::default() }.write()).await;
        // A host of a site, and one that wants none any more, are there, too.
        put(&engine, "sites/blog", br#"{"Preset":"wordpress","Hosts":["site.test"],"Public":"p","Acme":true}"#).await;
        put(&engine, "acme/certs/site.test", b"sealed").await;
        put(&engine, "hosts/plain.test/host", b"{}").await;
        put(&engine, "acme/certs/plain.test", b"sealed").await;
        assert_eq!(look(&engine, at(0)).await, []);

        let host = Id::from("a.test");
        engine.commit(etna_store::Txn::delete("hosts/a.test/host")).await.unwrap();
        assert_eq!(look(&engine, at(1)).await, [(host.clone(), Step::Miss)]);
        assert_eq!(look(&engine, at(30)).await, []);
        // Back for a while: then the month begins anew.
        put(&engine, "hosts/a.test/host", b"{}").await;
        assert_eq!(look(&engine, at(31)).await, [(host.clone(), Step::Find)]);
        engine.commit(etna_store::Txn::delete("hosts/a.test/host")).await.unwrap();
        assert_eq!(look(&engine, at(32)).await, [(host.clone(), Step::Miss)]);
        assert_eq!(look(&engine, at(61)).await, []);
        let [Some(_), Some(record)] = left().await else { panic!("something went early") };
        assert_eq!(Record::read(&record.value).issued, 7, "what was known is kept");
        assert_eq!(look(&engine, at(62)).await, [(host, Step::Remove)]);
        assert!(left().await.iter().all(Option::is_none));
        assert_eq!(engine.snapshot().await.unwrap().changes.len(), 4, "all else stays, and no claim");
        assert_eq!(look(&engine, at(99)).await, []);
    }

    #[tokio::test]
    async fn what_changed_since_it_was_judged_stays() {
        let engine = etna_store::engine::memory::open();
        let now = SystemTime::now();
        let host = Id::from("a.test");
        let long = Record { missed_since: Some(0), ..Record::default() };
        put(&engine, "acme/certs/a.test", b"sealed").await;
        put(&engine, "acme/hosts/a.test", &long.write()).await;
        let is_there = async || engine.get("acme/certs/a.test").await.unwrap().is_some();

        put(&engine, "hosts/a.test/host", b"{}").await;
        take(&engine, &host, Step::Remove, "us", now).await.unwrap();
        assert!(is_there().await, "the host is back");
        engine.commit(etna_store::Txn::delete("hosts/a.test/host")).await.unwrap();

        let other = Claim::take(&engine, "a.test", "other").await.unwrap().unwrap();
        take(&engine, &host, Step::Remove, "us", now).await.unwrap();
        assert!(is_there().await, "another proxy works on it");
        other.release().await;

        put(&engine, "acme/hosts/a.test", &Record::default().write()).await;
        take(&engine, &host, Step::Remove, "us", now).await.unwrap();
        assert!(is_there().await, "it was issued anew");
        put(&engine, "acme/hosts/a.test", &long.write()).await;
        take(&engine, &host, Step::Remove, "us", now).await.unwrap();
        assert!(!is_there().await);
    }
}
