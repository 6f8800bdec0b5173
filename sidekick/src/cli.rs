//! The command line and the environment, read into settings. Wrong usage is said here, before anything starts.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use ipnet::IpNet;

use crate::classify::{Addressing, HostIp, HostPattern, Mode, Policy, SitePattern, valid_host};
use crate::register::{Machine, Notebook};

/// Registers the containers of this host in Etna's keyspace, under a lease.
#[derive(Debug, Parser)]
#[command(name = "etna-sidekick", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do; `watch` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to do it.
    #[command(flatten)]
    pub settings: Settings,
}

const EXAMPLES: &str = "\
Which containers are registered: those with a label etna.host=NAME[,NAME…] (or etna.enable=true, or etna.site=ID), \
and those named wordpress-* or wordpressadmin*. More labels: etna.role=public|admin|both, etna.port, etna.weight, \
etna.addr, etna.health.docker=ignore; etna.enable=false for none of it.

Examples:
  etna-sidekick --store etcd://10.0.0.1:2379/vulcand --host-ip 10.0.0.5
  etna-sidekick explain wordpress-1          what it would do, and why

Exit status: 0 done, 1 failed (explain: not ours), 64 wrong usage.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow Docker and keep the store true, until told to stop (the default)
    #[command(after_help = "Examples:\n  \
        etna-sidekick watch\n  \
        etna-sidekick watch --store etcd://10.0.0.1:2379/vulcand --host-ip 10.0.0.5")]
    Watch,
    /// Look once, write what has changed, and end; what is registered lives for --ttl
    #[command(after_help = "Example:\n  etna-sidekick once --dry-run    # what it would write now")]
    Once(Once),
    /// Say what would be done about a container, and every rule that was looked at
    #[command(after_help = "Example:\n  etna-sidekick explain wordpress-1\n\nExit status: 0 it is ours, 1 it is not.")]
    Explain(Explain),
    /// Delete this machine's servers from the store, all or those of one container
    #[command(after_help = "Example:\n  etna-sidekick deregister --container wordpress-1")]
    Deregister(Deregister),
    /// Follow one container: a sidekick per unit
    #[command(after_help = "Example:\n  etna-sidekick announce --container wordpress-1 --wait 120s")]
    Announce(Announce),
    /// Print a completion script
    #[command(after_help = "Example:\n  \
        etna-sidekick completions bash > /etc/bash_completion.d/etna-sidekick")]
    Completions {
        /// For this shell
        shell: Shell,
    },
    /// Print the manual page, or that of a command
    #[command(after_help = "Example:\n  etna-sidekick man explain | man -l -")]
    Man {
        /// The command
        command: Option<String>,
    },
}

/// `once`.
#[derive(Debug, Args)]
pub struct Once {
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long servers may take to answer before they are registered with weight 0
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub wait: Duration,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Its name or id
    pub container: String,
}

/// `deregister`.
#[derive(Debug, Args)]
pub struct Deregister {
    /// Only this container's servers, by name or id; it need not exist any more
    #[arg(long)]
    pub container: Option<String>,
}

/// `announce`.
#[derive(Debug, Args)]
pub struct Announce {
    /// Its name or id
    #[arg(long)]
    pub container: String,
    /// How long to wait until it runs
    #[arg(long, default_value = "120s", value_parser = duration)]
    pub wait: Duration,
}

/// Settings of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options for every command")]
pub struct Settings {
    /// The store: etcd://HOST:PORT,…/PREFIX, etcds://…, http://HOST:8182 or unix:/PATH (another etna)
    #[arg(long, global = true, env = "ETNA_STORE", default_value = "http://127.0.0.1:8182", value_name = "URL")]
    pub store: String,
    /// PEM file of the authority that signed the store's certificate
    #[arg(long, global = true, env = "ETNA_STORE_CA", value_name = "FILE")]
    pub store_ca: Option<PathBuf>,
    /// PEM file of our client certificate
    #[arg(long, global = true, env = "ETNA_STORE_CERT", value_name = "FILE", requires = "store_key")]
    pub store_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, global = true, env = "ETNA_STORE_KEY", value_name = "FILE", requires = "store_cert")]
    pub store_key: Option<PathBuf>,
    /// User name for etcd
    #[arg(long, global = true, env = "ETNA_STORE_USER", value_name = "NAME", requires = "store_password_file")]
    pub store_user: Option<String>,
    /// File with that user's password, or with the token of a remote etna
    #[arg(long, global = true, env = "ETNA_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,
    /// Docker's socket: unix:///PATH or tcp://HOST:PORT [default: DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, global = true, env = "ETNA_DOCKER", value_name = "URL")]
    pub docker: Option<String>,
    /// This host's address for others, or auto: that of the default route [default: COREOS_PRIVATE_IPV4, else auto]
    #[arg(long, global = true, env = "ETNA_HOST_IP", value_name = "IP")]
    pub host_ip: Option<HostIp>,
    /// What tells this machine from others [default: the contents of /etc/machine-id]
    #[arg(long, global = true, env = "ETNA_MACHINE_ID", value_name = "ID")]
    pub machine_id: Option<String>,
    /// Which address is registered: host (the published port), container, or network:NAME
    #[arg(long, global = true, env = "ETNA_ADDRESS_MODE", default_value = "host", value_name = "MODE")]
    pub address_mode: Mode,
    /// The host name of containers that are ours by name and say none
    #[arg(long, global = true, env = "ETNA_DEFAULT_HOST", default_value = "wordpress.local", value_name = "NAME")]
    pub default_host: String,
    /// Which host names containers may claim: example.com, *.example.com or *; may be repeated [default: any]
    #[arg(long, global = true, env = "ETNA_ALLOW_HOST", value_delimiter = ',', value_name = "PATTERN")]
    pub allow_host: Vec<HostPattern>,
    /// Which sites etna.site may name besides those called like an allowed host: blog, blog-* or *; may be repeated
    #[arg(long, global = true, env = "ETNA_ALLOW_SITE", value_delimiter = ',', value_name = "PATTERN")]
    #[arg(requires = "allow_host")]
    pub allow_site: Vec<SitePattern>,
    /// Which addresses etna.addr may name besides the container's own: 10.7.0.0/16 or 10.7.7.7; may be repeated
    #[arg(long, global = true, env = "ETNA_ALLOW_ADDR", value_delimiter = ',', value_name = "CIDR", value_parser = net)]
    pub allow_addr: Vec<IpNet>,
    /// What servers of this machine say about where they stand
    #[arg(long, global = true, env = "ETNA_ZONE", value_name = "NAME")]
    pub zone: Option<String>,
    /// How long servers outlive this sidekick
    #[arg(long, global = true, env = "ETNA_TTL", default_value = "15s", value_parser = ttl, value_name = "TIME")]
    pub ttl: Duration,
    /// Where the lease is noted across restarts [default: RUNTIME_DIRECTORY, else /run/etna-sidekick]
    #[arg(long, global = true, env = "ETNA_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Register servers without waiting for them to answer HTTP
    #[arg(long, global = true, env = "ETNA_NO_PROBE", value_parser = FalseyValueParser::new())]
    pub no_probe: bool,
    /// Delete this machine's servers when told to stop, instead of leaving them to a successor for --ttl
    #[arg(long, global = true, env = "ETNA_DEREGISTER_ON_EXIT", value_parser = FalseyValueParser::new())]
    pub deregister_on_exit: bool,
    /// How much is logged: error, warn, info, debug, trace
    #[arg(long, global = true, env = "ETNA_LOG", default_value = "info", value_name = "LEVEL")]
    pub log: String,
    /// json or human [default: human on a terminal, json elsewhere]
    #[arg(long, global = true, env = "ETNA_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For reading.
    Human,
}

/// Why the settings cannot be used: a sentence with its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Settings {
    /// Where Docker is.
    pub fn docker(&self) -> Result<crate::docker::Docker, Usage> {
        let from_env = || std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let host = self.docker.clone().or_else(from_env).unwrap_or_else(|| "unix:///var/run/docker.sock".into());
        crate::docker::Docker::new(&host).map_err(|error| Usage(error.to_string()))
    }

    /// How the store is reached.
    pub fn store_options(&self) -> etna_store::engine::Options {
        etna_store::engine::Options {
            ca_file: self.store_ca.clone(),
            cert_file: self.store_cert.clone(),
            key_file: self.store_key.clone(),
            user: self.store_user.clone(),
            password_file: self.store_password_file.clone(),
        }
    }

    /// This host's address.
    pub fn host_ip(&self) -> Result<HostIp, Usage> {
        match (self.host_ip, std::env::var("COREOS_PRIVATE_IPV4")) {
            (Some(ip), _) => Ok(ip),
            (None, Ok(text)) if !text.trim().is_empty() => {
                text.trim().parse().map_err(|error| Usage(format!("COREOS_PRIVATE_IPV4={text}: {error}")))
            }
            (None, _) => Ok(HostIp::Auto),
        }
    }

    /// The policy for containers.
    pub fn policy(&self) -> Result<Policy, Usage> {
        let default_host = self.default_host.to_ascii_lowercase();
        if !valid_host(&default_host) {
            return Err(Usage(format!(
                "--default-host {default_host:?} is no host name: say it without port and scheme"
            )));
        }
        Ok(Policy {
            default_host,
            allow_hosts: self.allow_host.clone(),
            allow_sites: self.allow_site.clone(),
            addressing: Addressing {
                mode: self.address_mode.clone(),
                host_ip: self.host_ip()?.resolve(),
                allow: self.allow_addr.clone(),
            },
        })
    }

    /// This machine.
    pub fn machine(&self) -> Result<Machine, Usage> {
        const FILE: &str = "/etc/machine-id";
        let id = match &self.machine_id {
            Some(id) => id.clone(),
            None => std::fs::read_to_string(FILE)
                .map_err(|error| Usage(format!("{FILE} cannot be read ({error}): say --machine-id")))?,
        };
        match id.trim() {
            "" | "uninitialized" => Err(Usage("this machine has no id yet: say --machine-id".into())),
            id => Ok(Machine::new(id, self.zone.clone())),
        }
    }

    /// Where the lease is noted: one note for the machine, or one for each container that is announced.
    pub fn notebook(&self, machine: &Machine, store: &str, announced: Option<&str>) -> Notebook {
        let runtime = || Some(std::env::var("RUNTIME_DIRECTORY").ok()?.split(':').next()?.into());
        let dir: PathBuf = self.state_dir.clone().or_else(runtime).unwrap_or_else(|| "/run/etna-sidekick".into());
        if let Err(error) = std::fs::create_dir_all(&dir) {
            tracing::warn!(event = "no-state-dir", dir = %dir.display(), %error,
                "a restart of the sidekick will not find its lease; say --state-dir");
            return Notebook::none();
        }
        let plain =
            |name: &str| name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect::<String>();
        let file = announced.map_or("lease".to_owned(), |container| format!("announce-{}.lease", plain(container)));
        Notebook::new(dir.join(file), store, &machine.id)
    }
}

/// `500ms`, `15s`, `2m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "say a time such as 500ms, 15s or 2m")?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err("say a time such as 500ms, 15s or 2m".into()),
    }
}

fn net(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "say a network such as 10.7.0.0/16, or an address".into())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if (Duration::from_secs(2)..=Duration::from_secs(86_400)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("say 2s to 24h".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["etna-sidekick", "--ttl", "9s", "once", "--dry-run", "--host-ip", "auto"]).unwrap();
        assert_eq!(cli.settings.ttl, Duration::from_secs(9));
        assert!(matches!(cli.command, Some(Command::Once(Once { dry_run: true, .. }))));
        assert!(Cli::try_parse_from(["etna-sidekick"]).unwrap().command.is_none());
        let line = "etna-sidekick --allow-host *.a.b --allow-site blog-*,x --allow-addr 10.7.7.7 --allow-addr fd00::/8";
        let settings = Cli::try_parse_from(line.split(' ')).unwrap().settings;
        assert_eq!((settings.allow_site.len(), settings.allow_addr.len()), (2, 2));
    }

    #[test]
    fn every_command_shows_an_example_of_itself() {
        for command in Cli::command().get_subcommands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = format!("  etna-sidekick {}", command.get_name());
            assert!(text.lines().any(|line| line.starts_with(&own)), "{own}: {text:?}");
            assert!(text.lines().all(|line| line.chars().count() < 80), "{own}: {text:?}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            ["--ttl", "1s"],
            ["--ttl", "x"],
            ["--host-ip", "0.0.0.0"],
            ["--host-ip", "host"],
            ["--address-mode", "network:"],
            ["--allow-host", "a*"],
            ["--allow-site", "blog"],
            ["--allow-addr", "host"],
        ] {
            assert!(Cli::try_parse_from(["etna-sidekick", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("").is_err() && duration("s").is_err() && duration("1d").is_err());
    }
}
