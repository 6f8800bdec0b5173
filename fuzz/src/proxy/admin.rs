//! The admin API's bodies: what is taken is stored under a key of its own, read back as what was shown, and never tells
//! a private key.

use etna_proxy::admin::objects::{Noun, read};
use etna_store::{Batch, Change, Key, Model, Revision, model};
use serde_json::value::RawValue;

/// A letter for the kind of object, then the body.
pub fn check(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let (noun, parent) = match kind {
        b's' => (Noun::Server, "b"),
        b'f' => (Noun::Frontend, ""),
        b'm' => (Noun::Middleware, "f"),
        b'h' => (Noun::Host, ""),
        b'l' => (Noun::Listener, ""),
        _ => (Noun::Backend, ""),
    };
    let Ok(checked) = read(noun, parent, body, None) else { return };
    let path = checked.key.path();
    assert_eq!(Key::parse(path.as_bytes()), Ok(checked.key.clone()));
    match (&checked.key, noun) {
        (Key::Server(backend, _), Noun::Server) => assert_eq!(&**backend, parent),
        (Key::Middleware(frontend, _), Noun::Middleware) => assert_eq!(&**frontend, parent),
        (Key::Frontend(id), Noun::Frontend) => assert!(!id.starts_with("site:"), "{path}"),
        (Key::Backend(_), Noun::Backend) | (Key::Host(_), Noun::Host) | (Key::Listener(_), Noun::Listener) => {}
        (key, noun) => panic!("{noun:?} is stored as {key}"),
    }
    assert!(model::check(path.as_bytes(), &checked.value).is_ok(), "{path}");
    let mut model = Model::default();
    let put = Change { key: path.into(), value: Some(checked.value.clone()) };
    model.apply(&Batch { revision: Revision(1), changes: vec![put] });
    let text = checked.shown.to_string();
    for settings in [&checked.shown["Settings"], &checked.shown["Settings"]["TLS"]] {
        assert!(noun == Noun::Middleware || settings["KeyPair"].is_null(), "a key pair is shown: {text}");
    }
    assert!(checked.ttl.is_none_or(|ttl| !ttl.is_zero()));
    again(noun, parent, &text);
}

/// What is shown can be sent again, and is then shown the same.
fn again(noun: Noun, parent: &str, shown: &str) {
    let raw = RawValue::from_string(shown.to_owned()).unwrap();
    let body = format!("{{\"{noun:?}\":{raw}}}");
    match read(noun, parent, body.as_bytes(), None) {
        Ok(again) if noun == Noun::Host => {
            assert_eq!(again.shown["Name"].to_string().to_lowercase(), again.shown["Name"].to_string())
        }
        // Key pairs are never shown, so that they are not sent again.
        Ok(again) if noun == Noun::Backend && shown.contains(r#""HasKeyPair":true"#) => {
            assert!(again.shown["Settings"]["TLS"].get("HasKeyPair").is_none())
        }
        Ok(again) => assert_eq!(again.shown.to_string(), shown),
        Err(refusal) => panic!("{shown} was shown and is refused: {refusal:?}"),
    }
}
