//! How items and revisions of history are written as bytes.
//!
//! An item: revision and lease (0 for none), each an i64, then the value. A revision: for each change the key's length
//! as u32, the key, the value's length as u32 plus one (0 for a deletion), the value. Little endian. Decoding any
//! bytes ends in a value or `None`.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::engine::{Batch, Change, Item, LeaseId, Revision};

pub(super) fn encode_item(item: &Item) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + item.value.len());
    bytes.put_i64_le(item.revision.0);
    bytes.put_i64_le(item.lease.map_or(0, |lease| lease.0));
    bytes.put_slice(&item.value);
    bytes
}

pub(super) fn decode_item(mut bytes: &[u8]) -> Option<Item> {
    let revision = Revision(bytes.try_get_i64_le().ok()?);
    let lease = Some(bytes.try_get_i64_le().ok()?).filter(|id| *id != 0).map(LeaseId);
    Some(Item { value: Bytes::copy_from_slice(bytes), revision, lease })
}

/// `None` if a length does not fit, which the limits of a transaction exclude.
pub(super) fn encode_changes(batch: &Batch) -> Option<BytesMut> {
    let mut bytes = BytesMut::new();
    for change in &batch.changes {
        bytes.put_u32_le(u32::try_from(change.key.len()).ok()?);
        bytes.put_slice(&change.key);
        match &change.value {
            None => bytes.put_u32_le(0),
            Some(value) => {
                bytes.put_u32_le(u32::try_from(value.len()).ok()?.checked_add(1)?);
                bytes.put_slice(value);
            }
        }
    }
    Some(bytes)
}

pub(super) fn decode_changes(revision: Revision, bytes: &[u8]) -> Option<Batch> {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.try_get_u32_le().ok()?;
        let key = take(&mut bytes, length)?;
        let value = match bytes.try_get_u32_le().ok()? {
            0 => None,
            more => Some(take(&mut bytes, more - 1)?),
        };
        changes.push(Change { key, value });
    }
    Some(Batch { revision, changes })
}

fn take(bytes: &mut Bytes, length: u32) -> Option<Bytes> {
    let length = usize::try_from(length).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            revision in any::<i64>(),
            lease in proptest::option::of(1..i64::MAX),
            pairs in proptest::collection::vec((any::<Vec<u8>>(), proptest::option::of(any::<Vec<u8>>())), 0..5),
        ) {
            let revision = Revision(revision);
            let changes = pairs.into_iter().map(|(key, value)| Change { key: key.into(), value: value.map(Bytes::from) });
            let batch = Batch { revision, changes: changes.collect() };
            let bytes = encode_changes(&batch).unwrap();
            prop_assert_eq!(decode_changes(revision, &bytes), Some(batch));
            let item = Item { value: bytes.freeze(), revision, lease: lease.map(LeaseId) };
            prop_assert_eq!(decode_item(&encode_item(&item)), Some(item));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode_item(&bytes);
            let _ = decode_changes(Revision(1), &bytes);
        }
    }
}
