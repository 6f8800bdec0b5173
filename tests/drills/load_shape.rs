//! The requests of a load and the answers to them, each computed from its id alone, so that the client and the servers
//! agree without a word: method, sizes and bytes of both bodies.

use std::hash::Hasher as _;

use bytes::Bytes;
use etna_tests::client::{self, Answer};
use http::Request;
use http_body_util::Full;

/// Names a request, in requests and answers.
pub(crate) const ID: &str = "x-test-id";
/// Of an answer: [`digest`] of the request's body as the server got it.
pub(crate) const DIGEST: &str = "x-body-digest";
/// Of an answer: the host as the server got it.
pub(crate) const ASKED_HOST: &str = "x-asked-host";

/// Of 20 requests 16 are `GET`, 3 `PUT` and 1 is a `POST`.
pub(crate) fn method(id: u64) -> &'static str {
    match id % 20 {
        7 => "POST",
        3 | 11 | 17 => "PUT",
        _ => "GET",
    }
}

/// Whether a request must not be done twice.
pub(crate) fn is_once(id: u64) -> bool {
    method(id) == "POST"
}

/// The request with this id.
pub(crate) fn request(host: &str, id: u64) -> Request<Full<Bytes>> {
    let path = format!("/load/{id}");
    client::request(method(id), host, &path).header(ID, id).body(Full::new(question(id))).expect("a valid request")
}

/// The body of a request: none for `GET`, 1 to 8 KiB for others.
pub(crate) fn question(id: u64) -> Bytes {
    if method(id) == "GET" { Bytes::new() } else { piece(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) }
}

/// The body of an answer, 1 to 8 KiB.
pub(crate) fn reply(id: u64) -> Bytes {
    piece(id.wrapping_mul(0xd6e8_feb8_6659_fd93).wrapping_add(0x2545_f491_4f6c_dd1d))
}

/// Whether an answer is the one to this request, whole, from a server of this route.
pub(crate) fn check(host: &str, servers: &str, id: u64, answer: &Answer) -> Result<(), String> {
    let (status, server) = (answer.status, answer.server());
    if status != 200 {
        let said = if server.is_empty() { clip(&answer.text()) } else { format!("by {server}") };
        return Err(format!("{} answered {status} {said}", method(id)));
    }
    if !server.starts_with(servers) {
        return Err(format!("answered by server {server:?} instead of one of {servers:?}"));
    }
    if answer.header(ID) != id.to_string() || answer.header(ASKED_HOST) != host {
        return Err(format!("the answer of {server} is to {} {}", answer.header(ASKED_HOST), answer.header(ID)));
    }
    if answer.header(DIGEST) != digest(&question(id)) {
        return Err(format!("{server} got another body of {} than was sent", method(id)));
    }
    if answer.body != reply(id) {
        return Err(format!("{server}'s body has {} bytes, {} were to come", answer.body.len(), reply(id).len()));
    }
    Ok(())
}

/// Tells bodies apart.
pub(crate) fn digest(body: &[u8]) -> String {
    // The fixed key of `new` makes it the same in every process of this binary.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(body);
    format!("{:016x}", hasher.finish())
}

fn piece(seed: u64) -> Bytes {
    let size = 1024 + (seed >> 40) as usize % 7169;
    let offset = (seed >> 20) as usize % (NOISE.len() - size);
    Bytes::from_static(&NOISE[offset..offset + size])
}

fn clip(text: &str) -> String {
    text.trim_end().chars().take(120).collect()
}

/// What bodies are cut out of.
static NOISE: [u8; 16 * 1024] = noise();

const fn noise() -> [u8; 16 * 1024] {
    let mut bytes = [0; 16 * 1024];
    let mut state: u32 = 0x2f6e_2b1d;
    let mut at = 0;
    while at < bytes.len() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[at] = b'!' + (state >> 8) as u8 % 94;
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn right(id: u64) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("x-backend", "live-1".parse().unwrap());
        headers.insert(ID, id.into());
        headers.insert(ASKED_HOST, "live.test".parse().unwrap());
        headers.insert(DIGEST, digest(&question(id)).parse().unwrap());
        Answer { status: 200, headers, body: reply(id) }
    }

    fn wrong(id: u64, spoil: impl FnOnce(&mut Answer)) -> String {
        let mut answer = right(id);
        spoil(&mut answer);
        check("live.test", "live", id, &answer).expect_err("it was spoilt")
    }

    #[test]
    fn the_mix_is_as_it_must_be() {
        let methods: Vec<&str> = (0..20).map(method).collect();
        let count = |wanted: &str| methods.iter().filter(|method| **method == wanted).count();
        assert_eq!((count("GET"), count("PUT"), count("POST")), (16, 3, 1));
        let sizes: Vec<usize> = (0..10_000).map(|id| reply(id).len()).collect();
        assert!(sizes.iter().all(|size| (1024..=8192).contains(size)));
        assert!(sizes.iter().any(|size| *size < 1100) && sizes.iter().any(|size| *size > 8100));
    }

    #[test]
    fn whatever_is_wrong_with_an_answer_is_seen() {
        for id in (0..40).chain([1 << 40, (1 << 40) + (1 << 32) + 7]) {
            assert_eq!(check("live.test", "live", id, &right(id)), Ok(()));
            assert!(wrong(id, |answer| answer.status = 502).contains("502"));
            assert!(wrong(id, |answer| *answer = right(id + 1)).contains("is to"));
            assert!(wrong(id, |answer| answer.body.truncate(1000)).contains("1000 bytes"));
            assert!(wrong(id, |answer| answer.body = reply(id + 1)).contains("body"));
            let server = |answer: &mut Answer| drop(answer.headers.insert("x-backend", "stray".parse().unwrap()));
            assert!(wrong(id, server).contains("stray"));
            let host = |answer: &mut Answer| drop(answer.headers.insert(ASKED_HOST, "other.test".parse().unwrap()));
            assert!(wrong(id, host).contains("other.test"));
            let body = |answer: &mut Answer| drop(answer.headers.insert(DIGEST, digest(b"cut").parse().unwrap()));
            assert!(wrong(id, body).contains("another body"));
        }
    }
}
