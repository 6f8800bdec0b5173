//! Chunks: sizes, extensions, ends, trailers.

use super::Expect::{Cut, Either, Forward};
use super::{Expect, SMUGGLED, Vector, post, vector};

/// Size lines that are none; each is followed by `hello`.
const SIZES: [&[u8]; 30] = [
    b"0x5\r\n",
    b"+5\r\n",
    b"-5\r\n",
    b"g\r\n",
    b"\r\n",
    b" 5\r\n",
    b"\t5\r\n",
    b"5 5\r\n",
    b"5\n",
    b"5\r",
    b"5\r\r\n",
    b"5,\r\n",
    b"5x\r\n",
    b"5 x\r\n",
    b"5\x00\r\n",
    b"5\x0b\r\n",
    b"\xef\xbc\x95\r\n",
    b"5h\r\n",
    b"0005_\r\n",
    b"5:\r\n",
    b"10000000000000005\r\n",
    b"ffffffffffffffff\r\n",
    b"fffffffffffffffb\r\n",
    b"8000000000000005\r\n",
    b"5;a=\x01\r\n",
    b"5;a\x00\r\n",
    b"5;a\nb\r\n",
    b"5;a\rb\r\n",
    b"5;a=\"\n\"\r\n",
    b"5;\x7f\r\n",
];

/// Whole bodies.
const BODIES: [(&str, &[u8]); 18] = [
    ("a chunk too long", b"5\r\nhelloX\r\n0\r\n\r\n"),
    ("a chunk too short", b"5\r\nhell\r\n0\r\n\r\n"),
    ("a chunk ended by LF", b"5\r\nhello\n0\r\n\r\n"),
    ("a chunk ended by CR", b"5\r\nhello\r0\r\n\r\n"),
    ("a chunk not ended", b"5\r\nhello0\r\n\r\n"),
    ("a chunk ended by two CR", b"5\r\nhello\r\r\n0\r\n\r\n"),
    ("a chunk ended twice", b"5\r\nhello\r\n\r\n0\r\n\r\n"),
    ("a chunk ended by LF CR", b"5\r\nhello\n\r0\r\n\r\n"),
    ("a last chunk ended by LF", b"5\r\nhello\r\n0\n\r\n"),
    ("a body ended by LF", b"5\r\nhello\r\n0\r\n\n"),
    ("a body ended by CR and a letter", b"5\r\nhello\r\n0\r\n\rX"),
    ("a trailer with a space before its colon", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
    ("a trailer ended by LF", b"5\r\nhello\r\n0\r\nX: y\n\r\n"),
    ("a folded trailer", b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
    ("a trailer that begins with a fold", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n"),
    ("a trailer without a colon", b"5\r\nhello\r\n0\r\nbad\r\n\r\n"),
    ("a trailer with NUL", b"5\r\nhello\r\n0\r\nX: \x00\r\n\r\n"),
    ("a trailer that is a request", b"5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"),
];

/// Whole bodies that may be taken, or must be.
const GOOD: [(&str, &[u8], bool); 12] = [
    ("a size in capitals", b"A\r\nhellohello\r\n0\r\n\r\n", true),
    ("a size with zeros before", b"0005\r\nhello\r\n0\r\n\r\n", false),
    ("a size with many zeros before", b"00000000000000000005\r\nhello\r\n0\r\n\r\n", false),
    ("a last chunk of several zeros", b"5\r\nhello\r\n000\r\n\r\n", false),
    ("an extension", b"5;a=b\r\nhello\r\n0\r\n\r\n", true),
    ("a quoted extension", b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", true),
    ("a space before an extension", b"5 ;a\r\nhello\r\n0\r\n\r\n", false),
    ("a space after a size", b"5 \r\nhello\r\n0\r\n\r\n", false),
    ("an empty extension", b"5;\r\nhello\r\n0\r\n\r\n", false),
    ("an extension of the last chunk", b"5\r\nhello\r\n0;a=b\r\n\r\n", true),
    ("a trailer", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", true),
    (
        "trailers that must not be",
        b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nHost: b.test\r\nTransfer-Encoding: gzip\r\n\r\n",
        false,
    ),
];

pub(super) fn all() -> Vec<Vector> {
    let mut all = Vec::new();
    for line in SIZES {
        let body = [line, b"hello\r\n0\r\n\r\n"].concat();
        all.push(chunked(format!("size {}", line.escape_ascii()), &body, Cut));
    }
    for (name, body) in BODIES {
        all.push(chunked(name.into(), body, Cut));
    }
    let long = [b"5;".as_slice(), &[b'a'; 5000], b"\r\nhello\r\n0\r\n\r\n"].concat();
    all.push(chunked("an extension of 5,000 bytes".into(), &long, Cut));
    let many = [b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(300), b"0\r\n\r\n".to_vec()].concat();
    all.push(chunked("300 extensions of 40 bytes".into(), &many, Cut));
    let trailers =
        [b"0\r\n".to_vec(), b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(2000), b"\r\n".to_vec()].concat();
    all.push(chunked("2,000 trailers".into(), &trailers, Cut));
    let hidden = format!("5;{}\r\nhello\r\n0\r\n\r\n", SMUGGLED.replace("\r\n", "\n"));
    all.push(chunked("a request in an extension, in lines of LF".into(), hidden.as_bytes(), Cut));
    for (name, body, must) in GOOD {
        let sent: &[u8] = if name.contains("capitals") { b"hellohello" } else { b"hello" };
        let expect = if must { Forward(post(sent)) } else { Either(post(sent)) };
        all.push(chunked(name.into(), body, expect));
    }
    all
}

fn chunked(name: String, body: &[u8], expect: Expect) -> Vector {
    let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    vector(format!("chunks: {name}"), [head.as_slice(), body].concat(), expect)
}
