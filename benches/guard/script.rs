//! What is asked, of what, and who answers: always the same bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// A script: requests of one kind, one after the other.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    /// More of the proxy's flags.
    pub(crate) flags: &'static [&'static str],
    /// More of its backend's fields, and of its frontend's.
    pub(crate) backend: fn() -> Value,
    request: &'static str,
    /// How requests share connections.
    pub(crate) way: Way,
}

/// How requests share connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One after the other on one.
    Kept,
    /// Each on one of its own.
    Single,
    /// Many at a time on one, of HTTP/2 in the clear.
    Http2,
}

/// A page of a WordPress site as a browser asks for it.
const PAGE: &str = "GET /2026/11/hello-world/?utm_source=feed HTTP/1.1\r\nHost: www.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\nReferer: https://www.example.test/\r\nConnection: keep-alive\r\n\
    Cookie: _ga=GA1.2.1234567890.1234567890; wp-settings-1=libraryContent%3Dbrowse\r\n\
    Upgrade-Insecure-Requests: 1\r\n\r\n";

/// What load generators ask.
const BARE: &str = "GET /bare HTTP/1.1\r\nHost: www.example.test\r\n\r\n";

/// A form of 64 bytes.
const FORM: &str = "POST /wp-comments-post.php HTTP/1.1\r\nHost: www.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: */*\r\n\
    Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 64\r\n\r\n\
    author=a&email=a%40a.test&comment=012345678901234567890123456789";

pub(crate) const SCRIPTS: [Script; 7] = [
    Script { name: "bare", flags: &[], backend: plain, request: BARE, way: Way::Kept },
    Script { name: "keep-alive", flags: &[], backend: plain, request: PAGE, way: Way::Kept },
    Script { name: "connections", flags: &[], backend: plain, request: PAGE, way: Way::Single },
    Script { name: "form", flags: &[], backend: plain, request: FORM, way: Way::Kept },
    Script { name: "all-on", flags: &[], backend: all_on, request: PAGE, way: Way::Kept },
    Script { name: "access-log", flags: &["--access-log", "/dev/null"], backend: plain, request: PAGE, way: Way::Kept },
    Script { name: "h2", flags: &[], backend: plain, request: BARE, way: Way::Http2 },
];

fn plain() -> Value {
    json!({"Id": "b", "Type": "http"})
}

/// What a site has: stickiness, a limit, choice by latency, slow start.
fn all_on() -> Value {
    json!({"Id": "b", "Type": "http", "Sticky": true, "Limit": 100, "Policy": "ewma", "SlowStart": "10s"})
}

impl Script {
    /// Asks so many times, and sees to it that every answer is the server's.
    pub(crate) fn ask(&self, to: SocketAddr, times: u32) -> anyhow::Result<()> {
        if self.way == Way::Http2 {
            return super::h2::ask(to, times, BODY.as_bytes());
        }
        let mut kept = None;
        let mut buffer = vec![0; 64 * 1024];
        for _ in 0..times {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => connect(to)?,
            };
            stream.write_all(self.request.as_bytes())?;
            let mut got = 0;
            while !buffer[..got].ends_with(BODY.as_bytes()) {
                let read = stream.read(&mut buffer[got..])?;
                ensure!(read > 0, "the proxy closed: {}", String::from_utf8_lossy(&buffer[..got]));
                got += read;
            }
            ensure!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..got]));
            kept = (self.way == Way::Kept).then_some(stream);
        }
        Ok(())
    }
}

pub(crate) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The server of all scripts.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts it; it ends with the process.
    pub(crate) fn start() -> anyhow::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream));
            }
        });
        Ok(Server { address })
    }
}

/// Answers requests whose heads end as they should and whose bodies are those of scripts.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut got = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        while let Some(length) = whole(&got) {
            let head = if got.starts_with(b"GET /bare ") { BARE_ANSWER } else { ANSWER };
            got.drain(..length);
            stream.write_all([head, BODY].concat().as_bytes())?;
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        got.extend_from_slice(&buffer[..read]);
    }
}

/// How long the first request is, once it is there.
fn whole(got: &[u8]) -> Option<usize> {
    let head = got.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&got[..head]).to_ascii_lowercase();
    let body =
        text.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok()).unwrap_or(0);
    (got.len() >= head + body).then_some(head + body)
}

/// Posts to the admin API.
pub(crate) fn post(admin: SocketAddr, path: &str, value: &Value) -> anyhow::Result<()> {
    let body = value.to_string();
    let mut stream = connect(admin)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer")?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    Ok(())
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nServer: Apache\r\nDate: Sat, 21 Nov 2026 18:26:56 GMT\r\n\
    Content-Type: text/html; charset=UTF-8\r\nContent-Length: 130\r\nX-Powered-By: PHP/8.2\r\n\
    Cache-Control: max-age=3\r\nVary: Accept-Encoding\r\nLink: <https://www.example.test/wp-json/>; rel=\"https://api.w.org/\"\r\n\r\n";
/// As a server of files answers.
const BARE_ANSWER: &str = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 21 Nov 2026 18:26:56 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 130\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"6920371c-82\"\r\nAccept-Ranges: bytes\r\n\r\n";
const BODY: &str = "<!doctype html><title>Hello world</title><p>Welcome to WordPress. This is your first post. Edit or \
    delete it, then start writing..";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_answers_are_whole() {
        assert_eq!(BODY.len(), 130);
        for script in &SCRIPTS {
            assert_eq!(whole(script.request.as_bytes()), Some(script.request.len()), "{}", script.name);
        }
        assert_eq!(whole(&FORM.as_bytes()[..FORM.len() - 1]), None);
    }
}
