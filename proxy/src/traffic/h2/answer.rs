//! A response's head as a client of HTTP/2 gets it. Pure.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Response, StatusCode};

use crate::message::fields::Fields;
use crate::traffic::h1::answer::Delimiter;

/// A response's head, without what HTTP/2 forbids (RFC 9113 section 8.2.2). `date` is for those that come without one.
pub(super) fn head(status: StatusCode, fields: &Fields, delimiter: Delimiter, date: &str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields.to_map();
    let headers = response.headers_mut();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_str(date)
    {
        headers.insert(DATE, date);
    }
    match delimiter {
        Delimiter::Length(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        // The length of a body that is not sent is information.
        Delimiter::Nothing => {}
        Delimiter::Chunks | Delimiter::Close => {
            headers.remove(CONTENT_LENGTH);
        }
    }
    response
}

/// The head that opens a WebSocket (RFC 8441 section 5), from the one by which its server did.
pub(super) fn switched(fields: &Fields, date: &str) -> Response<()> {
    let mut response = head(StatusCode::OK, fields, Delimiter::Chunks, date);
    response.headers_mut().remove("sec-websocket-accept");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> Fields {
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        Fields::from(response.body(()).unwrap().headers())
    }

    #[test]
    fn what_is_for_one_hop_stays_there() {
        let came = [("connection", "upgrade"), ("keep-alive", "x"), ("transfer-encoding", "chunked"), ("a", "b")];
        let head = head(StatusCode::OK, &fields(&came), Delimiter::Length(7), "now");
        assert_eq!(head.headers().len(), 3);
        assert_eq!(head.headers()["content-length"], "7");
        assert_eq!(head.headers()["date"], "now");
    }

    #[test]
    fn a_length_that_informs_is_kept() {
        let length = [("content-length", "9"), ("date", "then")];
        assert_eq!(head(StatusCode::OK, &fields(&length), Delimiter::Nothing, "now").headers()["content-length"], "9");
        let unknown = head(StatusCode::OK, &fields(&length), Delimiter::Chunks, "now");
        assert!(!unknown.headers().contains_key("content-length"));
        assert_eq!(unknown.headers()["date"], "then");
    }

    #[test]
    fn a_websocket_is_opened_by_200() {
        let came = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-accept", "x"), ("b", "c")];
        let head = switched(&fields(&came), "now");
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers().len(), 2);
    }
}
