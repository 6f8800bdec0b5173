//! `etna_proxy::failover`: predicates that are joined hold as logic says.

use etna_proxy::failover::{Attempt, Predicate};
use http::Method;

/// Two predicates with the byte 0x1e between them.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (one, other) = text.split_once('\u{1e}').unwrap_or((text, "IsNetworkError()"));
    let (Some(first), Some(second)) = (read(one), read(other)) else { return };
    let joined = [format!("({one}) && ({other})"), format!("({one}) || ({other})"), format!("!({one})")];
    let [both, either, not] = joined.map(|source| Predicate::parse(&source).ok());
    for method in [Method::GET, Method::POST] {
        for (number, status) in [(1, 200), (1, 502), (2, 504), (3, 404), (u32::MAX, 500)] {
            let attempt = Attempt { method: &method, number, status };
            let (a, b) = (first.holds(&attempt), second.holds(&attempt));
            // Joined they may be too long or nested too deeply.
            assert!(both.as_ref().is_none_or(|both| both.holds(&attempt) == (a && b)));
            assert!(either.as_ref().is_none_or(|either| either.holds(&attempt) == (a || b)));
            assert!(not.as_ref().is_none_or(|not| not.holds(&attempt) != a));
        }
    }
}

fn read(source: &str) -> Option<Predicate> {
    match Predicate::parse(source) {
        Ok(predicate) => {
            assert_eq!(Predicate::parse(source).as_ref(), Ok(&predicate));
            Some(predicate)
        }
        Err(error) => {
            assert!(error.column > 0 && error.column as usize <= source.chars().count() + 1, "{error}");
            assert!(!error.message.is_empty() && !error.hint.is_empty());
            None
        }
    }
}
