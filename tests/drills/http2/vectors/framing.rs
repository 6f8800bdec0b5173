//! Where a body ends: lengths and codings that say something else than DATA does.

use etna_tests::h2::{END_HEADERS, END_STREAM, HEADERS, block, frame};

use super::{Expect, Plain, SMUGGLED, Vector, With, data, headers, post, vector};

impl With {
    pub(super) fn lengths(self) -> Vec<Vector> {
        let smuggled = SMUGGLED.as_bytes();
        let empty = || Expect::Cut(Some(post(b"")));
        let five = || Expect::Cut(Some(post(b"hello")));
        let long = [b"hello", smuggled].concat();
        let two =
            [headers(&self.block("POST", "/", &[("content-length", "5")]), false), data(b"hello", false)].concat();
        let mut all = vec![
            vector("length 0, a request in DATA", self.post(&[("content-length", "0")], smuggled), empty()),
            vector("length 5, a request in the same DATA", self.post(&[("content-length", "5")], &long), five()),
            vector("length 5, a request in the next DATA", [two.clone(), data(smuggled, true)].concat(), five()),
            vector(
                "length 5, trailers, a request",
                {
                    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-end", "1")]));
                    [two, trailers, data(smuggled, true)].concat()
                },
                Expect::Cut(Some(Plain { trailers: Vec::new(), ..post(b"hello") })),
            ),
            vector("a length beyond DATA", self.post(&[("content-length", "100")], smuggled), Expect::Cut(None)),
            vector(
                "a length and no DATA",
                self.whole(&[(":method", "POST")], &[("content-length", "40")]),
                Expect::Refuse,
            ),
        ];
        let twice = [("the same", "40", "40"), ("another", "40", "5"), ("0", "40", "0"), ("another", "0", "40")];
        all.extend(twice.map(|(what, first, second)| {
            let fields = [("content-length", first), ("content-length", second)];
            vector(format!("length {first}, and {what} once more"), self.post(&fields, smuggled), Expect::Refuse)
        }));
        let none =
            ["40, 40", "+40", "040", "0x28", "40 ", " 40", "-40", "", "4_0", "40\t", "18446744073709551656", "4e1"];
        all.extend(none.map(|length| {
            vector(format!("length {length:?}"), self.post(&[("content-length", length)], smuggled), Expect::Refuse)
        }));
        all
    }

    pub(super) fn codings(self) -> Vec<Vector> {
        let ended = [b"0\r\n\r\n", SMUGGLED.as_bytes()].concat();
        let mut all = Vec::new();
        for coding in ["chunked", "identity", "xchunked", "chunked, identity", "gzip, chunked", "Chunked", ""] {
            let bytes = self.post(&[("transfer-encoding", coding)], &ended);
            all.push(vector(format!("transfer-encoding: {coding}"), bytes, Expect::Refuse));
        }
        let both = [("content-length", "45"), ("transfer-encoding", "chunked")];
        all.push(vector("transfer-encoding beside a length", self.post(&both, &ended), Expect::Refuse));
        for name in [
            "Transfer-Encoding",
            "transfer-encoding ",
            " transfer-encoding",
            "transfer-encoding:",
            "\ttransfer-encoding",
        ] {
            all.push(vector(format!("{name:?}: chunked"), self.post(&[(name, "chunked")], &ended), Expect::Refuse));
        }
        // What a server behind CGI takes for it: not passed on, and the body is framed by us.
        let plain = Plain { lacks: vec!["transfer_encoding"], ..post(&ended) };
        all.push(vector(
            "transfer_encoding: chunked",
            self.post(&[("transfer_encoding", "chunked")], &ended),
            Expect::Forward(plain),
        ));
        let plain = Plain { lacks: vec!["content_length"], ..post(&ended) };
        all.push(vector("content_length: 5", self.post(&[("content_length", "5")], &ended), Expect::Forward(plain)));
        for te in ["chunked", "trailers, chunked", "gzip"] {
            all.push(vector(format!("te: {te}"), self.post(&[("te", te)], &ended), Expect::Refuse));
        }
        all
    }
}
