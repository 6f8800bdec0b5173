//! `etna_proxy::table`: whatever is stored, compiling ends with a table that serves as the model says.

use std::time::Instant;

use etna_proxy::backend::balance::Ask;
use etna_proxy::table::Table;
use etna_proxy::table::compile::Compiler;
use etna_store::Model;

use super::asked::Asked;
use super::changes::batches;

/// Batches of changes, as `changes.rs` spells them; the last is a request, as `asked.rs` reads it.
pub fn check(data: &[u8]) {
    let at = data.iter().rposition(|byte| *byte == 0x1d);
    let (changes, asked) = at.map_or((data, &b""[..]), |at| (&data[..at], &data[at + 1..]));
    let asked = String::from_utf8_lossy(asked);
    let asked = Asked::read(&asked);
    let mut model = Model::default();
    let mut compiler = Compiler::default();
    let mut table = Table::default();
    for batch in batches(changes) {
        let delta = model.apply(&batch);
        let next = compiler.compile(&model, &delta, &table);
        table = next;
        agrees(&model, &table, &asked);
        for problem in compiler.problems() {
            assert!(!problem.key.is_empty() && !problem.reason.is_empty() && !problem.hint.is_empty(), "{problem:?}");
        }
    }
    // What is gone is gone from the table too, and takes its problems with it.
    let delta = model.replace(&Default::default());
    table = compiler.compile(&model, &delta, &table);
    assert_eq!(compiler.problems().collect::<Vec<_>>(), Vec::<&etna_store::Problem>::new());
    assert!(table.router.is_empty() && table.listeners.is_empty());
    assert!(table.backends.iter().all(Option::is_none));
}

fn agrees(model: &Model, table: &Table, asked: &Asked<'_>) {
    let head = asked.head();
    let matching = table.router.values().filter(|frontend| frontend.rule.matches(&head));
    let best = matching.max_by(|a, b| {
        let rank = |frontend: &etna_proxy::table::Frontend| frontend.rule.rank(frontend.spec.priority);
        rank(a).cmp(&rank(b)).then_with(|| b.id.cmp(&a.id))
    });
    let found = table.route("default", &head).ok();
    assert_eq!(found.as_ref().map(|route| &route.frontend.id), best.map(|frontend| &frontend.id));
    for backend in table.backends.iter().flatten() {
        assert!(model.backend(&backend.id).is_some());
        for (at, server) in backend.servers.iter().enumerate() {
            assert!(model.server(&backend.id, &server.spec.id).is_some());
            let others: Vec<u16> =
                (0..backend.servers.len() as u16).filter(|other| usize::from(*other) != at).collect();
            let ask = Ask { turn: 7, random: 7, key: Some(7), now: Instant::now(), ramping: false, tried: &others };
            let picked = backend.schedule.pick(&backend.servers, &ask).server();
            assert!(picked.is_none_or(|picked| usize::from(picked) == at));
        }
    }
    for frontend in table.router.values() {
        assert!(model.frontend(&frontend.id).is_some());
        if let Some(backend) = table.backend(frontend.backend) {
            assert_eq!(backend.id, frontend.spec.backend);
        }
    }
}
