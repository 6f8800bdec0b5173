//! Answers of our own: an error becomes a short response, JSON or text as the client prefers.

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use super::body::ResponseBody;
use crate::error::Error;
use crate::message::fields::Fields;
use crate::middleware::Response;

/// Whether a client would rather read JSON (RFC 9110 section 12.5.1, coarsely: it names JSON, and not HTML).
pub fn prefers_json(fields: &Fields) -> bool {
    let accepts = |kind: &str| {
        fields.get_all("accept").any(|value| std::str::from_utf8(value).is_ok_and(|value| value.contains(kind)))
    };
    accepts("json") && !accepts("text/html")
}

/// The response to a request that failed.
pub fn error(error: Error, json: bool) -> Response {
    let status = error.status();
    let text = match error {
        Error::Denied(_) => "not found".to_owned(),
        other => other.to_string(),
    };
    let (body, kind) = if json {
        (serde_json::json!({ "error": text, "status": status.as_u16() }).to_string() + "\n", "application/json")
    } else {
        (format!("{} {text}\n", status.as_u16()), "text/plain; charset=utf-8")
    };
    let mut response = Response::new(status, ResponseBody::whole(body));
    response.fields.append(&CONTENT_TYPE, &HeaderValue::from_static(kind));
    if let Some(seconds) = error.retry_after() {
        response.fields.append(&RETRY_AFTER, &HeaderValue::from(seconds));
    }
    response.ends_connection = error.ends_connection();
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use http::header::{ACCEPT, HeaderMap};

    #[test]
    fn json_only_for_those_who_ask_for_it() {
        let with = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            prefers_json(&Fields::from(&headers))
        };
        assert!(with("application/json"));
        assert!(!with("text/html,application/json;q=0.5"));
        assert!(!with("*/*"));
        assert!(!prefers_json(&Fields::default()));
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        let response = error(Error::NoServer, false);
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.fields.get("retry-after"), Some(&b"1"[..]));
        assert!(!error(Error::Connect, true).fields.contains("retry-after"));
    }
}
