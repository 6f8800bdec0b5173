//! `etna_proxy::backend::sticky`: a request is stuck to the server its cookie names, whatever other cookies it has.

use std::sync::Arc;
use std::time::Instant;

use etna_proxy::backend::{Backend, sticky};
use etna_proxy::message::fields::Fields;
use etna_proxy::rule::{Head, Rule};
use etna_proxy::table::Table;
use etna_proxy::table::compile::Compiler;
use etna_store::{Batch, Change, Model, Revision};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method};

/// A `Cookie` field a line.
pub fn check(data: &[u8]) {
    let backend = backend();
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(20) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    let fields = Fields::from(&headers);
    let found = sticky::find(&backend, NAME, &fields, Instant::now);
    let client = [127, 0, 0, 1].into();
    let head = Head::new(&Method::GET, "a", "/", None, &fields, client);
    let says = |value: &str| Rule::parse(&format!("Cookie(\"{NAME}\", \"{value}\")")).unwrap().matches(&head);
    let named: Vec<u16> = (0..3).filter(|at| says(&backend.servers[usize::from(*at)].live.token)).collect();
    match found {
        Some(at) => {
            assert!(named.contains(&at), "stuck to a server that no cookie names");
            assert!(backend.servers[usize::from(at)].spec.weight > 0);
        }
        // With several cookies of the name the first one counts, and it may be no server's.
        None => assert!(named.is_empty() || named == [2] || several(&headers), "the cookie of {named:?} was not seen"),
    }
}

fn several(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    fields.filter(|pair| pair.trim_ascii_start().starts_with(NAME.as_bytes())).count() > 1
}

/// Three servers, of which the last has no weight.
fn backend() -> Arc<Backend> {
    let put = |key: &'static str, value: &'static str| Change { key: key.into(), value: Some(value.into()) };
    let changes = vec![
        put("backends/b/backend", r#"{"Type":"http","Sticky":{"Cookie":"etna"}}"#),
        put("backends/b/servers/s1", r#"{"URL":"http://127.0.0.1:1"}"#),
        put("backends/b/servers/s2", r#"{"URL":"http://127.0.0.1:2"}"#),
        put("backends/b/servers/s3", r#"{"URL":"http://127.0.0.1:3","Weight":0}"#),
    ];
    let mut model = Model::default();
    let delta = model.apply(&Batch { revision: Revision(1), changes });
    let table = Compiler::default().compile(&model, &delta, &Table::default());
    table.backends.iter().flatten().next().unwrap().clone()
}

const NAME: &str = "etna";
