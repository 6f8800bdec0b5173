//! Whatever happens, in any order: the model shows what is stored and what is held, and nothing else.

use super::*;

fn some_key() -> impl Strategy<Value = String> {
    let id = || prop::sample::select(vec!["1", "2", "3", "4"]);
    prop_oneof![
        4 => (id(), id()).prop_map(|(backend, id)| format!("backends/{backend}/servers/{id}")),
        2 => id().prop_map(|id| format!("frontends/{id}/frontend")),
        1 => id().prop_map(|id| format!("backends/{id}/backend")),
        1 => id().prop_map(|id| format!("sites/{id}")),
        1 => Just("nonsense".to_owned()),
    ]
}

fn value_of(key: &str, n: u8) -> String {
    match Key::parse(key.as_bytes()) {
        Ok(Key::Server(..)) if n == 2 => DRAINING.into(),
        Ok(Key::Server(..)) => format!(r#"{{"URL":"http://10.0.0.{n}:80"}}"#),
        Ok(Key::Frontend(id)) => format!(r#"{{"Type":"http","BackendId":"{id}","Route":"Host(`{n}`)"}}"#),
        Ok(Key::Backend(_)) => r#"{"Type":"http"}"#.into(),
        Ok(Key::Site(_)) => format!(r#"{{"Preset":"wordpress","Hosts":["{n}.test"],"Public":"{n}"}}"#),
        _ => n.to_string(),
    }
}

fn shown(model: &Model) -> String {
    let servers: Vec<_> = model.backends().map(|backend| model.servers(&backend.id).collect::<Vec<_>>()).collect();
    let (frontends, backends): (Vec<_>, Vec<_>) = (model.frontends().collect(), model.backends().collect());
    let (sites, problems): (Vec<_>, Vec<_>) = (model.sites().collect(), model.problems().collect());
    format!("{frontends:?} {backends:?} {servers:?} {sites:?} {problems:?}")
}

/// What a proxy lives through.
#[derive(Clone, Debug)]
enum Event {
    Revision(Vec<(String, Option<u8>)>),
    /// Everything below a path in one revision.
    Wipe(&'static str),
    Resync,
    Pass(u64),
    Unanswered(usize),
    /// Those that went first in a storm are asked.
    Returning(bool),
    Release,
}

fn some_event() -> impl Strategy<Value = Event> {
    let change = (some_key(), prop::option::weighted(0.6, 1..4u8));
    prop_oneof![
        8 => prop::collection::vec(change, 1..6).prop_map(Event::Revision),
        1 => prop::sample::select(vec!["", "backends/", "backends/1/", "frontends/"]).prop_map(Event::Wipe),
        1 => Just(Event::Resync),
        2 => (0..400_000u64).prop_map(Event::Pass),
        2 => (0..1_000u64).prop_map(Event::Pass),
        2 => (0..8usize).prop_map(Event::Unanswered),
        2 => any::<bool>().prop_map(Event::Returning),
        1 => Just(Event::Release),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_model_is_what_is_stored_and_what_is_held(
        events in prop::collection::vec(some_event(), 1..60),
        hold in prop::sample::select(vec![0, 5, 300]),
    ) {
        let mut at = Followed::new(Duration::from_secs(hold));
        let mut stored: BTreeMap<String, String> = BTreeMap::new();
        for event in events {
            match event {
                Event::Revision(changes) => {
                    let changes: BTreeMap<String, Option<String>> = changes
                        .into_iter()
                        .map(|(key, n)| { let value = n.map(|n| value_of(&key, n)); (key, value) })
                        .collect();
                    for (key, value) in &changes {
                        match value {
                            Some(value) => stored.insert(key.clone(), value.clone()),
                            None => stored.remove(key),
                        };
                    }
                    let changes: Vec<(&str, Option<&str>)> =
                        changes.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
                    at.step(&changes);
                }
                Event::Wipe(path) => {
                    let gone: Vec<String> = stored.keys().filter(|key| key.starts_with(path)).cloned().collect();
                    stored.retain(|key, _| !key.starts_with(path));
                    at.delete(&gone);
                }
                Event::Resync => {
                    let pairs: Vec<(&str, &str)> =
                        stored.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                    let revision = at.revision;
                    let delta = at.resync(revision, &pairs);
                    prop_assert!(delta.is_empty(), "nothing was lost, so nothing differs: {:?}", delta);
                }
                Event::Pass(millis) => {
                    at.after(Duration::from_millis(millis));
                    let now = at.now;
                    at.suspects.expire(&mut at.model, now);
                }
                Event::Unanswered(n) => {
                    let key = at.suspects.servers().nth(n).map(|(key, _)| key.clone());
                    if key.as_ref().is_some_and(|key| at.suspects.answered(key, false)) {
                        let keys: Vec<Bytes> = key.into_iter().collect();
                        at.suspects.let_go(&mut at.model, &keys);
                    }
                }
                Event::Returning(answered) => {
                    for (key, _) in at.suspects.ask_returning() {
                        at.suspects.returned(&mut at.model, &key, answered);
                    }
                }
                Event::Release => drop(at.suspects.release(&mut at.model)),
            }
            // What serves is what is stored and what is held, no more and no less.
            let held: BTreeSet<String> =
                at.suspects.held().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect();
            prop_assert!(held.iter().all(|key| !stored.contains_key(key)));
            let serving: BTreeSet<String> =
                at.suspects.pairs().keys().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
            let wanted: BTreeSet<String> = stored.keys().chain(&held).cloned().collect();
            prop_assert_eq!(&serving, &wanted);
            prop_assert!(hold > 0 || held.is_empty());
            prop_assert_eq!(at.suspects.cases().map(|case| case.keys).sum::<usize>(), held.len());
        }
        let pairs = at.suspects.pairs().iter().map(|(key, value)| Change { key: key.clone(), value: Some(value.clone()) });
        let mut fresh = Model::default();
        fresh.apply(&Batch { revision: Revision(1), changes: pairs.collect() });
        prop_assert_eq!(shown(&at.model), shown(&fresh));
        // Once all is released, only what is stored serves.
        at.suspects.release(&mut at.model);
        let pairs: Vec<(&str, Option<&str>)> =
            stored.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
        let mut fresh = Model::default();
        fresh.apply(&batch(1, &pairs));
        prop_assert_eq!(shown(&at.model), shown(&fresh));
    }
}
