//! From a `--store` URL to an engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::etcd::Etcd;
use super::remote::{Remote, Target};
use super::{Engine, Error, Options, embedded, memory};

/// Opens the engine a URL names: `embedded:DIR`, `etcd://h1:2379,h2:2379/PREFIX`, `etcds://…`, `http://HOST:8182`,
/// `unix:/PATH.sock`, `memory:`. Call it inside a tokio runtime.
///
/// etcd's prefix is `/vulcand` if there is none; `etcd://h1:2379?prefix=vulcand` names one without a leading slash.
/// Ports may be left out: 2379 for etcd, 8182 for another `etna`.
///
/// Opening does not mean that the store answers: the first [`Engine::snapshot`] tells. Only the embedded store is read
/// at once.
///
/// # Errors
/// [`Error::Invalid`] for a URL of no such form and for files that cannot be read; what [`embedded::open`] says.
pub async fn open(url: &str, options: &Options) -> Result<Arc<dyn Engine>, Error> {
    Ok(match parse(url)? {
        Place::Memory => memory::open(),
        Place::Embedded(dir) => embedded::open(&dir).await?,
        Place::Etcd { addresses, secure, prefix } => Arc::new(Etcd::new(&addresses, secure, &prefix, options).await?),
        Place::Remote(target) => Arc::new(Remote::new(target, options)),
    })
}

/// Whether a URL names a store; nothing is opened.
///
/// # Errors
/// What is wrong with it, and the forms there are.
pub fn check_url(url: &str) -> Result<(), String> {
    match parse(url) {
        Ok(_) => Ok(()),
        Err(Error::Invalid { reason }) => Err(reason),
        Err(other) => Err(other.to_string()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Memory,
    Embedded(PathBuf),
    Etcd { addresses: Vec<String>, secure: bool, prefix: String },
    Remote(Target),
}

fn parse(url: &str) -> Result<Place, Error> {
    let bad = |what: &str| Error::Invalid { reason: format!("`{}`: {what}; {FORMS}", hidden(url)) };
    if let Some(rest) = url.strip_prefix("memory:") {
        return if rest.is_empty() { Ok(Place::Memory) } else { Err(bad("nothing comes after `memory:`")) };
    }
    if let Some(dir) = url.strip_prefix("embedded:") {
        return if dir.is_empty() { Err(bad("the directory is missing")) } else { Ok(Place::Embedded(dir.into())) };
    }
    if let Some(path) = url.strip_prefix("unix:") {
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        return if path.is_absolute() {
            Ok(Place::Remote(Target::Unix(path.into())))
        } else {
            Err(bad("the socket's path must begin with `/`"))
        };
    }
    if let Some(rest) = url.strip_prefix("http://") {
        let address = rest.strip_suffix('/').unwrap_or(rest);
        return Ok(Place::Remote(Target::Tcp(address_of(address, 8182).map_err(bad)?)));
    }
    let (rest, secure) = match (url.strip_prefix("etcd://"), url.strip_prefix("etcds://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        (None, None) => return Err(bad("no such kind of store")),
    };
    let (hosts, prefix) = match (rest.split_once("?prefix="), rest.split_once('/')) {
        (Some((hosts, prefix)), _) => (hosts.strip_suffix('/').unwrap_or(hosts), prefix.to_owned()),
        (None, Some((hosts, prefix))) if !prefix.is_empty() => (hosts, format!("/{prefix}")),
        (None, Some((hosts, _))) => (hosts, DEFAULT_PREFIX.to_owned()),
        (None, None) => (rest, DEFAULT_PREFIX.to_owned()),
    };
    if prefix.trim_end_matches('/').is_empty() || prefix.contains(['?', '#']) {
        return Err(bad("the prefix is not valid"));
    }
    let addresses: Result<Vec<String>, &str> = hosts.split(',').map(|host| address_of(host, 2379)).collect();
    Ok(Place::Etcd { addresses: addresses.map_err(bad)?, secure, prefix })
}

/// `HOST[:PORT]` with its port.
fn address_of(text: &str, port: u16) -> Result<String, &'static str> {
    if text.contains('@') {
        return Err("credentials do not belong in a URL: give a user and a password file");
    }
    let authority: http::uri::Authority = text.parse().map_err(|_| "the host is not valid")?;
    let host = authority.host();
    if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
        return Err("the host is not valid (IPv6 addresses stand in brackets)");
    }
    match authority.port() {
        Some(given) => match given.as_u16() {
            0 => Err("0 is no port"),
            given => Ok(format!("{host}:{given}")),
        },
        None if text.ends_with(':') || text.len() != host.len() => Err("the port is not valid"),
        None => Ok(format!("{host}:{port}")),
    }
}

/// The URL without what may be a password.
fn hidden(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}://…{}", &url[..start], &url[end..]),
        _ => url.to_owned(),
    }
}

const DEFAULT_PREFIX: &str = "/vulcand";
const FORMS: &str = "a store is `embedded:DIR`, `etcd://HOST:2379[,HOST:2379…][/PREFIX]`, `etcds://…`, \
                     `http://HOST:8182`, `unix:/PATH.sock` or `memory:`";

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(hosts: &[&str], secure: bool, prefix: &str) -> Place {
        let addresses = hosts.iter().map(|host| (*host).to_owned()).collect();
        Place::Etcd { addresses, secure, prefix: prefix.into() }
    }

    #[test]
    fn each_form_is_read() {
        let table = [
            ("memory:", Place::Memory),
            ("embedded:/var/lib/etna", Place::Embedded("/var/lib/etna".into())),
            ("embedded:state", Place::Embedded("state".into())),
            ("etcd://127.0.0.1:2379", etcd(&["127.0.0.1:2379"], false, "/vulcand")),
            ("etcd://a,b:1/", etcd(&["a:2379", "b:1"], false, "/vulcand")),
            ("etcd://a/one/two", etcd(&["a:2379"], false, "/one/two")),
            ("etcd://a?prefix=vulcand", etcd(&["a:2379"], false, "vulcand")),
            ("etcd://a/?prefix=vulcand/", etcd(&["a:2379"], false, "vulcand/")),
            ("etcds://[::1]:2379,[fe80::1]/x", etcd(&["[::1]:2379", "[fe80::1]:2379"], true, "/x")),
            ("http://127.0.0.1", Place::Remote(Target::Tcp("127.0.0.1:8182".into()))),
            ("http://[::1]:99/", Place::Remote(Target::Tcp("[::1]:99".into()))),
            ("unix:/run/etna/etna.sock", Place::Remote(Target::Unix("/run/etna/etna.sock".into()))),
            ("unix:///run/etna.sock", Place::Remote(Target::Unix("/run/etna.sock".into()))),
        ];
        for (url, place) in table {
            assert_eq!(parse(url).unwrap(), place, "{url}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_forms() {
        let table = [
            "",
            "etcd",
            "etcd://",
            "etcd:///x",
            "etcd://a,,b",
            "etcd://a:x",
            "etcd://a:0",
            "etcd://a:",
            "etcd://::1",
            "etcd://u:secret@a",
            "etcd://a?prefix=",
            "etcd://a//",
            "http://",
            "http://a/path",
            "https://a",
            "unix:",
            "unix:x",
            "embedded:",
            "memory:x",
            "redis://a",
        ];
        for url in table {
            let Err(Error::Invalid { reason }) = parse(url) else { panic!("{url} was taken") };
            assert!(reason.contains("embedded:DIR") && !reason.contains("secret"), "{reason}");
            assert_eq!(check_url(url), Err(reason));
        }
    }
}
