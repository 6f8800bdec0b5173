//! The layout of vulcand up to 0.7, as its objects would be written today: pure.
//!
//! A location is a frontend, an upstream a backend, an endpoint a server. A location exists once it has both its path
//! and its upstream, whichever came first.

use std::borrow::Cow;

use crate::json::{self, clip};
use crate::object::{Frontend, FrontendSettings, Id};
use crate::problem::Flaw;

/// Reads a location's path: a bare regular expression, `TrieRoute(…)`, `RegexpRoute(…)` or a rule.
pub(super) fn path(host: &str, name: &str, value: &[u8]) -> Result<String, Flaw> {
    if host.starts_with(crate::object::SITE) {
        return Err(Flaw::new(format!("location {name:?} would get an id that belongs to sites"), "rename the host"));
    }
    let text = text(value)?;
    let path = text.trim();
    if path.is_empty() {
        return Err(Flaw::new("the path is empty", "write a regular expression like /.*"));
    }
    let Some((function, arguments)) = path.split_once('(') else { return Ok(call("PathRegexp", path)) };
    match function.trim() {
        "TrieRoute" => route(path, arguments, "Path"),
        "RegexpRoute" => route(path, arguments, "PathRegexp"),
        // A regular expression with a group in it.
        function if !function.bytes().all(|byte| byte.is_ascii_alphabetic()) || function.is_empty() => {
            Ok(call("PathRegexp", path))
        }
        _ => Ok(path.to_owned()),
    }
}

/// Reads a location's upstream: the id of its backend.
pub(super) fn target(value: &[u8]) -> Result<String, Flaw> {
    let text = text(value)?;
    let id = text.trim();
    if id.is_empty() || id.contains('/') {
        return Err(Flaw::new(format!("{:?} is not the id of an upstream", clip(id)), "write the upstream's id"));
    }
    Ok(id.to_owned())
}

/// The frontend that a location is.
pub(super) fn frontend(id: Id, host: &str, path: &str, backend: &str, settings: Option<&FrontendSettings>) -> Frontend {
    let mut frontend = Frontend::new(id, format!("{} && {}", call("Host", host), grouped(path)), backend.into());
    frontend.settings = settings.cloned().unwrap_or_else(FrontendSettings::legacy);
    frontend
}

fn text(value: &[u8]) -> Result<Cow<'_, str>, Flaw> {
    json::text(value)
}

/// `("GET", "POST", "/x")`: the methods, if any, then the path.
fn route(written: &str, arguments: &str, function: &str) -> Result<String, Flaw> {
    let malformed = || {
        let hint = r#"write it like TrieRoute("GET", "/path") or, better, as a rule"#;
        Flaw::new(format!("{:?} is not a route", clip(written)), hint)
    };
    let inside = arguments.trim_end().strip_suffix(')').ok_or_else(malformed)?;
    let mut arguments = literals(inside).ok_or_else(malformed)?;
    let path = arguments.pop().ok_or_else(malformed)?;
    let path = call(function, &path);
    Ok(match arguments.as_slice() {
        [] => path,
        [method] => format!("{} && {path}", call("Method", method)),
        methods => format!("{} && {path}", call("MethodRegexp", &methods.join("|"))),
    })
}

/// Go string literals with commas between them, decoded; escapes beyond `\"` and `\\` are no use in a route.
fn literals(text: &str) -> Option<Vec<String>> {
    let mut literals = Vec::new();
    let mut rest = text.trim();
    loop {
        let mut literal = String::new();
        if let Some(raw) = rest.strip_prefix('`') {
            let (inside, after) = raw.split_once('`')?;
            literal.push_str(inside);
            rest = after;
        } else {
            let mut characters = rest.strip_prefix('"')?.chars();
            loop {
                match characters.next()? {
                    '"' => break,
                    '\\' => literal.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
                    character => literal.push(character),
                }
            }
            rest = characters.as_str();
        }
        literals.push(literal);
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None => return rest.is_empty().then_some(literals),
        }
    }
}

fn call(function: &str, argument: &str) -> String {
    if argument.contains('`') {
        return format!("{function}(\"{}\")", argument.replace('\\', "\\\\").replace('"', "\\\""));
    }
    if argument.contains(['\\', '"']) {
        return format!("{function}(`{argument}`)");
    }
    format!("{function}(\"{argument}\")")
}

fn grouped(rule: &str) -> Cow<'_, str> {
    if rule.contains("||") { Cow::Owned(format!("({rule})")) } else { Cow::Borrowed(rule) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(written: &str) -> Result<String, String> {
        path("h", "l", written.as_bytes()).map_err(|flaw| flaw.reason)
    }

    #[test]
    fn paths_become_rules() {
        for (written, rule) in [
            ("/", r#"PathRegexp("/")"#),
            ("/wp-admin.*\n", r#"PathRegexp("/wp-admin.*")"#),
            (r"/a\.b", r"PathRegexp(`/a\.b`)"),
            ("/(a|b)", r#"PathRegexp("/(a|b)")"#),
            (r#"TrieRoute("/x")"#, r#"Path("/x")"#),
            (r#"TrieRoute("GET", "/x")"#, r#"Method("GET") && Path("/x")"#),
            (r#"TrieRoute("GET","POST","/x")"#, r#"MethodRegexp("GET|POST") && Path("/x")"#),
            (r#"RegexpRoute(`GET`, "/x\\.y")"#, r#"Method("GET") && PathRegexp(`/x\.y`)"#),
            (r#"Path("/x") && Method("GET")"#, r#"Path("/x") && Method("GET")"#),
            ("/a`b\"", "PathRegexp(\"/a`b\\\"\")"),
        ] {
            assert_eq!(converted(written).as_deref(), Ok(rule), "{written}");
        }
        for bad in ["", " ", "TrieRoute(", "TrieRoute()", "TrieRoute(\"/x\"", "TrieRoute(/x)", r#"TrieRoute("/x" "y")"#]
        {
            assert!(converted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_location_is_a_frontend_that_passes_the_host_on() {
        let frontend = frontend("h.l".into(), "h", r#"Path("/a") || Path("/b")"#, "u", None);
        assert_eq!(frontend.route, r#"Host("h") && (Path("/a") || Path("/b"))"#);
        assert!(frontend.settings.pass_host_header);
        assert_eq!(&*frontend.backend, "u");
    }
}
