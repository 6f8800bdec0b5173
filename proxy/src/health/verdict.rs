//! What a check's answer says about the server. Pure.
//!
//! An `http` check compares. A `wordpress` check knows what WordPress answers when it is not installed, in maintenance or
//! without its database, which of its redirects lead nowhere, and that a page without a word is no page.

use etna_store::object::{CheckKind, HealthCheck};
use http::header::{HeaderMap, LOCATION, RETRY_AFTER};
use http::{StatusCode, Uri};

use crate::backend::health::{Finding, Reason};

/// A server's answer to a check.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    /// What was read of its body.
    pub(super) body: Vec<u8>,
}

/// How a WordPress is to see its visitor: it sends everybody else elsewhere, with the port that is its own in `siteurl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visitor {
    /// Whether he came by HTTPS.
    pub(super) https: bool,
    /// The port in his `Host`.
    pub(super) port: Option<u16>,
}

/// Whether the body matters once the head is known.
pub(super) fn needs_body(check: &HealthCheck, status: StatusCode) -> bool {
    match check.kind {
        CheckKind::Tcp => false,
        CheckKind::Http => check.body.is_some() || check.not_body.is_some(),
        CheckKind::WordPress => !status.is_redirection(),
    }
}

/// What the answer says.
pub(super) fn judge(check: &HealthCheck, answer: &Answer) -> Finding {
    match check.kind {
        CheckKind::Tcp => well(),
        CheckKind::Http => {
            let status = answer.status.as_u16();
            if check.expect.iter().any(|range| range.contains(&status)) {
                body(check, answer).unwrap_or_else(well)
            } else {
                ill(Reason::Status, format!("answered {status}"))
            }
        }
        CheckKind::WordPress => wordpress(check, answer),
    }
}

fn wordpress(check: &HealthCheck, answer: &Answer) -> Finding {
    let status = answer.status;
    if status.is_redirection() {
        return redirect(check, answer);
    }
    if holds(&answer.body, "Error establishing a database connection") {
        return ill(Reason::Database, "WordPress does not reach its database".into());
    }
    // A login page that is closed to strangers is there all the same.
    let is_login = check.path.split(['?', '#']).next().is_some_and(|path| path.ends_with("/wp-login.php"));
    match status.as_u16() {
        200..=299 => {}
        401 => return well(),
        403 if is_login => return well(),
        503 if answer.fields.contains_key(RETRY_AFTER) => {
            return ill(Reason::Maintenance, "WordPress is in maintenance mode".into());
        }
        status => return ill(Reason::Status, format!("answered {status}")),
    }
    if answer.body.iter().all(u8::is_ascii_whitespace) {
        return ill(Reason::Blank, "answered a blank page: the site's content is not there".into());
    }
    body(check, answer).unwrap_or_else(well)
}

fn redirect(check: &HealthCheck, answer: &Answer) -> Finding {
    let location = location(answer);
    let path = location.split(['?', '#']).next().unwrap_or_default();
    if path.ends_with("/wp-admin/install.php") || path.ends_with("/wp-admin/setup-config.php") {
        return ill(Reason::NotInstalled, "WordPress is not installed".into());
    }
    let Some(visitor) = wanted(check, answer) else { return well() };
    let scheme = if visitor.https { "https" } else { "http" };
    let detail =
        format!("sends visitors of this page back to it by {scheme}: give WordPress the address that they use");
    Finding { well: true, reason: Reason::SchemeMismatch, detail }
}

/// The visitor that the server wants to see instead, where it redirects to the page that was asked for.
pub(super) fn wanted(check: &HealthCheck, answer: &Answer) -> Option<Visitor> {
    let to: Uri = location(answer).parse().ok()?;
    let host = bare(check.host.as_deref()?);
    let same_host = to.host().is_some_and(|to| bare(to).eq_ignore_ascii_case(host));
    let asked = to.path_and_query().map_or("/", |asked| asked.as_str());
    (same_host && asked == check.path).then(|| Visitor { https: to.scheme_str() == Some("https"), port: to.port_u16() })
}

/// A host without its port.
pub(super) fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn location(answer: &Answer) -> &str {
    answer.fields.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What is wrong with the body, as far as a check looks at it.
fn body(check: &HealthCheck, answer: &Answer) -> Option<Finding> {
    if let Some(text) = &check.body
        && !holds(&answer.body, text)
    {
        return Some(ill(Reason::Body, format!("the body lacks {:?}", clip(text))));
    }
    if let Some(text) = &check.not_body
        && holds(&answer.body, text)
    {
        return Some(ill(Reason::Body, format!("the body holds {:?}", clip(text))));
    }
    None
}

fn holds(body: &[u8], text: &str) -> bool {
    !text.is_empty() && body.windows(text.len()).any(|window| window == text.as_bytes())
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Nothing is wrong.
pub(super) fn well() -> Finding {
    Finding { well: true, ..Finding::default() }
}

/// Something is.
pub(super) fn ill(reason: Reason, detail: String) -> Finding {
    Finding { well: false, reason, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(status: u16, fields: &[(&'static str, &str)], body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            fields: fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
            body: body.into(),
        }
    }

    fn wordpress(path: &str) -> HealthCheck {
        let host = Some("blog.test".into());
        HealthCheck { path: path.into(), host, ..HealthCheck::of(CheckKind::WordPress) }
    }

    #[test]
    fn http_compares_status_and_body() {
        let check = HealthCheck { body: Some("ok".into()), not_body: Some("but".into()), ..HealthCheck::default() };
        for (status, body, reason) in [
            (200, "all ok", Reason::Ok),
            (399, "ok", Reason::Ok),
            (404, "ok", Reason::Status),
            (199, "ok", Reason::Status),
            (200, "", Reason::Body),
            (200, "ok, but", Reason::Body),
        ] {
            let found = judge(&check, &answer(status, &[], body));
            assert_eq!((found.reason, found.well), (reason, reason == Reason::Ok), "{status} {body}");
        }
    }

    #[test]
    fn every_page_of_wordpress_is_understood() {
        let database = "<h1>Error establishing a database connection</h1>";
        for (path, status, fields, body, well, reason) in [
            ("/", 200, &[][..], "<html>Hello</html>", true, Reason::Ok),
            ("/wp-login.php", 200, &[], "<form>", true, Reason::Ok),
            ("/", 200, &[], " \r\n\t", false, Reason::Blank),
            ("/", 200, &[], "", false, Reason::Blank),
            ("/wp-login.php", 403, &[], "", true, Reason::Ok),
            ("/wp-login.php", 401, &[], "", true, Reason::Ok),
            ("/blog/wp-login.php?x", 403, &[], "Forbidden", true, Reason::Ok),
            ("/", 403, &[], "Forbidden", false, Reason::Status),
            ("/", 404, &[], "Not Found", false, Reason::Status),
            ("/", 500, &[], database, false, Reason::Database),
            ("/", 200, &[], database, false, Reason::Database),
            ("/", 500, &[], "", false, Reason::Status),
            ("/", 503, &[("retry-after", "600")], "Briefly unavailable", false, Reason::Maintenance),
            ("/", 503, &[], "", false, Reason::Status),
            ("/", 302, &[("location", "http://blog.test/wp-admin/install.php")], "", false, Reason::NotInstalled),
            ("/", 302, &[("location", "/wp-admin/setup-config.php?x=1")], "", false, Reason::NotInstalled),
            ("/", 301, &[("location", "https://blog.test/")], "", true, Reason::SchemeMismatch),
            ("/wp-login.php", 302, &[("location", "https://BLOG.test/wp-login.php")], "", true, Reason::SchemeMismatch),
            ("/", 301, &[("location", "https://www.blog.test/")], "", true, Reason::Ok),
            ("/", 302, &[("location", "/en/")], "", true, Reason::Ok),
            ("/", 302, &[], "", true, Reason::Ok),
        ] {
            let found = judge(&wordpress(path), &answer(status, fields, body));
            assert_eq!((found.well, found.reason), (well, reason), "{path} {status} {fields:?} {body}");
        }
    }

    #[test]
    fn the_visitor_that_is_wanted_is_read_from_the_redirect() {
        let wanted = |to: &str| wanted(&wordpress("/"), &answer(301, &[("location", to)], ""));
        assert_eq!(wanted("http://blog.test:8888/"), Some(Visitor { https: false, port: Some(8888) }));
        assert_eq!(wanted("https://blog.test/"), Some(Visitor { https: true, port: None }));
        assert_eq!(wanted("https://other.test/"), None);
        assert_eq!(wanted("https://blog.test/de/"), None);
        assert_eq!((bare("a:1"), bare("a"), bare("[::1]:80"), bare("[::1]")), ("a", "a", "[::1]", "[::1]"));
    }

    proptest! {
        #[test]
        fn no_answer_panics(
            status in 100u16..1000,
            location in "[ -~]{0,60}",
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut answer = answer(status, &[], "");
            answer.body = body;
            answer.fields.insert(LOCATION, location.parse().unwrap());
            let _ = judge(&wordpress("/"), &answer);
            let _ = judge(&HealthCheck { body: Some("x".into()), ..HealthCheck::default() }, &answer);
        }
    }
}
