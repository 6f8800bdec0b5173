//! `etna_store::engine::wire`: every message survives being read and written.

use std::fmt::Debug;

use etna_store::engine::wire::{self, Commit, Done, Failure, Found, Grant, Lease, Line};
use etna_store::{Error, Item, Txn};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Any bytes, as each message in turn.
pub fn check(data: &[u8]) {
    match again::<Line>(data) {
        Some(Line::Batch(revision, changes)) => {
            let batch = wire::batch(revision, changes.clone());
            assert_eq!(Line::from(&batch), Line::Batch(revision, changes));
        }
        Some(Line::Failure(failure)) => survives(failure),
        _ => {}
    }
    if let Some(commit) = again::<Commit>(data) {
        let txn = Txn::from(commit.clone());
        assert_eq!(format!("{:?}", Commit::from(txn)), format!("{commit:?}"));
    }
    if let Some(Found { item: Some(value) }) = again::<Found>(data) {
        assert_eq!(format!("{:?}", wire::Value::from(Item::from(value.clone()))), format!("{value:?}"));
    }
    if let Some(failure) = again::<Failure>(data) {
        survives(failure);
    }
    again::<Done>(data);
    again::<Grant>(data);
    again::<Lease>(data);
}

fn again<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_string(&message).unwrap();
    assert!(!written.contains('\n'), "a message is one line: {written}");
    let read: T = serde_json::from_str(&written).unwrap();
    assert_eq!(format!("{read:?}"), format!("{message:?}"));
    Some(message)
}

fn survives(failure: Failure) {
    let error = Error::from(failure.clone());
    let back = Failure::from(&error);
    assert_eq!((back.error, failure.error.status()), (failure.error, back.error.status()));
}
