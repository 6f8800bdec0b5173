//! What RFC 9113 says must be an error is one: frames, streams, settings, flow control and heads, a line each.

use etna_tests::h2::*;
use etna_tests::scene::Scene;
use etna_tests::stand_in::{Manner, StandIn};

/// What must come of something sent.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The connection ends, for one of these reasons where one is given.
    Connection(&'static [u32]),
    /// The stream ends for one of these reasons, or the connection.
    Stream(&'static [u32]),
    /// The stream is refused: it ends as malformed, and with it the connection where the block itself was not
    /// understood (section 5.4), or it is answered with this status.
    Refused(u16),
    /// It is answered.
    Served,
}

struct Vector {
    /// Section of RFC 9113, and what is sent.
    name: &'static str,
    /// After the preface and settings.
    bytes: Vec<u8>,
    expected: Expected,
}

fn vector(name: &'static str, bytes: Vec<u8>, expected: Expected) -> Vector {
    Vector { name, bytes, expected }
}

/// A request to a server that answers.
fn good(stream: u32) -> Vec<u8> {
    get(stream, "a.test", "/")
}

/// The head of a request whose server never answers, with a body to come.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", "hangs.test", "/"))
}

/// A whole request whose server never answers.
fn half_closed(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("POST", "hangs.test", "/"))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A request with these fields and no body.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

/// A good request with more fields.
fn with(more: &[(&str, &str)]) -> Vec<u8> {
    let block = [request("GET", "a.test", "/"), block(more)].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

/// A good request with a field of any bytes.
fn with_raw(name: &[u8], value: &[u8]) -> Vec<u8> {
    let block = [request("GET", "a.test", "/"), raw_field(name, value)].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

/// A request with a body, `length` of it announced, sent in these pieces.
fn body(length: &str, pieces: &[usize]) -> Vec<u8> {
    let head = [request("POST", "a.test", "/"), field("content-length", length)].concat();
    let mut wire = frame(HEADERS, END_HEADERS | if pieces.is_empty() { END_STREAM } else { 0 }, 1, &head);
    for (at, piece) in pieces.iter().enumerate() {
        let flags = if at + 1 == pieces.len() { END_STREAM } else { 0 };
        wire.extend(frame(DATA, flags, 1, &vec![b'x'; *piece]));
    }
    wire
}

fn frames() -> Vec<Vector> {
    use Expected::{Connection, Served, Stream};
    const SIZE: Expected = Connection(&[FRAME_SIZE_ERROR]);
    const PROTOCOL: Expected = Connection(&[PROTOCOL_ERROR]);
    let head = request("GET", "a.test", "/");
    let (first, rest) = head.split_at(10);
    let begun = frame(HEADERS, END_STREAM, 1, first);
    let padded = [&[200][..], &head].concat();
    vec![
        vector("4.1 a frame of an unknown type", [frame(0xbe, 0xff, 0, b"abc"), good(1)].concat(), Served),
        vector("4.1 unknown flags", [frame(PING, 0x16, 0, &[0; 8]), good(1)].concat(), Served),
        vector("4.1 the reserved bit", [frame(PING, 0, 0x8000_0000, &[0; 8]), good(1)].concat(), Served),
        vector("4.2 a DATA frame that is too long", [open(1), frame(DATA, 0, 1, &[0; 16_385])].concat(), SIZE),
        vector("4.2 a HEADERS frame that is too long", frame(HEADERS, 5, 1, &[0; 16_385]), SIZE),
        vector("4.2 a frame of an unknown type that is too long", frame(0xbe, 0, 0, &[0; 16_385]), SIZE),
        vector(
            "4.3 a block that cannot be decoded",
            frame(HEADERS, 5, 1, &[0xff; 6]),
            Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        vector(
            "4.3 an index beyond all tables",
            frame(HEADERS, 5, 1, &[0xbf]),
            Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        vector("4.3 another stream's frame inside a block", [begun.clone(), good(3)].concat(), PROTOCOL),
        vector("5.5 an unknown frame inside a block", [begun.clone(), frame(0xbe, 0, 0, b"")].concat(), PROTOCOL),
        vector("6.1 DATA on stream 0", frame(DATA, 0, 0, b"abc"), PROTOCOL),
        vector("6.1 DATA that is less than its padding", [open(1), frame(DATA, PADDED, 1, &[6, 0])].concat(), PROTOCOL),
        vector(
            "6.1 DATA without its padding's length",
            [open(1), frame(DATA, PADDED, 1, b"")].concat(),
            Connection(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        vector("6.2 HEADERS on stream 0", frame(HEADERS, 5, 0, &head), PROTOCOL),
        vector("6.2 HEADERS that are less than their padding", frame(HEADERS, 5 | PADDED, 1, &padded), PROTOCOL),
        vector("6.2 PRIORITY inside a block", [begun.clone(), frame(PRIORITY, 0, 1, &[0; 5])].concat(), PROTOCOL),
        vector("6.2 HEADERS inside a block", [begun.clone(), begun.clone()].concat(), PROTOCOL),
        vector(
            "6.2 HEADERS with a priority",
            {
                let block = [&[0, 0, 0, 0, 15][..], &head].concat();
                frame(HEADERS, 5 | WITH_PRIORITY, 1, &block)
            },
            Served,
        ),
        vector("6.2 HEADERS in pieces", [begun.clone(), frame(CONTINUATION, END_HEADERS, 1, rest)].concat(), Served),
        vector("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), PROTOCOL),
        vector(
            "6.3 PRIORITY of another length",
            [frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        vector("6.3 PRIORITY on an idle stream", [frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1]), good(1)].concat(), Served),
        vector("6.4 RST_STREAM on stream 0", reset(0), PROTOCOL),
        vector("6.4 RST_STREAM on an idle stream", reset(1), PROTOCOL),
        vector("6.4 RST_STREAM of another length", [open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), SIZE),
        vector("6.6 PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &head].concat()), PROTOCOL),
        vector("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), PROTOCOL),
        vector("6.7 PING of another length", frame(PING, 0, 0, &[0; 7]), SIZE),
        // By this one the crate knows its own.
        vector(
            "6.7 an answer to no PING",
            {
                let payload = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
                [frame(PING, ACK, 0, &payload), good(1)].concat()
            },
            Served,
        ),
        vector("6.8 GOAWAY on a stream", [open(1), frame(GOAWAY, 0, 1, &[0; 8])].concat(), PROTOCOL),
        vector("6.10 CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, &head), PROTOCOL),
        vector(
            "6.10 CONTINUATION after a whole block",
            [good(1), frame(CONTINUATION, END_HEADERS, 1, &head)].concat(),
            PROTOCOL,
        ),
        vector("6.10 CONTINUATION on stream 0", [begun.clone(), frame(CONTINUATION, 4, 0, rest)].concat(), PROTOCOL),
        vector("6.10 CONTINUATION of another stream", [begun, frame(CONTINUATION, 4, 3, rest)].concat(), PROTOCOL),
        vector(
            "6.10 CONTINUATION after DATA",
            [open(1), frame(DATA, 0, 1, b"a"), frame(CONTINUATION, 4, 1, &head)].concat(),
            PROTOCOL,
        ),
        vector(
            "5.3.1 a stream that depends on itself",
            {
                let block = [&[0, 0, 0, 1, 15][..], &head].concat();
                frame(HEADERS, 5 | WITH_PRIORITY, 1, &block)
            },
            Stream(&[PROTOCOL_ERROR]),
        ),
    ]
}

fn streams() -> Vec<Vector> {
    use Expected::{Connection, Served, Stream};
    const PROTOCOL: Expected = Connection(&[PROTOCOL_ERROR]);
    const CLOSED: Expected = Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    let overflowing = [good(1), half_closed(3)].concat();
    vec![
        vector("5.1 DATA on an idle stream", frame(DATA, END_STREAM, 1, b"abc"), PROTOCOL),
        vector("5.1 WINDOW_UPDATE on an idle stream", update(1, 1), PROTOCOL),
        vector("5.1 DATA after the end", [half_closed(1), frame(DATA, 1, 1, b"a")].concat(), CLOSED),
        vector("5.1 HEADERS after the end", [half_closed(1), half_closed(1)].concat(), CLOSED),
        vector("5.1 CONTINUATION after the end", [half_closed(1), frame(CONTINUATION, 4, 1, b"")].concat(), PROTOCOL),
        vector("5.1 DATA after RST_STREAM", [open(1), reset(1), frame(DATA, 1, 1, b"a")].concat(), CLOSED),
        vector("5.1 HEADERS after RST_STREAM", [open(1), reset(1), half_closed(1)].concat(), CLOSED),
        vector("5.1 PRIORITY after the end", [good(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat(), Served),
        vector("5.1.1 an even stream", half_closed(2), PROTOCOL),
        vector("5.1.1 a stream below another", [half_closed(5), half_closed(3)].concat(), PROTOCOL),
        vector("6.9 WINDOW_UPDATE by 0", update(0, 0), PROTOCOL),
        vector(
            "6.9 WINDOW_UPDATE of a stream by 0",
            [half_closed(1), update(1, 0)].concat(),
            Stream(&[PROTOCOL_ERROR]),
        ),
        vector(
            "6.9 WINDOW_UPDATE of another length",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        vector("6.9.1 a window beyond all bounds", update(0, 0x7fff_ffff), Connection(&[FLOW_CONTROL_ERROR])),
        vector(
            "6.9.1 a stream's window beyond all bounds",
            [half_closed(1), update(1, 0x7fff_ffff)].concat(),
            Stream(&[FLOW_CONTROL_ERROR]),
        ),
        vector(
            "6.9.2 settings that make a window too large",
            [overflowing, update(3, 0x7fff_0000), settings(4, 0x7fff_ffff)].concat(),
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
    ]
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &setting(id, value))
}

fn all_settings() -> Vec<Vector> {
    use Expected::{Connection, Served};
    const SIZE: Expected = Connection(&[FRAME_SIZE_ERROR]);
    const PROTOCOL: Expected = Connection(&[PROTOCOL_ERROR]);
    vec![
        vector("6.5 SETTINGS with ACK and a payload", frame(SETTINGS, ACK, 0, &setting(1, 1)), SIZE),
        vector("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, &setting(1, 1)), PROTOCOL),
        vector("6.5 SETTINGS of half a setting", frame(SETTINGS, 0, 0, &[0; 3]), SIZE),
        vector("6.5.2 ENABLE_PUSH of 2", settings(2, 2), PROTOCOL),
        vector("6.5.2 a window of 2^31", settings(4, 0x8000_0000), Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR])),
        vector("6.5.2 frames of 16383 bytes", settings(5, 16_383), PROTOCOL),
        vector("6.5.2 frames of 2^24 bytes", settings(5, 0x0100_0000), PROTOCOL),
        vector("6.5.2 an unknown setting", [settings(0xbe, 7), good(1)].concat(), Served),
        vector(
            "6.5.3 the same setting twice",
            {
                let twice = [setting(4, 1), setting(4, 65_535)].concat();
                [frame(SETTINGS, 0, 0, &twice), good(1)].concat()
            },
            Served,
        ),
        vector("8441 3 ENABLE_CONNECT_PROTOCOL of 2", settings(8, 2), PROTOCOL),
    ]
}

fn heads() -> Vec<Vector> {
    use Expected::{Refused, Served};
    const MALFORMED: Expected = Refused(400);
    let (method, scheme, path) = ((":method", "GET"), (":scheme", "http"), (":path", "/"));
    let authority = (":authority", "a.test");
    let post = frame(HEADERS, END_HEADERS, 1, &request("POST", "a.test", "/"));
    let trailers = |flags, fields: &[(&str, &str)]| [post.clone(), frame(HEADERS, flags, 1, &block(fields))].concat();
    vec![
        vector("8.1 trailers that do not end the stream", trailers(END_HEADERS, &[("a", "b")]), MALFORMED),
        // The crate leaves them out, and nobody sees them.
        vector("8.1 pseudo-header fields in trailers", trailers(5, &[(":path", "/")]), Served),
        vector("8.1.1 less than Content-Length", body("4", &[3]), MALFORMED),
        vector("8.1.1 more than Content-Length", body("2", &[3]), MALFORMED),
        vector("8.1.1 more than Content-Length, in pieces", body("2", &[1, 1, 1]), MALFORMED),
        vector("8.1.1 Content-Length and no body", body("1", &[]), MALFORMED),
        vector("8.1.1 Content-Length that is kept", body("3", &[1, 2]), Served),
        vector("8.1.1 Content-Length twice", with(&[("content-length", "0"), ("content-length", "0")]), MALFORMED),
        vector("8.1.1 Content-Length that is no number", body("+1", &[1]), MALFORMED),
        vector("8.2 a name in capitals", with(&[("X-Test", "a")]), MALFORMED),
        vector("8.2.1 a name with a space", with(&[("x test", "a")]), MALFORMED),
        vector("8.2.1 a name with a colon", with(&[("x:test", "a")]), MALFORMED),
        vector("8.2.1 a name with a control", with_raw(b"x\x01", b"a"), MALFORMED),
        vector("8.2.1 a name beyond ASCII", with_raw(b"x\xe9", b"a"), MALFORMED),
        vector("8.2.1 no name", with(&[("", "a")]), MALFORMED),
        vector("8.2.1 a value with NUL", with_raw(b"x", b"a\0b"), MALFORMED),
        vector("8.2.1 a value with CR", with_raw(b"x", b"a\rb"), MALFORMED),
        vector("8.2.1 a value with LF", with_raw(b"x", b"a\nb: c"), MALFORMED),
        vector("8.2.1 a value with CR LF", with_raw(b"x", b"a\r\nb: c"), MALFORMED),
        vector("8.2.1 a value after a space", with(&[("x", " a")]), MALFORMED),
        vector("8.2.1 a value before a space", with(&[("x", "a ")]), MALFORMED),
        vector("8.2.2 Connection", with(&[("connection", "x")]), MALFORMED),
        vector("8.2.2 Keep-Alive", with(&[("keep-alive", "x")]), MALFORMED),
        vector("8.2.2 Proxy-Connection", with(&[("proxy-connection", "x")]), MALFORMED),
        vector("8.2.2 Transfer-Encoding", with(&[("transfer-encoding", "chunked")]), MALFORMED),
        vector("8.2.2 Upgrade", with(&[("upgrade", "h2c")]), MALFORMED),
        vector("8.2.2 TE that is not trailers", with(&[("te", "trailers, deflate")]), MALFORMED),
        vector("8.2.2 TE", with(&[("te", "trailers")]), Served),
        vector("8.2.3 a cookie in crumbs", with(&[("cookie", "a=1"), ("cookie", "b=2")]), Served),
        vector("8.3 an unknown pseudo-header field", with(&[(":test", "a")]), MALFORMED),
        vector(
            "8.3 a response's pseudo-header field",
            fields(&[method, scheme, path, authority, (":status", "200")]),
            MALFORMED,
        ),
        vector(
            "8.3 a pseudo-header field after others",
            fields(&[method, scheme, ("x", "a"), path, authority]),
            MALFORMED,
        ),
        vector("8.3 :path twice", fields(&[method, scheme, path, path, authority]), MALFORMED),
        vector("8.3 :method twice", fields(&[method, method, scheme, path, authority]), MALFORMED),
        vector("8.3 :authority twice", fields(&[method, scheme, path, authority, authority]), MALFORMED),
        vector("8.3.1 no :method", fields(&[scheme, path, authority]), MALFORMED),
        vector("8.3.1 no :scheme", fields(&[method, path, authority]), MALFORMED),
        vector("8.3.1 no :path", fields(&[method, scheme, authority]), MALFORMED),
        vector("8.3.1 an empty :path", fields(&[method, scheme, (":path", ""), authority]), MALFORMED),
        vector("8.3.1 a :path without a slash", fields(&[method, scheme, (":path", "a"), authority]), MALFORMED),
        vector("8.3.1 a :path with a space", fields(&[method, scheme, (":path", "/ HTTP/1.1"), authority]), MALFORMED),
        vector("8.3.1 a :path with NUL", fields(&[method, scheme, (":path", "/%00"), authority]), MALFORMED),
        vector("8.3.1 a :path beyond ASCII", fields(&[method, scheme, (":path", "/\u{e9}"), authority]), MALFORMED),
        vector(
            "8.3.1 a whole URL for :path",
            fields(&[method, scheme, (":path", "http://b.test/"), authority]),
            MALFORMED,
        ),
        // What follows the path is left out, and nobody sees it.
        vector("8.3.1 a :path with a fragment", fields(&[method, scheme, (":path", "/#/b"), authority]), Served),
        vector("8.3.1 * that is no OPTIONS", fields(&[method, scheme, (":path", "*"), authority]), MALFORMED),
        vector("8.3.1 OPTIONS *", fields(&[(":method", "OPTIONS"), scheme, (":path", "*"), authority]), Served),
        vector("8.3.1 another :scheme", fields(&[method, (":scheme", "ftp"), path, authority]), MALFORMED),
        vector("8.3.1 a :scheme with a space", fields(&[method, (":scheme", "http x"), path, authority]), MALFORMED),
        vector("8.3.1 a :method with a space", fields(&[(":method", "GET /"), scheme, path, authority]), MALFORMED),
        vector("8.3.1 neither :authority nor Host", fields(&[method, scheme, path]), MALFORMED),
        vector("8.3.1 Host alone", fields(&[method, scheme, path, ("host", "a.test")]), Served),
        vector("8.3.1 Host that agrees", with(&[("host", "A.test")]), Served),
        vector("8.3.1 Host that differs", with(&[("host", "b.test")]), MALFORMED),
        vector("8.3.1 Host twice", fields(&[method, scheme, path, ("host", "a.test"), ("host", "a.test")]), MALFORMED),
        vector("8.3.1 an empty :authority", fields(&[method, scheme, path, (":authority", "")]), MALFORMED),
        vector("8.3.1 :authority with a user", fields(&[method, scheme, path, (":authority", "u@a.test")]), MALFORMED),
        vector("8.3.1 :authority with a path", fields(&[method, scheme, path, (":authority", "a.test/x")]), MALFORMED),
        vector("8.5 CONNECT", fields(&[(":method", "CONNECT"), (":authority", "a.test:80")]), Refused(405)),
        vector("8.5 CONNECT with a path", fields(&[(":method", "CONNECT"), scheme, path, authority]), Refused(405)),
        vector(
            "8441 4 :protocol without CONNECT",
            fields(&[method, (":protocol", "websocket"), scheme, path, authority]),
            MALFORMED,
        ),
        vector(
            "8441 4 an unknown :protocol",
            {
                let fields = block(&[(":method", "CONNECT"), (":protocol", "x"), scheme, path, authority]);
                frame(HEADERS, END_HEADERS, 1, &fields)
            },
            Refused(405),
        ),
    ]
}

fn holds(expected: Expected, outcome: Outcome) -> bool {
    match (expected, outcome) {
        (Expected::Connection(codes), Outcome::GoAway(code)) => codes.contains(&code),
        (Expected::Stream(codes), Outcome::GoAway(code) | Outcome::Reset(code)) => codes.contains(&code),
        (Expected::Refused(_), Outcome::Reset(code) | Outcome::GoAway(code)) => code == PROTOCOL_ERROR,
        (Expected::Refused(wanted), Outcome::Status(status)) => status == wanted,
        (Expected::Served, Outcome::Status(status)) => status == 200,
        _ => false,
    }
}

#[tokio::test]
async fn what_must_be_an_error_is_one_and_nothing_else() {
    let scene = Scene::open("h2vectors").await;
    let (a, hangs) = (StandIn::start("a").await, StandIn::start("hangs").await);
    hangs.set(Manner::Hang);
    scene.route("a", "a.test", &[("s", a.address)]).await;
    scene.route("hangs", "hangs.test", &[("s", hangs.address)]).await;
    let proxy = scene.proxy("etna").await;
    let at = etna_tests::h2::open(&scene, &proxy).await;
    let mut wrong = Vec::new();
    let vectors: Vec<Vector> = [frames(), streams(), all_settings(), heads()].into_iter().flatten().collect();
    let all = vectors.len();
    for Vector { name, bytes, expected } in vectors {
        let mut wire = Wire::open(at).await;
        let _ = wire.send(&bytes).await;
        let stream = if matches!(name, "5.1.1 an even stream") { 2 } else { 1 };
        let outcome = wire.outcome(stream).await;
        if !holds(expected, outcome) {
            wrong.push(format!("{name}: {expected:?}, but {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {all}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(proxy.metrics().await.sum("etna_panics_total", &[]), Some(0.0));
    assert_eq!(etna_tests::client::get(at, "a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_connection_begins_with_settings() {
    let scene = Scene::open("h2begin").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let at = etna_tests::h2::open(&scene, &proxy).await;
    for (name, bytes) in
        [("PING", frame(PING, 0, 0, &[0; 8])), ("a request", good(1)), ("ACK", frame(SETTINGS, ACK, 0, &[]))]
    {
        let mut wire = Wire::connect(at).await;
        wire.send(&[PREFACE, &bytes].concat()).await.unwrap();
        assert_eq!(wire.outcome(1).await, Outcome::GoAway(PROTOCOL_ERROR), "{name}");
    }
    // What is no preface is no HTTP/2 either.
    let mut wire = Wire::connect(at).await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut wire.into_stream(), &mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
}

#[tokio::test]
async fn settings_and_pings_are_answered() {
    let scene = Scene::open("h2acks").await;
    let proxy = scene.proxy("etna").await;
    let at = etna_tests::h2::open(&scene, &proxy).await;
    let mut wire = Wire::open(at).await;
    let ours = wire.until("SETTINGS", |frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await;
    let limits: Vec<(u16, u32)> = ours
        .payload
        .chunks(6)
        .map(|one| (u16::from_be_bytes([one[0], one[1]]), u32::from_be_bytes([one[2], one[3], one[4], one[5]])))
        .collect();
    for limit in [(3, 100), (4, 256 * 1024), (6, 32 * 1024), (8, 1)] {
        assert!(limits.contains(&limit), "{limit:?} is not in {limits:?}");
    }
    wire.until("an ACK of settings", |frame| frame.kind == SETTINGS && frame.flags & ACK != 0).await;
    wire.send(&frame(PING, 0, 0, b"abcdefgh")).await.unwrap();
    let pong = wire.until("a PING's answer", |frame| frame.kind == PING).await;
    assert_eq!((pong.flags, pong.payload.as_slice()), (ACK, &b"abcdefgh"[..]));
    // An answer that nobody asked for is none to answer.
    wire.send(&[frame(PING, ACK, 0, b"12345678"), frame(PING, 0, 0, b"second!!")].concat()).await.unwrap();
    assert_eq!(wire.until("a PING's answer", |frame| frame.kind == PING).await.payload, b"second!!");
}
