//! `etna serve`: every flag is also an `ETNA_*` variable.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use etna_proxy::access;
use etna_proxy::acme::{DIRECTORY, Settings};
use etna_proxy::announce::Announce;
use etna_proxy::config::{AdminAddress, Config, Unusable};
use etna_proxy::handover::Inherited;
use etna_store::engine::Options;
use etna_store::object::{ProxyProtocol, ProxyVersions};
use etna_store::seal::Keyring;
use ipnet::IpNet;

use super::logging;

/// Flags of `etna serve`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etna serve\n  \
    etna serve --store etcd://10.0.0.1:2379,10.0.0.2:2379/vulcand \\\n      \
        --listen 0.0.0.0:80\n  \
    ETNA_STORE=etcds://etcd.internal:2379/vulcand etna serve \\\n      \
        --store-ca /etc/etna/ca.pem\n\n\
    Signals:\n  \
    TERM  /readyz says 503; accept for the grace period more; finish; exit 0\n  \
    INT   the same without the grace period\n  \
    TERM or INT a second time: what still runs is cut\n  \
    USR2  replace the running binary by the one that now lies at its path\n  \
    HUP   read files again: admin token, seal keys, --certificates, what the\n        \
        store is shown; open the access log anew\n\n\
    With USR2 the new binary gets the sockets and this one finishes what runs; if the new one does not get ready, \
    nothing changes.\n\n\
    Sockets that systemd passes are used instead of binding: `default` (or unnamed) for the first --listen, \
    `https` for the first --listen-https, `admin` for the admin API, any other name for the stored listener of that name.\n\n\
    Exit codes: 0 told to stop, or replaced; 1 failed; 64 wrong usage or settings, for which trying again is no help.")]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) store: StoreFlags,
    /// Address to accept HTTP on; may be given more than once. Listeners may also be put in the store.
    #[arg(long, env = "ETNA_LISTEN", value_name = "IP:PORT", value_delimiter = ',', default_value = "0.0.0.0:8181",
        value_parser = listen_address)]
    listen: Vec<SocketAddr>,
    /// Address to accept HTTPS on, with the certificates of the stored hosts; may be given more than once.
    #[arg(long, env = "ETNA_LISTEN_HTTPS", value_name = "IP:PORT", value_delimiter = ',', value_parser = listen_address)]
    listen_https: Vec<SocketAddr>,
    /// Address of the admin API: IP:PORT, or unix:/PATH.
    #[arg(long, env = "ETNA_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:8182")]
    admin: AdminAddress,
    /// File with the token the admin API asks for; needed where it does not listen on loopback.
    #[arg(long, env = "ETNA_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Directory with certificates: NAME.crt and NAME.key, or NAME/fullchain.pem and NAME/privkey.pem as certbot leaves
    /// them. Changes are seen.
    #[arg(long, env = "ETNA_CERTIFICATES", value_name = "DIR")]
    certificates: Option<PathBuf>,
    /// File with the keys that open sealed key pairs, one a line, the one that seals first; no other user may read it
    /// [default: the systemd credential seal-key, if there is one].
    #[arg(long, env = "ETNA_SEAL_KEY_FILE", value_name = "FILE")]
    seal_key: Option<PathBuf>,
    /// Directory of the ACME authority that hosts get certificates from that name none.
    #[arg(long, env = "ETNA_ACME_DIRECTORY", value_name = "URL", default_value = DIRECTORY, value_parser = directory)]
    acme_directory: String,
    /// PEM file of the authorities that signed the certificates of ACME directories themselves [default: the system's].
    #[arg(long, env = "ETNA_ACME_CA", value_name = "FILE")]
    acme_ca: Option<PathBuf>,
    /// Worker threads [default: one per core].
    #[arg(long, env = "ETNA_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    workers: Option<u16>,
    /// Network whose X-Forwarded-* and Forwarded headers are believed; may be given more than once [default: none].
    #[arg(long, env = "ETNA_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',')]
    trusted_proxies: Vec<IpNet>,
    /// Expect a PROXY protocol header, version 1 or 2, in front of connections that trusted proxies make to --listen:
    /// `required` closes those without one and those of others, `optional` serves them [default: none is expected].
    #[arg(long, env = "ETNA_PROXY_PROTOCOL", value_name = "MODE")]
    proxy_protocol: Option<ProxyProtocolMode>,
    /// Client connections at once; more are answered 503 [default: what the limit of open files allows].
    #[arg(long, env = "ETNA_MAX_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_connections: Option<u64>,
    /// Client connections of one address at once; 0: any number. Trusted proxies are not counted.
    #[arg(long, env = "ETNA_MAX_CONNECTIONS_PER_CLIENT", value_name = "N", default_value_t = 0)]
    max_connections_per_client: u32,
    /// How long what vanishes from the store in a mass (half a backend, a third of all) serves on as suspect, while
    /// its servers answer, such as 5m; a bare number is seconds, as in all of these. 0 believes deletions at once.
    #[arg(long, env = "ETNA_HOLD_SECONDS", value_name = "TIME", default_value = "300", alias = "hold-seconds")]
    #[arg(value_parser = |text: &str| seconds(text, 0..=LONGEST_HOLD))]
    hold: u64,
    /// How long a drain may take before what still runs is cut.
    #[arg(long, env = "ETNA_DRAIN_SECONDS", value_name = "TIME", default_value = "30")]
    #[arg(value_parser = |text: &str| seconds(text, 0..=u64::MAX))]
    drain_seconds: u64,
    /// How long of that connections are still accepted after TERM, so that balancers in front can notice.
    #[arg(long, env = "ETNA_DRAIN_GRACE_SECONDS", value_name = "TIME", default_value = "3")]
    #[arg(value_parser = |text: &str| seconds(text, 0..=u64::MAX))]
    drain_grace_seconds: u64,
    /// How soon a new binary must be ready after USR2; else it is ended and this process goes on.
    #[arg(long, env = "ETNA_UPGRADE_SECONDS", value_name = "TIME", default_value = "30")]
    #[arg(value_parser = |text: &str| seconds(text, 1..=3600))]
    upgrade_seconds: u64,
    /// After how long a replaced process cuts what it still runs, such as WebSockets.
    #[arg(long, env = "ETNA_UPGRADE_DRAIN_SECONDS", value_name = "TIME", default_value = "900")]
    #[arg(value_parser = |text: &str| seconds(text, 0..=u64::MAX))]
    upgrade_drain_seconds: u64,
    /// Where this proxy stands: servers with the same Zone are preferred [default: none].
    #[arg(long, env = "ETNA_ZONE", value_name = "NAME")]
    zone: Option<String>,
    #[command(flatten)]
    announce: AnnounceFlags,
    /// File, or pipe, for a line of JSON for each request, or - for standard output [default: no access log].
    #[arg(long, env = "ETNA_ACCESS_LOG", value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// What the access log shows of queries, in addresses and referers: names of parameters, all, or nothing.
    #[arg(long, env = "ETNA_ACCESS_LOG_QUERY", value_name = "HOW", default_value = "names")]
    access_log_query: access::Query,
    /// What is logged: error, warn, info, debug, or a filter such as etna_proxy=debug.
    #[arg(long, env = "ETNA_LOG", value_name = "LEVEL", default_value = "info")]
    log: String,
}

/// Whether connections to --listen begin with a PROXY protocol header.
#[derive(clap::ValueEnum, Clone, Copy)]
enum ProxyProtocolMode {
    /// All of them, or they are closed.
    Required,
    /// Those that do.
    Optional,
}

impl ProxyProtocolMode {
    fn expected(self) -> Arc<ProxyProtocol> {
        let required = matches!(self, ProxyProtocolMode::Required);
        Arc::new(ProxyProtocol { versions: ProxyVersions::Either, required, from: Vec::new() })
    }
}

/// How a proxy announces itself to the tier in front.
#[derive(Args)]
#[command(next_help_heading = "Two tiers")]
struct AnnounceFlags {
    /// Announce this proxy by that name, as a server of a backend of the proxies in front, while it serves; %H in it is
    /// the host name, %m the machine's id.
    #[arg(long, env = "ETNA_ANNOUNCE", value_name = "ID", value_parser = announced_name)]
    announce: Option<Announced>,
    /// The store that the proxies in front follow; credentials are those of --store [default: --store].
    #[arg(long, env = "ETNA_ANNOUNCE_STORE", value_name = "URL")]
    announce_store: Option<String>,
    /// The backend there; created, with a check of connections, if there is none.
    #[arg(long, env = "ETNA_ANNOUNCE_TO", value_name = "BACKEND", default_value = "cores")]
    announce_to: String,
    /// How it is reached from there: http://HOST:PORT [default: the first listener's address; where that is any,
    /// COREOS_PRIVATE_IPV4 or the address of the default route].
    #[arg(long, env = "ETNA_ANNOUNCE_URL", value_name = "URL")]
    announce_url: Option<String>,
    /// How long it stays announced after it was killed; 2s to 24h.
    #[arg(long, env = "ETNA_ANNOUNCE_TTL", value_name = "TIME", default_value = "15")]
    #[arg(value_parser = |text: &str| seconds(text, 2..=86_400))]
    announce_ttl: u64,
    /// Its share of the traffic [default: 1, or what an operator has put].
    #[arg(long, env = "ETNA_ANNOUNCE_WEIGHT", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
    announce_weight: Option<u32>,
}

/// An id, or none: an environment file may leave it empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Announced(Option<String>);

fn announced_name(text: &str) -> Result<Announced, String> {
    etna_proxy::announce::name(text).map(Announced)
}

impl AnnounceFlags {
    fn settings(self) -> Option<Announce> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Some(Announce {
            id: self.announce?.0?,
            store: given(self.announce_store),
            backend: self.announce_to,
            url: given(self.announce_url),
            ttl: Duration::from_secs(self.announce_ttl),
            weight: self.announce_weight,
        })
    }
}

/// Where the store is, for every command that needs one.
#[derive(Args, Clone)]
pub(super) struct StoreFlags {
    /// The store: embedded:DIR, etcd://H1:2379,H2:2379/PREFIX, etcds://…, http://HOST:8182, unix:/PATH
    /// [default: embedded, in the state directory].
    #[arg(long, env = "ETNA_STORE", value_name = "URL")]
    store: Option<String>,
    /// PEM file of the authority that signed the store's certificate.
    #[arg(long, env = "ETNA_STORE_CA", value_name = "FILE")]
    store_ca: Option<PathBuf>,
    /// PEM file of the client certificate shown to the store.
    #[arg(long, env = "ETNA_STORE_CERT", value_name = "FILE", requires = "store_key")]
    store_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, env = "ETNA_STORE_KEY", value_name = "FILE", requires = "store_cert")]
    store_key: Option<PathBuf>,
    /// User name at the store.
    #[arg(long, env = "ETNA_STORE_USER", value_name = "NAME", requires = "store_password_file")]
    store_user: Option<String>,
    /// File with that user's password, or with the token of another etna's admin API.
    #[arg(long, env = "ETNA_STORE_PASSWORD_FILE", value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// Directory for what must be found again [default: $STATE_DIRECTORY, or /var/lib/etna for root, or
    /// ~/.local/state/etna].
    #[arg(long, env = "ETNA_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl StoreFlags {
    /// The state directory.
    pub(super) fn state_dir(&self) -> PathBuf {
        let given = self.state_dir.clone().or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from));
        given.unwrap_or_else(|| match std::env::var_os("HOME") {
            Some(home) if !std::path::Path::new("/var/lib").metadata().is_ok_and(|dir| writable(&dir)) => {
                PathBuf::from(home).join(".local/state/etna")
            }
            _ => PathBuf::from("/var/lib/etna"),
        })
    }

    /// The store's URL.
    pub(super) fn url(&self) -> String {
        self.store.clone().unwrap_or_else(|| format!("embedded:{}", self.state_dir().join("store").display()))
    }

    /// How to reach it.
    pub(super) fn options(&self) -> Options {
        Options {
            ca_file: self.store_ca.clone(),
            cert_file: self.store_cert.clone(),
            key_file: self.store_key.clone(),
            user: self.store_user.clone(),
            password_file: self.store_password_file.clone(),
        }
    }
}

/// Serves until told to stop.
pub(super) fn run(flags: Flags) -> ExitCode {
    let log = match logging::start(&flags.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln_error(&error);
            return ExitCode::from(super::USAGE);
        }
    };
    let seal_key = seal_key_file(flags.seal_key);
    let keyring = match seal_key.as_deref().map(Keyring::read).transpose() {
        Ok(keyring) => keyring.map(Arc::new),
        Err(error) => {
            tracing::error!(%error, "cannot serve");
            return ExitCode::FAILURE;
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let config = Config {
        store: flags.store.url(),
        store_options: flags.store.options(),
        state_dir: flags.store.state_dir(),
        listen: flags.listen,
        listen_https: flags.listen_https,
        admin: flags.admin,
        admin_token_file: flags.admin_token_file,
        workers: flags.workers.map_or(cores, usize::from),
        trusted_proxies: flags.trusted_proxies,
        proxy_protocol: flags.proxy_protocol.map(ProxyProtocolMode::expected),
        log_lost: Some(log.lost.clone()),
        max_connections: flags.max_connections,
        max_connections_per_client: flags.max_connections_per_client,
        hold: Duration::from_secs(flags.hold),
        drain: Duration::from_secs(flags.drain_seconds),
        drain_grace: Duration::from_secs(flags.drain_grace_seconds),
        upgrade: Duration::from_secs(flags.upgrade_seconds),
        upgrade_drain: Duration::from_secs(flags.upgrade_drain_seconds),
        zone: flags.zone.filter(|zone| !zone.is_empty()),
        acme: Settings { directory: flags.acme_directory, ca_file: flags.acme_ca },
        announce: flags.announce.settings(),
        access_log: flags
            .access_log
            .and_then(access_target)
            .map(|target| access::Settings { target, query: flags.access_log_query }),
        certificates: flags.certificates.filter(|dir| !dir.as_os_str().is_empty()),
        keyring,
        seal_key,
    };
    // Before there are threads.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot serve");
            return ExitCode::FAILURE;
        }
    };
    // The control side: following, admin, signals. Two threads, so that a long compile does not hold up readiness.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(etna_proxy::run(config, inherited));
        // A file that cannot be read, because its disk is away, is not waited for without end.
        runtime.shutdown_timeout(LONGEST_END);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot serve");
            if error.is::<Unusable>() { ExitCode::from(super::USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// The file of seal keys that was given, or the credential of that name (`LoadCredential=seal-key:…`).
pub(super) fn seal_key_file(given: Option<PathBuf>) -> Option<PathBuf> {
    let credential = || Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("seal-key"));
    given.filter(|file| !file.as_os_str().is_empty()).or_else(|| credential().filter(|file| file.exists()))
}

/// A file, or `-` for standard output; an environment file may leave it empty.
fn access_target(path: PathBuf) -> Option<access::Target> {
    match path.to_str() {
        Some("") => None,
        Some("-") => Some(access::Target::Stdout),
        _ => Some(access::Target::File(path)),
    }
}

/// `300`, `5m`, `1m30s`: whole seconds within a range.
fn seconds(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => match etna_store::duration::parse(text) {
            Ok(time) if time.subsec_nanos() == 0 => time.as_secs(),
            _ => return Err("write seconds, or a time such as 30s, 5m or 1m30s".into()),
        },
    };
    if range.contains(&seconds) {
        return Ok(seconds);
    }
    Err(format!("choose {} to {} seconds", range.start(), range.end()))
}

fn directory(text: &str) -> Result<String, String> {
    if etna_store::object::Acme::is_directory(text) {
        return Ok(text.to_owned());
    }
    Err(format!("write an https URL, like {DIRECTORY}"))
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write IP:PORT, like 0.0.0.0:8181 or [::]:8181".into())
}

/// How long a thread that still reads a file is waited for at the end.
const LONGEST_END: Duration = Duration::from_secs(2);
/// A year.
const LONGEST_HOLD: u64 = 365 * 86_400;

#[expect(clippy::print_stderr, reason = "the log could not be started")]
fn eprintln_error(error: &str) {
    eprintln!("etna: {error}");
}

fn writable(dir: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // Root's directory is writable for root alone; who is not root sees it by owning no process of uid 0.
    dir.uid() == 0 && std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_units() {
        for (text, wanted) in [("0", 0), ("300", 300), ("5m", 300), ("1m30s", 90), ("1h", 3600)] {
            assert_eq!(seconds(text, 0..=3600), Ok(wanted), "{text}");
        }
        for wrong in ["", "x", "-1", "500ms", "5d", "3601", "1.5"] {
            assert!(seconds(wrong, 0..=3600).is_err(), "{wrong}");
        }
        assert!(listen_address("localhost:80").unwrap_err().contains("IP:PORT"));
        assert!(listen_address("[::1]:80").is_ok());
    }
}
