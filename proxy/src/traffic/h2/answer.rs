//! A response's head as a client of HTTP/2 gets it. Pure.

use http::header::{CONTENT_LENGTH, DATE, HeaderMap};
use http::{Response, StatusCode};

use super::known::Known;
use crate::message::fields::Fields;
use crate::traffic::h1::answer::{Delimiter, digits};

/// A response's head, without what HTTP/2 forbids (RFC 9113 section 8.2.2). `date` is for those that come without one.
pub(super) fn head(
    status: StatusCode,
    fields: &Fields,
    delimiter: Delimiter,
    date: &str,
    known: &Known,
) -> Response<()> {
    let mut headers = HeaderMap::with_capacity(fields.len() + 2);
    let mut add = |name: &[u8], value: &[u8]| {
        if let Some((name, value)) = known.field(name, value) {
            headers.append(name, value);
        }
    };
    let mut dated = false;
    for field in fields.iter() {
        match field.name() {
            b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive" | b"proxy-connection" => continue,
            // The length of a body that is not sent is information.
            b"content-length" if delimiter != Delimiter::Nothing => continue,
            b"date" => dated = true,
            _ => {}
        }
        add(field.name(), field.value());
    }
    if !dated {
        add(DATE.as_str().as_bytes(), date.as_bytes());
    }
    if let Delimiter::Length(length) = delimiter {
        add(CONTENT_LENGTH.as_str().as_bytes(), digits(length, &mut [0; 20]));
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The head that opens a WebSocket (RFC 8441 section 5), from the one by which its server did.
pub(super) fn switched(fields: &Fields, date: &str, known: &Known) -> Response<()> {
    let mut response = head(StatusCode::OK, fields, Delimiter::Chunks, date, known);
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

    fn of(came: &[(&str, &str)], delimiter: Delimiter) -> Response<()> {
        head(StatusCode::OK, &fields(came), delimiter, "now", &Known::default())
    }

    #[test]
    fn what_is_for_one_hop_stays_there() {
        let came = [("connection", "upgrade"), ("keep-alive", "x"), ("transfer-encoding", "chunked"), ("a", "b")];
        let head = of(&came, Delimiter::Length(7));
        assert_eq!(head.headers().len(), 3);
        assert_eq!(head.headers()["content-length"], "7");
        assert_eq!(head.headers()["date"], "now");
    }

    #[test]
    fn a_length_that_informs_is_kept() {
        let length = [("content-length", "9"), ("date", "then")];
        assert_eq!(of(&length, Delimiter::Nothing).headers()["content-length"], "9");
        let unknown = of(&length, Delimiter::Chunks);
        assert!(!unknown.headers().contains_key("content-length"));
        assert_eq!(unknown.headers()["date"], "then");
    }

    #[test]
    fn a_websocket_is_opened_by_200() {
        let came = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-accept", "x"), ("b", "c")];
        let head = switched(&fields(&came), "now", &Known::default());
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers().len(), 2);
    }
}
