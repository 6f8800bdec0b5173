//! What `--announce` and its companions say, and what can be told of them before anything is opened.

use std::path::Path;
use std::time::Duration;

use etna_store::Key;

/// How a proxy announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Its name among the proxies of its tier.
    pub id: String,
    /// The store of the tier in front; `None`: the store that is followed.
    pub store: Option<String>,
    /// The backend there.
    pub backend: String,
    /// How it is reached from there; `None`: found out.
    pub url: Option<String>,
    /// How long the announcement outlives the process, 2 s to 24 h.
    pub ttl: Duration,
    /// Its share of the traffic, 0 to 256; `None`: whatever the store says.
    pub weight: Option<u32>,
}

impl Announce {
    /// What can be told before anything is opened; `followed` is the store that is followed.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn check(&self, followed: &str) -> Result<(), String> {
        let plain = |text: &str| !text.is_empty() && text.len() <= LONGEST_ID && text.bytes().all(is_plain);
        for (flag, text) in [("--announce", &self.id), ("--announce-to", &self.backend)] {
            if !plain(text) {
                return Err(format!(
                    "{flag} {text:?} is no id: write up to {LONGEST_ID} letters, digits, dots, underscores and hyphens"
                ));
            }
        }
        if Key::proxy(&self.id).as_proxy().is_none() {
            return Err(format!("--announce {:?} means something else below proxies/: choose another name", self.id));
        }
        if let Some(store) = &self.store {
            etna_store::engine::check_url(store).map_err(|reason| format!("--announce-store {reason}"))?;
            if store != followed && (store.starts_with("embedded:") || store.starts_with("memory:")) {
                return Err(format!(
                    "--announce-store {store} is a store of one process, which the tier in front cannot follow: write \
                     etcd://H1:2379,H2:2379/PREFIX, or http://HOST:8182 of an etna in front"
                ));
            }
        }
        let Some(url) = &self.url else { return Ok(()) };
        let value = serde_json::json!({ "URL": url }).to_string();
        let mut flaws = Vec::new();
        match etna_store::Server::decode("".into(), value.as_bytes(), &mut flaws) {
            Ok(_) if flaws.is_empty() => Ok(()),
            Ok(_) => Err(format!("--announce-url {url:?} has a path or query: write http://HOST:PORT")),
            Err(flaw) => Err(format!("--announce-url: {}: {}", flaw.reason, flaw.hint)),
        }
    }
}

/// An id as it is written on a command line or in an environment file: `%m` is this machine's id, `%H` its host name,
/// `%%` a percent sign, as in systemd's units. Nothing announces nothing.
///
/// # Errors
/// What cannot be known or read.
pub fn name(text: &str) -> Result<Option<String>, String> {
    let mut name = String::new();
    let mut rest = text.trim();
    while let Some((before, after)) = rest.split_once('%') {
        name.push_str(before);
        let mut letters = after.chars();
        match letters.next() {
            Some('m') => name.push_str(&machine_id()?),
            Some('H') => name.push_str(&rustix::system::uname().nodename().to_string_lossy()),
            Some('%') => name.push('%'),
            _ => return Err("after % comes m (the machine's id), H (its host name) or another %".into()),
        }
        rest = letters.as_str();
    }
    name.push_str(rest);
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn machine_id() -> Result<String, String> {
    let file = Path::new("/etc/machine-id");
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match text.trim() {
        "" | "uninitialized" => Err(format!("{} has no id yet", file.display())),
        id => Ok(id.to_owned()),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

const LONGEST_ID: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn announce() -> Announce {
        Announce {
            id: "core-01".into(),
            store: Some("etcd://a/front".into()),
            backend: "cores".into(),
            url: Some("http://10.0.0.1:8888".into()),
            ttl: Duration::from_secs(15),
            weight: None,
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_remedy() {
        assert_eq!(announce().check("etcd://a/vulcand"), Ok(()));
        let own = Announce { store: Some("embedded:/x".into()), ..announce() };
        assert_eq!(own.check("embedded:/x"), Ok(()));
        for (wrong, says) in [
            (Announce { id: "a/b".into(), ..announce() }, "--announce \"a/b\""),
            (Announce { id: "x".repeat(129), ..announce() }, "128"),
            (Announce { id: "release".into(), ..announce() }, "another name"),
            (Announce { backend: String::new(), ..announce() }, "--announce-to"),
            (Announce { store: Some("nonsense:".into()), ..announce() }, "--announce-store"),
            (own, "one process"),
            (Announce { url: Some("10.0.0.1:80".into()), ..announce() }, "--announce-url"),
            (Announce { url: Some("http://:8888".into()), ..announce() }, "--announce-url"),
            (Announce { url: Some("http://a/b".into()), ..announce() }, "path"),
        ] {
            let said = wrong.check("etcd://a/vulcand").unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn names_are_written_as_in_units() {
        assert_eq!(name(" core-01 "), Ok(Some("core-01".into())));
        assert_eq!(name("a%%b"), Ok(Some("a%b".into())));
        assert_eq!(name(""), Ok(None));
        assert!(name("%H").unwrap().is_some_and(|host| !host.contains('%')));
        assert!(name("%x").is_err() && name("50%").is_err());
    }
}
