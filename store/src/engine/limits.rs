//! What every engine accepts, so that what fits one fits all: moving from one host to a cluster refuses nothing.
//!
//! The numbers are etcd's defaults (`--max-txn-ops`, `--max-request-bytes`), rounded down. Not here: how much a store
//! may hold in all; each engine knows its own bound.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Compare, Error, Op, Txn};

/// The most writes, and the most conditions, of one transaction.
pub const MOST_OPS: usize = 128;
/// The longest key below the prefix, in bytes.
pub const LONGEST_KEY: usize = 1024;
/// The most bytes of keys and values in one transaction.
pub const LARGEST_TXN: usize = 1 << 20;

/// Checks what no engine can commit.
pub(super) fn check(txn: &Txn) -> Result<(), Error> {
    if txn.ops.len() > MOST_OPS || txn.compares.len() > MOST_OPS {
        return invalid(format!("a transaction has at most {MOST_OPS} writes and {MOST_OPS} conditions: split it"));
    }
    let mut written = BTreeSet::new();
    let mut size = 0;
    for op in &txn.ops {
        let (key, value) = match op {
            Op::Put(key, value, _) => (key, value.len()),
            Op::Delete(key) => (key, 0),
        };
        check_key(key)?;
        size += key.len() + value;
        if !written.insert(key.as_str()) {
            return invalid(format!("`{key}` is written twice in one transaction: write it once"));
        }
    }
    for compare in &txn.compares {
        let (Compare::Absent(key) | Compare::Unchanged(key, _)) = compare;
        check_key(key)?;
        size += key.len();
    }
    if size > LARGEST_TXN {
        return invalid(format!(
            "a transaction has at most {LARGEST_TXN} bytes of keys and values, this one has {size}"
        ));
    }
    Ok(())
}

/// Checks a key that is read or written.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.len() > LONGEST_KEY {
        return invalid(format!("a key has 1 to {LONGEST_KEY} bytes, not {}", key.len()));
    }
    Ok(())
}

/// A lease's time in whole seconds, rounded up, at least one.
pub(super) fn seconds(ttl: Duration) -> Result<u32, Error> {
    let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    match u32::try_from(seconds.max(1)) {
        Ok(seconds) if seconds <= LONGEST_TTL => Ok(seconds),
        _ => invalid(format!("a lease lives at most {LONGEST_TTL} seconds, not {seconds}")),
    }
}

fn invalid<T>(reason: String) -> Result<T, Error> {
    Err(Error::Invalid { reason })
}

/// A year.
const LONGEST_TTL: u32 = 365 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_engine_takes_is_refused() {
        let many = Txn { ops: (0..=MOST_OPS).map(|i| Op::Delete(format!("k{i}"))).collect(), compares: Vec::new() };
        let twice = Txn { ops: vec![Op::Delete("a".into()), Op::Put("a".into(), "1".into(), None)], ..Txn::default() };
        for txn in
            [many, twice, Txn::put("", "x"), Txn::put("k".repeat(1025), "x"), Txn::put("k", vec![0; LARGEST_TXN])]
        {
            assert!(matches!(check(&txn), Err(Error::Invalid { .. })));
        }
        assert!(check(&Txn::put("k", vec![0; LARGEST_TXN - 1])).is_ok());
    }

    #[test]
    fn a_lease_is_rounded_up() {
        assert_eq!(seconds(Duration::from_millis(1001)).unwrap(), 2);
        assert_eq!(seconds(Duration::ZERO).unwrap(), 1);
        assert!(seconds(Duration::MAX).is_err());
    }
}
