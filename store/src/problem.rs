//! Why a stored object is not served as written: data, not control flow.

use serde::Serialize;

/// One reason why one stored object is not served as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The key below the prefix; bytes that are not UTF-8 are shown as `\xNN`.
    pub key: String,
    /// What is wrong, in one sentence.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
    /// Line in the value, from 1, where a place can be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in that line, from 1. For a rule: the column inside the rule's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What happens meanwhile: `last good version serves`, `answers 503`, `it matches nothing`, `ignored`.
    pub effect: String,
}

/// What is wrong with a value, said before it is known under which key it stands and what happens meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What is wrong, in one sentence.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
    /// Line in the value, from 1.
    pub line: Option<u32>,
    /// Column in that line, in characters from 1.
    pub column: Option<u32>,
    /// What happens meanwhile, where that is no matter of the key.
    pub effect: Option<&'static str>,
}

impl Flaw {
    /// A flaw of the value as a whole.
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Flaw {
        Flaw { reason: reason.into(), hint: hint.into(), line: None, column: None, effect: None }
    }

    /// The same, with what happens meanwhile.
    pub fn meanwhile(self, effect: &'static str) -> Flaw {
        Flaw { effect: Some(effect), ..self }
    }

    /// The problem it is, once the key is known, and the effect that such flaws have at that key.
    pub fn into_problem(self, key: impl Into<String>, usual: impl Into<String>) -> Problem {
        let Flaw { reason, hint, line, column, effect } = self;
        let effect = effect.map_or_else(|| usual.into(), String::from);
        Problem { key: key.into(), reason, hint, line, column, effect }
    }
}
