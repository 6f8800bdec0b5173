//! `/`: one page for people, without scripts, made when it is asked for. It shows and links; it changes nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::response::Response;

use super::reply;
use crate::control::State;

/// The page.
pub(super) async fn page(Extract(state): Extract<Arc<State>>) -> Response {
    let mut response = reply::text("text/html; charset=utf-8", html(&state));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

fn html(state: &State) -> String {
    let store = state.store();
    let table = state.live.table();
    let problems = state.problems();
    let mut page = String::with_capacity(4096);
    page.push_str(HEAD);
    let readiness = if state.is_ready() { "ready" } else { "not ready" };
    let following = if store.following { "following" } else { "not following" };
    let revision = store.revision.map_or("none yet".to_owned(), |revision| revision.0.to_string());
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<p>{readiness} &middot; {following} {} &middot; revision {revision}</p>\
         <table><tr><th>frontends<th>backends<th>connections<th>problems\
         <tr><td>{}<td>{}<td>{}<td>{}</table>",
        escape(&state.engine.describe()),
        table.router.len(),
        table.backends.iter().flatten().count(),
        state.process.connections.get(),
        problems.len(),
    );
    if !problems.is_empty() {
        page.push_str("<h2>Problems</h2><table><tr><th>key<th>what<th>remedy<th>until then");
        for problem in problems.iter().take(MOST_SHOWN) {
            let cells = [&problem.key, &problem.reason, &problem.hint, &problem.effect];
            page.push_str("<tr>");
            cells.iter().for_each(|cell| page.push_str(&format!("<td>{}", escape(cell))));
        }
        page.push_str("</table>");
    }
    page.push_str(LINKS);
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Etna</title>\
    <meta name=\"viewport\" content=\"width=device-width\">\
    <style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.2rem 1.5rem .2rem 0}</style>\
    <h1>Etna</h1>";
const LINKS: &str = "<h2>More</h2><ul><li><a href=\"/v3/status\">status</a><li><a href=\"/v3/problems\">problems</a>\
    <li><a href=\"/metrics\">metrics</a><li><a href=\"/v2/frontends\">frontends</a>\
    <li><a href=\"/v2/backends\">backends</a><li><a href=\"/v3/sites\">sites</a></ul></html>\n";
const MOST_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_text_and_not_markup() {
        assert_eq!(escape("<img src=\"x\" onerror='y'>&"), "&lt;img src=&quot;x&quot; onerror=&#39;y&#39;&gt;&amp;");
    }
}
