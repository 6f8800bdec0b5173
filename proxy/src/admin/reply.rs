//! Answers of the admin API: JSON, and errors that say what to do.
//!
//! Every refusal is `{"message": "…"}` as vulcand's are. Statuses differ from vulcand where it answers 500 to what the
//! caller did wrong. Not here: what is asked and what is answered; each endpoint's own file says that.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use etna_store::{Error, Problem};
use serde_json::{Value, json};

/// Why a request is not answered as asked.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// A refusal with a message for people: what is wrong, and the remedy.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }

    /// 400.
    pub(super) fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404, in vulcand's words.
    pub(super) fn not_found() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "Object not found")
    }

    /// A condition that did not hold, as 412: the caller named what it had read.
    pub(super) fn changed_meanwhile(self) -> Refusal {
        match self.status {
            StatusCode::CONFLICT => Refusal {
                status: StatusCode::PRECONDITION_FAILED,
                message: "somebody else changed it meanwhile: read it again, then write".into(),
            },
            _ => self,
        }
    }

    /// 400 for an object that would not be served as written.
    pub(super) fn problem(problem: &Problem) -> Refusal {
        let place = match (problem.line, problem.column) {
            (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
            (None, Some(column)) => format!(" (column {column})"),
            (Some(line), None) => format!(" (line {line})"),
            (None, None) => String::new(),
        };
        Refusal::bad(format!("{}: {}{place}; {}", problem.key, problem.reason, problem.hint))
    }

    /// What is told when the store did not do what was asked.
    pub(super) fn store(error: &Error) -> Refusal {
        let status = match error {
            Error::Conflict => StatusCode::CONFLICT,
            Error::Invalid { .. } => StatusCode::BAD_REQUEST,
            Error::Denied { .. } => StatusCode::FORBIDDEN,
            Error::LeaseLost | Error::Compacted { .. } | Error::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal { status, message: etna_store::with_causes(error) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = with_status(self.status, &json!({ "message": self.message }));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What the framework refuses before an endpoint sees it, said as every other refusal is.
pub(super) async fn as_refusal(response: Response) -> Response {
    let is_text = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
    if !response.status().is_client_error() || !response.headers().get(CONTENT_TYPE).is_some_and(is_text) {
        return response;
    }
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, LONGEST_TEXT).await.unwrap_or_default();
    let message = String::from_utf8_lossy(&body);
    let mut refusal = Refusal::new(head.status, message).into_response();
    *refusal.extensions_mut() = head.extensions;
    refusal
}

/// A JSON answer.
pub(super) fn json(value: &Value) -> Response {
    with_status(StatusCode::OK, value)
}

/// A JSON answer with another status than 200.
pub(super) fn with_status(status: StatusCode, value: &Value) -> Response {
    let mut response = text("application/json; charset=utf-8", Body::from(escape_html(&value.to_string())));
    *response.status_mut() = status;
    response
}

/// An answer of any type, which nobody may keep or take for something else.
pub(super) fn text(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `<`, `>` and `&` as `\u003c`…: equal JSON, as Go's encoder writes it, and harmless where it is taken for HTML.
fn escape_html(json: &str) -> String {
    // Outside of strings JSON has none of these characters.
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => escaped.push(other),
        }
    }
    escaped
}

/// In bytes, of what the framework says.
const LONGEST_TEXT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_framework_refuses_is_json_too() {
        let refused = (StatusCode::BAD_REQUEST, "Invalid URL: Invalid UTF-8 in `id`").into_response();
        let response = as_refusal(refused).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json; charset=utf-8");
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, &br#"{"message":"Invalid URL: Invalid UTF-8 in `id`"}"#[..]);
        let page = as_refusal("a page".into_response()).await;
        assert_eq!(page.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        let text = escape_html(&json!({ "Route": "Path(\"/<x>\") && Host(\"a\")" }).to_string());
        assert_eq!(text, r#"{"Route":"Path(\"/\u003cx\u003e\") \u0026\u0026 Host(\"a\")"}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["Route"], "Path(\"/<x>\") && Host(\"a\")");
    }

    #[test]
    fn a_problem_names_key_place_and_remedy() {
        let problem = Problem {
            key: "frontends/f/frontend".into(),
            reason: "unexpected end".into(),
            hint: "close the parenthesis".into(),
            line: None,
            column: Some(7),
            effect: "answers 503".into(),
        };
        let refusal = Refusal::problem(&problem);
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
        assert_eq!(refusal.message, "frontends/f/frontend: unexpected end (column 7); close the parenthesis");
    }
}
