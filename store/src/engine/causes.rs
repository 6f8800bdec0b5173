//! Errors in words: with their causes, each said once. Libraries like to say their cause's text themselves.

use std::error::Error;

/// An error with its causes, on one line; a cause whose words were said already is left out.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..DEEPEST {
        let Some(error) = cause else { break };
        add(&mut text, &error.to_string());
        cause = error.source();
    }
    text
}

/// Adds what was not said yet.
pub(super) fn add(text: &mut String, more: &str) {
    if !text.contains(more) {
        text.push_str(": ");
        text.push_str(more);
    }
}

pub(super) const DEEPEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Said {
        text: &'static str,
        source: Option<Box<Said>>,
    }

    #[test]
    fn nothing_is_said_twice() {
        let chain = ["cannot read a: refused", "transport error", "refused", "os error 111"];
        let error = chain.into_iter().rev().fold(None, |source, text| Some(Box::new(Said { text, source }))).unwrap();
        assert_eq!(with_causes(&error), "cannot read a: refused: transport error: os error 111");
    }
}
