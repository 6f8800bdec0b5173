//! Whether an object would be served as written, found out before it is written.
//!
//! It is decoded and compiled exactly as the control loop will do it, in a model of its own, beside stand-ins for what
//! it refers to: whether those exist is another question.

use std::sync::Arc;

use bytes::Bytes;
use etna_store::seal::Keyring;
use etna_store::{Batch, Change, Delta, Key, Model, Problem, Revision};

use super::super::reply::Refusal;
use crate::table::Table;
use crate::table::compile::Compiler;
use crate::table::edge::NO_CERTIFICATE;
use crate::table::servers::NO_SEAL_KEY;

/// The model of this one object, or what is wrong with it. Without seal keys nobody here can tell what is in a host's
/// key pair: then it is for a proxy that has them.
pub(super) fn check(key: &Key, value: &Bytes, keyring: Option<&Arc<Keyring>>) -> Result<Model, Refusal> {
    // Remarks about settings that are not in force do not hinder: vulcand's objects have many that we do not need.
    etna_store::model::check(key.path().as_bytes(), value).map_err(|problem| Refusal::problem(&problem))?;
    let mut model = Model::default();
    let mut delta = Delta::default();
    if let Key::Middleware(frontend, _) = key {
        let stand_in = Key::Frontend(frontend.clone());
        put(&mut model, &mut delta, &stand_in, Bytes::from_static(FRONTEND));
    }
    put(&mut model, &mut delta, key, value.clone());
    if let Key::Frontend(id) = key {
        let backend = model.frontend(id).map(|frontend| frontend.backend.clone());
        if let Some(backend) = backend {
            put(&mut model, &mut delta, &Key::Backend(backend), Bytes::from_static(BACKEND));
        }
    }
    let mut compiler = Compiler::new(None, keyring.cloned());
    drop(compiler.compile(&model, &delta, &Table::default()));
    let path = key.path();
    let is_hidden = |problem: &&Problem| {
        keyring.is_none() && (matches!(key, Key::Host(_)) || problem.reason.ends_with(NO_SEAL_KEY))
    };
    // Hosts are objects of their own.
    let mut own = compiler.problems().filter(|problem| problem.key == path && problem.reason != NO_CERTIFICATE);
    match own.find(|problem| !is_hidden(problem)).map(Refusal::problem) {
        Some(refusal) => Err(refusal),
        None => Ok(model),
    }
}

fn put(model: &mut Model, delta: &mut Delta, key: &Key, value: Bytes) {
    let change = Change { key: Bytes::from(key.path()), value: Some(value) };
    let revision = Revision(model.revision().0 + 1);
    delta.merge(model.apply(&Batch { revision, changes: vec![change] }));
}

const FRONTEND: &[u8] = br#"{"Type":"http","BackendId":"-","Route":"Path(\"/\")"}"#;
const BACKEND: &[u8] = br#"{"Type":"http"}"#;
