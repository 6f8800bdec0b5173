//! The model as a whole: what holds whatever is stored, in whatever order.

use bytes::Bytes;
use proptest::prelude::*;

use super::tests::{batch, reasons, shown};
use super::*;
use crate::engine::Change;

/// Keys that get into each other's way in every manner, and valid values for each.
fn valid_change() -> impl Strategy<Value = (String, Option<String>)> {
    let key = prop::sample::select(vec![
        "frontends/h.l/frontend",
        "frontends/h.l",
        "hosts/h/locations/l/path",
        "hosts/h/locations/l/upstream",
        "hosts/h/locations/l/options",
        "hosts/h/locations/l/middlewares/k/m",
        "hosts/h/locations/l/middlewares/k2/m",
        "frontends/h.l/middlewares/m",
        "frontends/h.l/middlewares/n",
        "backends/b/backend",
        "backends/b",
        "upstreams/b/options",
        "backends/b/servers/s",
        "upstreams/b/endpoints/s",
        "upstreams/b/endpoints/t",
        "hosts/h",
        "hosts/H/host",
        "hosts/h/host",
        "hosts/h/options",
        "hosts/h/keypair",
        "hosts/H/keypair",
        "listeners/l",
        "hosts/h/listeners/l",
        "hosts/i/listeners/l",
        "sites/a",
        "sites/b",
        "sites/c",
        "nonsense",
        "acme/x",
        "hosts/h.i/locations/l/path",
        "hosts/h/locations/i.l/path",
        "hosts/h.i/locations/l/upstream",
        "hosts/h/locations/i.l/upstream",
    ]);
    (key, 0..4u8).prop_map(|(key, version)| {
        let value = match (Key::parse(key.as_bytes()), version) {
            (_, 0) => return (key.to_owned(), None),
            (Ok(Key::Frontend(_)), n) => format!(r#"{{"Type":"http","BackendId":"b{n}","Route":"r"}}"#),
            (Ok(Key::Middleware(..) | Key::LegacyMiddleware { .. }), n) => {
                format!(r#"{{"Type":"k","Priority":{n},"Middleware":{{}}}}"#)
            }
            (Ok(Key::Backend(_)), n) => format!(r#"{{"Type":"http","Settings":{{"Timeouts":{{"Read":"{n}s"}}}}}}"#),
            (Ok(Key::LegacyBackend(_)), n) => format!(r#"{{"Timeouts":{{"Read":"{n}s"}}}}"#),
            (Ok(Key::Server(..)), n) => format!(r#"{{"URL":"http://a:{n}"}}"#),
            (Ok(Key::LegacyServer(..) | Key::LegacyPath(..)), n) => format!("http://a:{n}"),
            (Ok(Key::LegacyTarget(..)), n) => format!("b{n}"),
            (Ok(Key::LegacyOptions(..)), n) => format!(r#"{{"Hostname":"{n}"}}"#),
            (Ok(Key::Host(_)), n) => format!(r#"{{"Settings":{{"Default":{}}}}}"#, n > 1),
            (Ok(Key::LegacyHostOptions(_)), n) => format!(r#"{{"Default":{}}}"#, n > 1),
            (Ok(Key::LegacyKeyPair(_)), n) => format!(r#"{{"Value":{n}}}"#),
            (Ok(Key::Listener(_) | Key::LegacyListener(..)), n) => {
                format!(r#"{{"Protocol":"http","Address":{{"Network":"tcp","Address":":{n}"}}}}"#)
            }
            (Ok(Key::Site(_)), n) => {
                let hosts = ["\"x\"", "\"x\",\"y\"", "\"y\",\"z\""][usize::from(n) - 1];
                format!(r#"{{"Preset":"wordpress","Hosts":[{hosts}],"Public":"b","Admin":"b{n}"}}"#)
            }
            (_, n) => n.to_string(),
        };
        (key.to_owned(), Some(value))
    })
}

fn maps(model: &Model) -> [BTreeMap<Id, String>; 4] {
    let mut frontends: BTreeMap<Id, String> = BTreeMap::new();
    for (id, frontend) in &model.frontends {
        frontends.insert(id.clone(), format!("{frontend:?}"));
    }
    for ((id, _), middleware) in &model.middlewares {
        frontends.entry(id.clone()).or_default().push_str(&format!("{middleware:?}"));
    }
    let mut backends: BTreeMap<Id, String> = BTreeMap::new();
    for (id, backend) in &model.backends {
        let servers: Vec<_> = model.servers(id).collect();
        backends.insert(id.clone(), format!("{backend:?} {servers:?}"));
    }
    let listeners = model.listeners.iter().map(|(id, listener)| (id.clone(), format!("{listener:?}"))).collect();
    let hosts = model.hosts.iter().map(|(id, host)| (id.clone(), format!("{host:?} {:?}", host.key_pair))).collect();
    [frontends, backends, listeners, hosts]
}

fn differing(before: &BTreeMap<Id, String>, after: &BTreeMap<Id, String>) -> BTreeSet<Id> {
    let ids = before.keys().chain(after.keys());
    ids.filter(|id| before.get(*id) != after.get(*id)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn order_and_grouping_do_not_matter(
        changes in prop::collection::vec(valid_change(), 0..60),
        sizes in prop::collection::vec(1..6usize, 60),
    ) {
        let mut model = Model::default();
        let mut rest: &[(String, Option<String>)] = &changes;
        for size in sizes {
            let (group, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            let group: Vec<(&str, Option<&str>)> =
                group.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            let (before, problems) = (maps(&model), reasons(&model));
            let delta = model.apply(&batch(&group));
            let after = maps(&model);
            for (index, said) in
                [&delta.frontends, &delta.backends, &delta.listeners, &delta.hosts].into_iter().enumerate()
            {
                let real = differing(&before[index], &after[index]);
                prop_assert!(real.is_subset(said), "{:?} but said {:?}", real, said);
            }
            prop_assert!(delta.problems || problems == reasons(&model));
        }
        let last: BTreeMap<&str, &str> = changes.iter().fold(BTreeMap::new(), |mut last, (key, value)| {
            match value {
                Some(value) => last.insert(key, value),
                None => last.remove(key.as_str()),
            };
            last
        });
        let snapshot: Vec<(&str, Option<&str>)> = last.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let mut fresh = Model::default();
        fresh.replace(&batch(&snapshot));
        prop_assert_eq!(shown(&model), shown(&fresh));
        prop_assert!(model.replace(&batch(&snapshot)).is_empty());
        // And what is gone leaves nothing behind.
        model.replace(&batch(&[]));
        prop_assert_eq!(shown(&model), Vec::<String>::new());
        prop_assert!(model.records.is_empty() && model.aliases.is_empty() && model.claims.is_empty());
        prop_assert!(model.derived.is_empty() && model.flaws.is_empty() && model.conflicts.is_empty());
    }

    #[test]
    fn any_value_under_any_key_is_an_object_or_a_problem(
        key in valid_change().prop_map(|(key, _)| key),
        start in prop::sample::select(vec!["", "{\"URL\":\"http://", "{\"Type\":\"http\",\"Sticky\":", "{\"Preset\":\"wordpress\",\"Hosts\":["]),
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut model = Model::default();
        let value = [start.as_bytes(), &bytes].concat();
        let change = Change { key: Bytes::from(key), value: Some(Bytes::from(value)) };
        model.apply(&Batch { revision: Revision(1), changes: vec![change] });
        let raw = Change { key: Bytes::from(bytes.clone()), value: Some(Bytes::from(bytes)) };
        model.apply(&Batch { revision: Revision(2), changes: vec![raw] });
        let _ = shown(&model);
    }
}
