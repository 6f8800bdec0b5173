//! `etna_store::Model`: any values under any keys are objects or problems; their order does not matter, and what is
//! gone leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etna_store::{Batch, Change, Key, Model, Revision, model};

use super::changes::batches;

/// Batches of changes, as `changes.rs` spells them.
pub fn check(data: &[u8]) {
    let mut model = Model::default();
    let mut stored: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    // Keys whose last good value is older than their last.
    let mut served: BTreeSet<Bytes> = BTreeSet::new();
    let mut was_good: BTreeSet<Bytes> = BTreeSet::new();
    for batch in batches(data) {
        for Change { key, value } in &batch.changes {
            match value {
                Some(value) => {
                    let good = model::check(key, value).is_ok();
                    if good {
                        was_good.insert(key.clone());
                        served.remove(key);
                    } else if was_good.contains(key) {
                        served.insert(key.clone());
                    }
                    stored.insert(key.clone(), value.clone());
                }
                None => {
                    stored.remove(key);
                    served.remove(key);
                    was_good.remove(key);
                }
            }
        }
        let before = shown(&model);
        let delta = model.apply(&batch);
        assert!(!delta.is_empty() || before == shown(&model), "what changed was not said");
        consistent(&model);
    }
    let changes = stored.into_iter().map(|(key, value)| Change { key, value: Some(value) }).collect();
    let snapshot = Batch { revision: model.revision(), changes };
    if served.is_empty() {
        let mut fresh = Model::default();
        fresh.replace(&snapshot);
        assert_eq!(shown(&model), shown(&fresh), "the order of changes matters");
    }
    assert!(model.replace(&snapshot).is_empty(), "a snapshot of what is known changes something");
    model.replace(&Batch { revision: Revision(99), changes: Vec::new() });
    assert_eq!(shown(&model), shown(&Model::default()), "something is left of what is gone");
}

fn consistent(model: &Model) {
    for frontend in model.frontends() {
        assert!(model.frontends_of(&frontend.backend).any(|id| *id == frontend.id), "{frontend:?}");
        let key = model.frontend_key(&frontend.id).expect("every frontend has a key");
        assert!(Key::parse(key.as_bytes()).is_ok(), "{key}");
        assert!(!model.entries_under(&Key::Frontend(frontend.id.clone())).is_empty() || frontend.site.is_some());
    }
    for backend in model.backends() {
        assert!(!model.entries_under(&Key::Backend(backend.id.clone())).is_empty(), "{backend:?}");
    }
    for problem in model.problems() {
        assert!(!problem.reason.is_empty() && !problem.effect.is_empty(), "{problem:?}");
    }
}

fn shown(model: &Model) -> Vec<String> {
    let mut shown = Vec::new();
    shown.extend(
        model.backends().map(|backend| format!("{backend:?} {:?}", model.servers(&backend.id).collect::<Vec<_>>())),
    );
    shown.extend(
        model
            .frontends()
            .map(|frontend| format!("{frontend:?} {:?}", model.middlewares(&frontend.id).collect::<Vec<_>>())),
    );
    shown.extend(model.hosts().map(|host| format!("{host:?}")));
    shown.extend(model.listeners().map(|listener| format!("{listener:?}")));
    shown.extend(model.sites().map(|site| format!("{site:?}")));
    shown.extend(model.problems().map(|problem| format!("{problem:?}")));
    shown
}
