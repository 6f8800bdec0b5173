//! A strict reader of requests: RFC 9110 and 9112 to the letter, written for this and sharing nothing with the proxy.
//!
//! It judges both what the proxy takes (whatever it takes, this takes, too) and what the proxy sends (nothing a server
//! could read in two ways). Where the RFC lets a recipient choose between mending and refusing, it refuses.

use super::wire::{find, is_token};

/// A request, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: u8,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// Names in lower case, and values.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    Length(usize),
    Chunks,
}

/// What reading yields: the thing and how many bytes it took, nothing as long as it is not all there, or what is wrong.
pub(crate) type Reading<T> = Result<Option<(T, usize)>, String>;

impl Request {
    /// All values of a field.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// One value as text; empty if there is none.
    pub(crate) fn field(&self, name: &str) -> String {
        self.all(name).next().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

/// Reads a whole request.
pub(crate) fn request(bytes: &[u8]) -> Reading<Request> {
    let Some((mut request, head)) = head(bytes)? else { return Ok(None) };
    let rest = &bytes[head..];
    match framing(&request)? {
        Framed::Length(length) if rest.len() < length => Ok(None),
        Framed::Length(length) => {
            request.body = rest[..length].to_vec();
            Ok(Some((request, head + length)))
        }
        Framed::Chunks => Ok(chunks(rest)?.map(|((body, trailers), length)| {
            request.body = body;
            request.trailers = trailers;
            (request, head + length)
        })),
    }
}

/// Reads a request's head. Empty lines before it are allowed (RFC 9112 section 2.2).
pub(crate) fn head(bytes: &[u8]) -> Reading<Request> {
    let mut from = 0;
    while bytes[from..].starts_with(b"\r\n") {
        from += 2;
    }
    let Some(end) = find(&bytes[from..], b"\r\n\r\n") else { return Ok(None) };
    let head = &bytes[from..from + end];
    let mut lines = lines(head)?.into_iter();
    let mut request = request_line(lines.next().unwrap_or_default())?;
    for line in lines {
        request.fields.push(field(line)?);
    }
    host(&request)?;
    framing(&request)?;
    Ok(Some((request, from + end + 4)))
}

/// How the body is framed (RFC 9112 section 6.3), where there is no doubt.
pub(crate) fn framing(request: &Request) -> Result<Framed, String> {
    let lengths: Vec<&[u8]> = request.all("content-length").collect();
    let codings: Vec<&[u8]> = request.all("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framed::Length(0)),
        ([length], []) => {
            let plain =
                !length.is_empty() && length.iter().all(u8::is_ascii_digit) && (*length == b"0" || length[0] != b'0');
            let length = plain.then(|| std::str::from_utf8(length).ok()?.parse().ok()).flatten();
            length.map(Framed::Length).ok_or_else(|| "a length that is none".into())
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && request.version == 1 => Ok(Framed::Chunks),
        ([], _) => Err("transfer codings other than chunked, once, in HTTP/1.1".into()),
        (_, []) => Err("more than one length".into()),
        _ => Err("a length beside a transfer coding".into()),
    }
}

/// Reads a chunked body with its trailers; chunk extensions are grammar, and ignored.
pub(crate) fn chunks(bytes: &[u8]) -> Reading<(Vec<u8>, Fields)> {
    let mut at = 0;
    let mut body = Vec::new();
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + end];
        at += end + 2;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let spaces = extension.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if digits == 0 || digits > 16 || !(extension.is_empty() || extension.get(spaces) == Some(&b';')) {
            return Err(format!("a chunk's size: {:?}", String::from_utf8_lossy(line)));
        }
        if extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err("a control byte in a chunk extension".into());
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(size), 16).map_err(|_| "a chunk too large")?;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at.saturating_add(size).saturating_add(2)) else { return Ok(None) };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk does not end where it should".into());
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
    let mut trailers = Vec::new();
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + end];
        at += end + 2;
        if line.is_empty() {
            return Ok(Some(((body, trailers), at)));
        }
        trailers.push(field(line)?);
    }
}

fn lines(head: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(end) = find(rest, b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    match lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n'))) {
        true => Err("a bare CR or LF".into()),
        false => Ok(lines),
    }
}

fn request_line(line: &[u8]) -> Result<Request, String> {
    let wrong = |what: &str| format!("{what}: {:?}", String::from_utf8_lossy(line));
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong("not three words"));
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(wrong("the method"));
    }
    let version = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        _ => return Err(wrong("the version")),
    };
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') {
        return Err(wrong("the target"));
    }
    let absolute = target.len() > 7 && target[..7].eq_ignore_ascii_case(b"http://")
        || target.len() > 8 && target[..8].eq_ignore_ascii_case(b"https://");
    let fits = match method {
        b"CONNECT" => target.contains(&b':') && target[0] != b'/',
        b"OPTIONS" if target == b"*" => true,
        _ => target[0] == b'/' || absolute,
    };
    if !fits {
        return Err(wrong("the target's form"));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Request { method: text(method), target: text(target), version, ..Request::default() })
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let wrong = |what: &str| format!("{what}: {:?}", String::from_utf8_lossy(line));
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| wrong("no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(wrong("a field's name"));
    }
    if value.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f) {
        return Err(wrong("a control byte in a field"));
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !blank(byte)).map_or(from, |last| last + 1);
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value[from..to].to_vec()))
}

/// Exactly one in HTTP/1.1, at most one before, of a form that can be one, and equal to the target's.
fn host(request: &Request) -> Result<(), String> {
    let hosts: Vec<&[u8]> = request.all("host").collect();
    let host = match hosts[..] {
        [] if request.version == 0 => return Ok(()),
        [host] => String::from_utf8_lossy(host).to_ascii_lowercase(),
        _ => return Err(format!("{} Host fields", hosts.len())),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&byte);
    if !host.bytes().all(plain) {
        return Err(format!("Host: {host}"));
    }
    let target = request.target.to_ascii_lowercase();
    let absolute = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    if let Some(rest) = absolute {
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        if authority.is_empty() || authority != host {
            return Err(format!("{authority} in the target, {host} in Host"));
        }
    }
    Ok(())
}

/// What is wrong with a request for a server beside being readable in one way only: what ends at the proxy has been
/// passed on, or a form was used that only clients of proxies use.
pub(crate) fn leaks(request: &Request) -> Option<String> {
    const HOP: [&str; 7] = [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "http2-settings",
        "proxy",
        "x-accel-redirect",
    ];
    let upgrades = request.field("upgrade") == "websocket";
    for (name, value) in &request.fields {
        let allowed = match name.as_str() {
            "connection" => upgrades && value == b"upgrade",
            "upgrade" => upgrades,
            "te" => value == b"trailers",
            name => !HOP.contains(&name) && !name.contains('_'),
        };
        if !allowed {
            return Some(format!("{name}: {} was passed on", String::from_utf8_lossy(value)));
        }
    }
    if upgrades && (!request.field("content-length").is_empty() || !request.field("transfer-encoding").is_empty()) {
        return Some("an upgrade with a body".into());
    }
    const NEVER_TRAILERS: [&str; 6] = ["content-length", "transfer-encoding", "host", "te", "trailer", "connection"];
    if let Some((name, _)) = request.trailers.iter().find(|(name, _)| NEVER_TRAILERS.contains(&name.as_str())) {
        return Some(format!("{name} as a trailer"));
    }
    let form = request.target.starts_with('/') || request.method == "OPTIONS" && request.target == "*";
    (request.version != 1 || !form || request.method == "CONNECT")
        .then(|| format!("{} {} HTTP/1.{}", request.method, request.target, request.version))
}
