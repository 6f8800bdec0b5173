//! Lengths and transfer codings: where a request ends.

use super::Expect::{Forward, Refuse};
use super::{SMUGGLED, Vector, post, vector};

/// Values of Content-Length that are no length, or are one for some readers only.
const LENGTHS: [&[u8]; 33] = [
    b"+5",
    b"-5",
    b"0x5",
    b"5x",
    b"5 5",
    b"5,5",
    b"5, 5",
    b"5, 6",
    b"5;",
    b"005",
    b"00",
    b"05",
    b"",
    b" ",
    b"1e1",
    b"5.0",
    b"5_0",
    b"0b101",
    b"5\t5",
    b"\"5\"",
    b"'5'",
    b"\x0b5",
    b"5\x0b",
    b"\x0c5",
    b"5\x00",
    b"\x005",
    b"5\x7f",
    b"\xef\xbc\x95",
    b"18446744073709551616",
    b"18446744073709551621",
    b"99999999999999999999",
    b"5 ,",
    b",5",
];

/// Two of them.
const PAIRS: [(&str, &str); 9] =
    [("5", "5"), ("5", "6"), ("6", "5"), ("5", ""), ("", "5"), ("0", "5"), ("5", "0"), ("5", "05"), ("0", "0")];

/// Values of Transfer-Encoding other than `chunked`.
const CODINGS: [&[u8]; 36] = [
    b"xchunked",
    b"chunkedx",
    b"chunk",
    b"identity",
    b"chunked, identity",
    b"identity, chunked",
    b"cow, chunked",
    b"chunked, cow",
    b"chunked,",
    b"chunked ,",
    b",chunked",
    b", chunked",
    b"chunked,chunked",
    b"chunked, chunked",
    b"chunked;q=1",
    b"chunked; a=b",
    b"\"chunked\"",
    b"'chunked'",
    b"gzip",
    b"gzip, chunked",
    b"deflate, gzip, chunked",
    b"chunked\x00",
    b"\x00chunked",
    b"\x0bchunked",
    b"chunked\x0b",
    b"\x0cchunked",
    b"chunked\x7f",
    b"ch\xfcnked",
    b"chunked identity",
    b"chunked\tidentity",
    b"",
    b" ",
    b"trailers",
    b"x: chunked",
    b"chunked\x85",
    b"\xa0chunked",
];

/// How a field's name can be written so that some see it and some do not.
const NAMES: [&[u8]; 8] = [b"{} ", b"{}\t", b" {}", b"{}\x0b", b"{}\x00", b"\x00{}", b"{}\xa0", b"X: y\r{}"];

pub(super) fn lengths() -> Vec<Vector> {
    let mut all: Vec<Vector> = Vec::new();
    for value in LENGTHS {
        let request = join(&[b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: ", value, b"\r\n\r\nhello"]);
        all.push(vector(format!("length {}", value.escape_ascii()), request, Refuse));
    }
    for (first, second) in PAIRS {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {first}\r\nContent-Length: {second}\r\n\r\nhello"
        );
        all.push(vector(format!("lengths {first:?} and {second:?}"), request, Refuse));
    }
    for name in NAMES {
        let field = replaced(name, b"Content-Length");
        let request = join(&[b"POST / HTTP/1.1\r\nHost: a.test\r\n", &field, b": 40\r\n\r\n", SMUGGLED.as_bytes()]);
        all.push(vector(format!("length as {}", field.escape_ascii()), request, Refuse));
    }
    let folded = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n 5\r\n\r\nhello";
    all.push(vector("a folded length", folded, Refuse));
    let hidden = "POST / HTTP/1.1\r\nHost: a.test\r\nX: y\nContent-Length: 5\r\n\r\nhello";
    all.push(vector("a length behind a bare LF", hidden, Refuse));
    for (name, text) in [("spaces", "  5  "), ("a tab", "\t5\t"), ("none", "5")] {
        let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:{text}\r\n\r\nhello");
        all.push(vector(format!("{name} around a length"), request, Forward(post(b"hello"))));
    }
    all
}

pub(super) fn codings() -> Vec<Vector> {
    let mut all: Vec<Vector> = Vec::new();
    for value in CODINGS {
        let request = chunked(&[b"Transfer-Encoding: ", value]);
        all.push(vector(format!("coding {}", value.escape_ascii()), request, Refuse));
    }
    let twice =
        [("chunked", "chunked"), ("chunked", "identity"), ("identity", "chunked"), ("", "chunked"), ("chunked", "")];
    for (first, second) in twice {
        let fields = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}");
        all.push(vector(format!("codings {first:?} and {second:?}"), chunked(&[fields.as_bytes()]), Refuse));
    }
    for name in NAMES {
        let field = replaced(name, b"Transfer-Encoding");
        let request = chunked(&[&field, b": chunked"]);
        all.push(vector(format!("coding as {}", field.escape_ascii()), request, Refuse));
    }
    let hidden: [(&str, &[u8]); 4] = [
        ("a folded coding", b"Transfer-Encoding:\r\n chunked"),
        ("a coding folded by a bare LF", b"Transfer-Encoding:\n chunked"),
        ("a coding behind a bare LF", b"X: y\nTransfer-Encoding: chunked"),
        ("a coding in a fold", b"X: y\r\n Transfer-Encoding: chunked"),
    ];
    for (name, field) in hidden {
        all.push(vector(name, chunked(&[field]), Refuse));
    }
    for value in ["chunked", "Chunked", "CHUNKED", "  chunked", "chunked  ", "\tchunked\t"] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:{value}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        all.push(vector(format!("coding {value:?}"), request, Forward(post(b"hello"))));
    }
    all
}

/// A length and a coding, and codings where there are none.
pub(super) fn both() -> Vec<Vector> {
    let mut all = Vec::new();
    let fields = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 45\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 45",
        "Content-Length: 45\r\nTransfer-Encoding: identity",
        "Content-Length: 45\r\nTransfer-Encoding: xchunked",
        "Content-Length: 45\r\nTransfer-Encoding:\r\n chunked",
        "Content-Length: 45\r\nTransfer-Encoding : chunked",
        "Content-Length: 45\r\nTransfer-encoding: cow\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\ncontent-length: 5\r\nTransfer-Encoding: chunked",
        "Connection: Content-Length\r\nContent-Length: 45\r\nTransfer-Encoding: chunked",
        "Connection: Transfer-Encoding\r\nContent-Length: 45\r\nTransfer-Encoding: chunked",
    ];
    for field in fields {
        for method in ["POST", "GET"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n0\r\n\r\n{SMUGGLED}");
            all.push(vector(format!("{method} with {}", field.escape_debug()), request, Refuse));
        }
    }
    for method in ["HEAD", "DELETE", "OPTIONS", "PUT"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        );
        all.push(vector(format!("{method} with both"), request, Refuse));
    }
    for more in
        ["", "Connection: keep-alive\r\n", "Content-Length: 45\r\n", "Connection: keep-alive\r\nContent-Length: 45\r\n"]
    {
        let request =
            format!("POST / HTTP/1.0\r\nHost: a.test\r\n{more}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
        all.push(vector(format!("a coding in HTTP/1.0 with {}", more.escape_debug()), request, Refuse));
    }
    all
}

fn chunked(fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    join(&[b"POST / HTTP/1.1\r\nHost: a.test\r\n", &fields, b"\r\n\r\n0\r\n\r\n", SMUGGLED.as_bytes()])
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// `{}` replaced by a name.
fn replaced(form: &[u8], name: &[u8]) -> Vec<u8> {
    let at = form.windows(2).position(|pair| pair == b"{}").expect("a form has a place for the name");
    [&form[..at], name, &form[at + 2..]].concat()
}
