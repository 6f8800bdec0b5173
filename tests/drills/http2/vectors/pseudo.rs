//! What HTTP/1.1 writes into its first line and `Host`, made to hold more.

use etna_tests::h2::{block, field};

use super::{Expect, Plain, SMUGGLED, Vector, With, data, headers, post, vector};

impl With {
    pub(super) fn pseudo(self) -> Vec<Vector> {
        let line = |text: &str| format!("{text} HTTP/1.1\r\nHost: a.test\r\n\r\nGET /smuggled");
        let wrong: Vec<(&str, &str, String)> = vec![
            (":method", "a request line", line("GET /")),
            (":method", "a space", "GET /smuggled?".into()),
            (":method", "CR LF", "GET\r\nx: y".into()),
            (":method", "nothing", String::new()),
            (":path", "a request", line("/")),
            (":path", "a version", "/ HTTP/1.1".into()),
            (":path", "CR LF and a field", "/ HTTP/1.1\r\nx-injected: 1\r\ny: z".into()),
            (":path", "LF", "/\nx: y".into()),
            (":path", "a tab", "/\tHTTP/1.1".into()),
            (":path", "a space", "/a b".into()),
            (":path", "NUL", "/a\0b".into()),
            (":path", "another's URL", "http://b.test/smuggled".into()),
            (":path", "our URL", "http://a.test/smuggled".into()),
            (":path", "a host and a port", "b.test:80".into()),
            (":path", "nothing", String::new()),
            (":path", "no slash", "smuggled".into()),
            (":path", "a query alone", "?smuggled".into()),
            (":path", "an asterisk", "*".into()),
            (":path", "bytes beyond ASCII", "/\u{e9}".into()),
            (":scheme", "CR LF", "http\r\nx: y".into()),
            (":scheme", "a URL", "http://b.test/smuggled?".into()),
            (":scheme", "a request", line("http://a.test/")),
            (":scheme", "nothing", String::new()),
            (":scheme", "another", "file".into()),
            (":authority", "CR LF and a field", "a.test\r\nx-injected: 1".into()),
            (":authority", "an end and a request", format!("a.test\r\n\r\n{SMUGGLED}")),
            (":authority", "a space", "a.test b.test".into()),
            (":authority", "a path", "a.test/smuggled".into()),
            (":authority", "a query", "a.test?b.test".into()),
            (":authority", "a fragment", "a.test#b.test".into()),
            (":authority", "a user", "b.test@a.test".into()),
            (":authority", "two hosts", "a.test,b.test".into()),
            (":authority", "two ports", "a.test:80:81".into()),
            (":authority", "NUL", "a.test\0".into()),
            (":authority", "a tab", "a.test\t".into()),
            (":status", "an answer's", "200".into()),
            (":unknown", "anything", "1".into()),
            (":path ", "a space in its name", "/smuggled".into()),
            (":path\r\nhost", "CR LF in its name", "b.test".into()),
        ];
        let one = |(name, what, value): &(&str, &str, String)| {
            vector(format!("{name:?} with {what}"), self.whole(&[(name, value)], &[]), Expect::Refuse)
        };
        let mut all: Vec<Vector> = wrong.iter().map(one).collect();
        // What follows `#` is left out where the head is read, and nobody sees it.
        let left_out = Plain { method: "GET", ..post(b"") };
        let fragment = self.whole(&[(":path", "/#\r\nx: y")], &[]);
        all.push(vector("\":path\" with a fragment and CR LF", fragment, Expect::Forward(left_out)));
        for (name, first, second) in [
            (":path", "/", "/smuggled"),
            (":method", "GET", "POST"),
            (":authority", "a.test", "b.test"),
            (":scheme", "http", "https"),
        ] {
            all.push(vector(
                format!("{name} twice"),
                self.whole(&[(name, first), (name, second)], &[]),
                Expect::Refuse,
            ));
            let late = [self.block("GET", "/", &[("x", "y")]), field(name, second)].concat();
            all.push(vector(format!("{name} after a field"), headers(&late, true), Expect::Refuse));
        }
        let authority = (":authority", "b.test:80");
        let connect = headers(&block(&[(":method", "CONNECT"), authority]), false);
        all.push(vector("CONNECT", [connect.clone(), data(SMUGGLED.as_bytes(), false)].concat(), Expect::Method));
        all.push(vector(
            "CONNECT that ends",
            headers(&block(&[(":method", "CONNECT"), authority]), true),
            Expect::Method,
        ));
        all.push(vector("CONNECT with a path", self.whole(&[(":method", "CONNECT")], &[]), Expect::Method));
        let extended = |protocol, fields| {
            let head =
                self.pseudo_block(&[(":method", "CONNECT"), (":protocol", protocol), (":path", "/chat")], fields);
            [headers(&head, false), data(SMUGGLED.as_bytes(), false)].concat()
        };
        all.push(vector("CONNECT by an unknown protocol", extended("h2c", &[]), Expect::Method));
        all.push(vector("CONNECT by WebSockets and CR LF", extended("websocket\r\nx: y", &[]), Expect::Refuse));
        all.push(vector(
            "a WebSocket with a length",
            extended("websocket", &[("content-length", "40")]),
            Expect::Refuse,
        ));
        all.push(vector("a WebSocket that is refused, and a request", extended("websocket", &[]), Expect::Alone));
        all.push(vector(":protocol without CONNECT", self.whole(&[(":protocol", "websocket")], &[]), Expect::Refuse));
        all
    }
}
