//! Settings of the process, which never change while it runs. What may change lives in the store.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etna_store::engine::Options;
use etna_store::object::ProxyProtocol;
use etna_store::seal::Keyring;
use ipnet::IpNet;
use tracing_appender::non_blocking::ErrorCounter;

use crate::access;
use crate::announce::Announce;

/// How a proxy runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store, as a URL.
    pub store: String,
    /// How to reach it.
    pub store_options: Options,
    /// Addresses of the command line's listeners.
    pub listen: Vec<SocketAddr>,
    /// Those of them that speak TLS.
    pub listen_https: Vec<SocketAddr>,
    /// Where the admin API listens.
    pub admin: AdminAddress,
    /// File with the token that the admin API asks for.
    pub admin_token_file: Option<PathBuf>,
    /// Worker threads.
    pub workers: usize,
    /// Where the process keeps what it must find again.
    pub state_dir: PathBuf,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What comes in front of connections to `listen`, from trusted proxies.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
    /// Counts lines of the log that were lost, where it may lose any.
    pub log_lost: Option<ErrorCounter>,
    /// Client connections at once; `None`: as many as the limit of open files allows.
    pub max_connections: Option<u64>,
    /// Client connections of one address at once, other than those of trusted proxies; 0: any number.
    pub max_connections_per_client: u32,
    /// How long what vanishes from the store in a mass serves on as suspect; zero believes every deletion at once.
    pub hold: Duration,
    /// How long a drain may take.
    pub drain: Duration,
    /// How long of that connections are still accepted after TERM.
    pub drain_grace: Duration,
    /// How long a process that replaces this one may take to be ready.
    pub upgrade: Duration,
    /// How long this process may take to finish after it was replaced.
    pub upgrade_drain: Duration,
    /// Where it stands: servers of the same zone are preferred.
    pub zone: Option<String>,
    /// Where certificates come from that look after themselves.
    pub acme: crate::acme::Settings,
    /// How it announces itself to the tier in front; `None`: not.
    pub announce: Option<Announce>,
    /// How requests are logged; `None`: not.
    pub access_log: Option<access::Settings>,
    /// Directory of certificates.
    pub certificates: Option<PathBuf>,
    /// What opens sealed key pairs.
    pub keyring: Option<Arc<Keyring>>,
    /// Where it was read, and is read again when the process is told to.
    pub seal_key: Option<PathBuf>,
}

/// Settings that cannot work, however often they are tried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Config {
    /// What can be told of the settings before anything is opened. An admin API whose socket comes with the process
    /// (`has_admin`) is judged by that.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn check(&self, has_admin: bool) -> Result<(), Unusable> {
        etna_store::engine::check_url(&self.store).map_err(|reason| Unusable(format!("the store {reason}")))?;
        if self.proxy_protocol.is_some() && self.trusted_proxies.is_empty() {
            return Err(Unusable(
                "the PROXY protocol is expected of nobody: name the proxies in front with --trusted-proxies".into(),
            ));
        }
        if let Some(announce) = &self.announce {
            announce.check(&self.store).map_err(Unusable)?;
        }
        if has_admin { Ok(()) } else { self.admin.check(self.admin_token_file.is_some()) }
    }

    /// A proxy that is embedded in something else: no listeners, no grace, nothing held, never replaced.
    pub fn bare(store: String, state_dir: PathBuf, admin: AdminAddress) -> Config {
        Config {
            store,
            store_options: Options::default(),
            listen: Vec::new(),
            listen_https: Vec::new(),
            admin,
            admin_token_file: None,
            workers: 1,
            state_dir,
            trusted_proxies: Vec::new(),
            proxy_protocol: None,
            log_lost: None,
            max_connections: None,
            max_connections_per_client: 0,
            hold: Duration::ZERO,
            drain: Duration::ZERO,
            drain_grace: Duration::ZERO,
            upgrade: Duration::ZERO,
            upgrade_drain: Duration::ZERO,
            zone: None,
            acme: crate::acme::Settings::default(),
            announce: None,
            access_log: None,
            certificates: None,
            keyring: None,
            seal_key: None,
        }
    }
}

/// An address of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// Over TCP.
    Tcp(SocketAddr),
    /// A unix socket, mode 0660.
    Unix(PathBuf),
}

impl AdminAddress {
    /// Refuses one that is reachable from elsewhere without a token.
    pub(crate) fn check(&self, has_token: bool) -> Result<(), Unusable> {
        match self {
            AdminAddress::Tcp(address) if !has_token && !address.ip().to_canonical().is_loopback() => {
                Err(Unusable(format!(
                    "the admin API on {address} would be open to the network: give it a token with --admin-token-file \
                     (make one with `openssl rand -hex 32`), or listen on 127.0.0.1 or unix:/PATH"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl std::str::FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<AdminAddress, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(AdminAddress::Unix(path.into())),
            Some(_) => Err("the path after unix: must be absolute".into()),
            None => text.parse().map(AdminAddress::Tcp).map_err(|_| "write IP:PORT or unix:/PATH".into()),
        }
    }
}

impl std::fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AdminAddress::Tcp(address) => address.fmt(f),
            AdminAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_told_before_anything_is_opened() {
        let config = |store: &str, admin: &str| Config::bare(store.into(), PathBuf::new(), admin.parse().unwrap());
        assert!(config("memory:", "127.0.0.1:0").check(false).is_ok());
        assert!(config("memory:", "unix:/run/x").check(false).is_ok());
        assert!(config("foo", "127.0.0.1:0").check(false).unwrap_err().0.contains("no such kind of store"));
        let open = config("memory:", "0.0.0.0:8182");
        assert!(open.check(false).unwrap_err().0.contains("--admin-token-file"));
        assert!(open.check(true).is_ok(), "its own address is not used");
        assert!(Config { admin_token_file: Some("token".into()), ..open }.check(false).is_ok());
    }
}
