//! A middleware: a step around forwarding, as an envelope whose settings only its kind understands.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Id;
use crate::json::{self, Node};
use crate::problem::Flaw;

/// `frontends/<frontend>/middlewares/<id>`.
#[derive(Clone, Debug)]
pub struct Middleware {
    /// From the key.
    pub id: Id,
    /// The frontend it belongs to, from the key.
    pub frontend: Id,
    /// Its kind: `ratelimit`, `connlimit`, … The proxy knows which there are. Empty for one whose value could never be
    /// read: no such kind exists, so its frontend fails closed.
    pub kind: String,
    /// Lower runs first; ties by id.
    pub priority: i64,
    /// The kind's settings, undecoded, as written.
    pub settings: Arc<RawValue>,
}

impl PartialEq for Middleware {
    fn eq(&self, other: &Middleware) -> bool {
        self.id == other.id
            && self.frontend == other.frontend
            && self.kind == other.kind
            && self.priority == other.priority
            && self.settings.get() == other.settings.get()
    }
}

impl Middleware {
    /// Reads `frontends/<frontend>/middlewares/<id>`. The settings are not looked into.
    pub fn decode(frontend: Id, id: Id, value: &[u8], _notes: &mut Vec<Flaw>) -> Result<Middleware, Flaw> {
        let text = json::text(value)?;
        let fields = Node::parse(&text)?.fields()?;
        let kind = fields.required("Type", r#"a kind like "Type":"ratelimit""#)?;
        let settings = match fields.get("Middleware") {
            Some(node) => node.text(),
            None => {
                let reason = "Middleware, the settings, is missing";
                return Err(fields.flaw(reason, r#"write "Middleware":{…} with the settings of this kind"#));
            }
        };
        // Kept as written, but only if it can be shown: a string may hold half a surrogate pair.
        let settings = serde_json::from_str::<serde_json::Value>(settings)
            .and_then(|_| RawValue::from_string(settings.to_owned()))
            .map_err(|error| fields.flaw(format!("not JSON: {error}"), "correct the settings"))?;
        Ok(Middleware { id, frontend, kind, priority: fields.integer("Priority")?, settings: settings.into() })
    }

    /// What stands for one whose value could never be read.
    pub(crate) fn unreadable(frontend: Id, id: Id) -> Middleware {
        Middleware { id, frontend, kind: String::new(), priority: 0, settings: RawValue::NULL.to_owned().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Middleware, Flaw> {
        Middleware::decode("f".into(), "m".into(), json.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn vulcands_middleware_keeps_its_settings_as_written() {
        let middleware = decode(
            r#"{"Id":"rl1","priority":1,"type":"ratelimit",
            "MIDDLEWARE":{"Requests":1, "Variable":"client.ip"}}"#,
        )
        .unwrap();
        assert_eq!((middleware.kind.as_str(), middleware.priority), ("ratelimit", 1));
        assert_eq!(middleware.settings.get(), r#"{"Requests":1, "Variable":"client.ip"}"#);
        assert_eq!(middleware, middleware.clone());
    }

    #[test]
    fn an_envelope_has_a_type_and_settings() {
        assert_eq!(decode(r#"{"Middleware":{}}"#).unwrap_err().reason, "Type is missing");
        let half = decode(r#"{"Type":"x","Middleware":{"a":"\ud800"}}"#).unwrap_err();
        assert!(half.reason.starts_with("not JSON: "), "{half:?}");
        assert_eq!(decode(r#"{"Type":"x"}"#).unwrap_err().reason, "Middleware, the settings, is missing");
        assert!(decode(r#"{"Type":"x","Middleware":{},"Priority":1.5}"#).is_err());
    }
}
