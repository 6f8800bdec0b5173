//! `etna_proxy::rule` and `router`: a rule that is printed asks the same; the router finds what asking each rule would.

use std::sync::Arc;

use etna_proxy::router::{Entry, Router, Ruled as _};
use etna_proxy::rule::{Rank, Rule};

use super::asked::Asked;

/// Rules, and a request as `asked.rs` reads it, with the byte 0x1e between them.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rules, asked) = text.rsplit_once('\u{1e}').unwrap_or((text, ""));
    let asked = Asked::read(asked);
    let head = asked.head();
    let mut router = Router::default();
    let mut best: Option<(Rank, std::cmp::Reverse<String>)> = None;
    // More than fit in a plain list, so that the index is asked too.
    for (at, source) in rules.split('\u{1e}').take(40).enumerate() {
        let rule = match Rule::parse(source) {
            Ok(rule) => rule,
            Err(error) => {
                assert!(error.column > 0 && error.column as usize <= source.chars().count() + 1, "{error}");
                assert!(!error.message.is_empty() && !error.hint.is_empty());
                continue;
            }
        };
        let matches = rule.matches(&head);
        printed(&rule, &asked, matches);
        let all = rule.explain(&head);
        assert!(!all.is_empty());
        let id = format!("{at:02}");
        if matches {
            best = best.max(Some((rule.rank(0), std::cmp::Reverse(id.clone()))));
        }
        router.insert(Arc::new(Entry::new(id.into(), rule, 0)));
    }
    let best = best.as_ref().map(|(_, id)| id.0.as_str());
    assert_eq!(
        router.find(&head).map(|found| &**found.id()),
        best,
        "the router finds another rule than asking all of them does"
    );
    let candidates = router.candidates(&head);
    assert_eq!(candidates.iter().find(|candidate| candidate.matches).map(|found| &**found.value.id()), best);
    for at in 0..40 {
        router.remove(&format!("{at:02}"));
    }
    assert!(router.is_empty() && router.find(&head).is_none());
}

fn printed(rule: &Rule, asked: &Asked<'_>, matches: bool) {
    let text = rule.to_string();
    let again = match Rule::parse(&text) {
        Ok(again) => again,
        // Escapes may make it longer than a rule can be.
        Err(_) if text.len() > 16 * 1024 => return,
        Err(error) => panic!("{:?} was printed as {text:?}, which is no rule: {error}", rule.source()),
    };
    assert_eq!(*rule, again, "printed as {text:?}");
    assert_eq!(again.to_string(), text);
    assert_eq!(rule.rank(7), again.rank(7));
    assert_eq!(matches, again.matches(&asked.head()));
}
