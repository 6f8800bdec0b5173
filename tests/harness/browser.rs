//! A browser as far as WordPress needs one: cookies, a form, redirects that are looked at and not followed. Every
//! request goes to the next proxy in turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use http_body_util::Full;

use crate::client::{self, Answer};

/// A browser with its cookies.
pub struct Browser {
    host: String,
    to: Vec<SocketAddr>,
    turn: usize,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// A fresh one, which reaches `host` at several addresses in turn.
    pub fn new(host: &str, to: Vec<SocketAddr>) -> Browser {
        Browser { host: host.to_owned(), to, turn: 0, cookies: BTreeMap::new() }
    }

    /// Opens a page.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], Bytes::new()).await
    }

    /// Sends a form.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", form(name), form(value))).collect();
        let kind = (CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded");
        self.send("POST", path, &[kind], pairs.join("&").into()).await
    }

    /// Sends anything.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(COOKIE, pairs.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let to = self.to[self.turn % self.to.len()];
        self.turn += 1;
        let answer = client::send(to, request.body(Full::new(body)).expect("a valid request")).await;
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        for set in answer.headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let (name, value) = set.split(';').next().and_then(|pair| pair.split_once('=')).unwrap_or((set, ""));
            self.cookies.insert(name.trim().to_owned(), value.to_owned());
        }
        answer
    }

    /// Whether it was given a cookie whose name begins so.
    pub fn has_cookie(&self, name: &str) -> bool {
        self.cookies.keys().any(|known| known.starts_with(name))
    }
}

/// Percent-encodes for a form.
fn form(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
