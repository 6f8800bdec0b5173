//! The commands and what is common to them. The flags of a noun stand beside it in `noun/`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::explain;
use crate::key;
use crate::noun;
use crate::transfer;

/// Ask and program Etna, the load balancer.
#[derive(Parser)]
#[command(name = "etnactl", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:\n  \
    etnactl status\n  \
    etnactl backend upsert --id blog\n  \
    etnactl server upsert -b blog --id one --url http://10.0.0.1:8080\n  \
    etnactl frontend upsert --id blog -b blog --route 'Host(\"blog.example.com\")'\n  \
    etnactl explain http://blog.example.com/wp-admin/\n\n\
    `etnactl server upsert --help` and `etnactl man server upsert` tell all of a command.\n\n\
    Exit codes: 0 done, 1 refused or not found, 2 not reached or not read, 64 wrong usage.")]
pub(crate) struct Cli {
    /// Admin API of the etna to talk to: http://HOST:PORT or unix:/PATH.
    #[arg(long, global = true, env = "ETNA_ADMIN_URL", value_name = "URL", default_value = "http://127.0.0.1:8182")]
    #[arg(alias = "vulcan", help_heading = FOR_ALL)]
    pub(crate) admin: String,
    /// File with the token that admin API asks for.
    #[arg(long, global = true, env = "ETNA_ADMIN_TOKEN_FILE", value_name = "FILE", help_heading = FOR_ALL)]
    pub(crate) token_file: Option<PathBuf>,
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, help_heading = FOR_ALL)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) store: crate::store::StoreFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The heading of flags that every command has.
const FOR_ALL: &str = "Options for every command";

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: aligned columns, wide ones cut.
    Table,
    /// For programs.
    Json,
}

/// What can be asked.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// How the proxy is: what it serves, and whether it follows its store.
    #[command(after_help = "Examples:\n  \
        etnactl status\n  \
        etnactl -o json status | jq .revision\n  \
        etnactl --admin unix:/run/etna/etna.sock status")]
    Status,
    /// Stored objects that are not served as written: where, why, and what to do.
    #[command(after_help = "Example:\n  etnactl problems --fail && echo all is served as written")]
    Problems {
        /// Exit with 1 when there are any.
        #[arg(long)]
        fail: bool,
    },
    /// What vanished from the store in a mass and serves on until it is believed.
    #[command(after_help = "Example:\n  etnactl suspects --release    # it is gone on purpose")]
    Suspects {
        /// Believe it now, at every proxy.
        #[arg(long)]
        release: bool,
    },
    /// What would happen to a request: which frontend, why, which middlewares, which servers.
    Explain(explain::Flags),
    /// Sets of servers.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl backend ls\n  \
        etnactl backend upsert --id blog --health-check wordpress\n  \
        etnactl backend show blog"
    )]
    Backend(noun::backend::Verb),
    /// Servers of backends.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl server ls -b blog\n  \
        etnactl server upsert -b blog --id one --url http://10.0.0.1:8080\n  \
        etnactl server drain -b blog one"
    )]
    Server(noun::server::Verb),
    /// Rules, and the backends they lead to.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl frontend ls\n  \
        etnactl frontend upsert --id blog -b blog --route 'Host(\"blog.example.com\")'\n  \
        etnactl frontend rm blog"
    )]
    Frontend(noun::frontend::Verb),
    /// Steps around the forwarding of a frontend.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl middleware ls -f blog\n  \
        etnactl middleware upsert -f blog --id limit --type ratelimit --requests 10"
    )]
    Middleware(noun::middleware::Verb),
    /// Middlewares that limit requests per time, in vctl's words.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl ratelimit upsert -f blog --id limit --requests 10 --burst 20\n  \
        etnactl ratelimit rm -f blog limit"
    )]
    Ratelimit(noun::limit::RateLimit),
    /// Middlewares that limit requests at the same time, in vctl's words.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl connlimit upsert -f blog --id conns --connections 8\n  \
        etnactl connlimit rm -f blog conns"
    )]
    Connlimit(noun::limit::ConnLimit),
    /// Addresses to accept on.
    #[command(subcommand, after_help = "Example:\n  etnactl listener upsert --id extra --addr 0.0.0.0:8080")]
    Listener(noun::listener::Verb),
    /// Server names and their certificates.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl host ls --seal-key /etc/etna/seal-key\n  \
        etnactl host upsert --name blog.example.com --acme-email you@example.com"
    )]
    Host(noun::host::Verb),
    /// Seal keys, and what is sealed with them.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl secret new-key -f /etc/etna/seal-key\n  \
        etnactl secret reseal --seal-key /etc/etna/seal-key"
    )]
    Secret(noun::secret::Verb),
    /// WordPress sites.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl site ls\n  \
        etnactl site upsert --id blog --host blog.example.com --public blog-public"
    )]
    Site(noun::site::Verb),
    /// Proxies that announce themselves in a store.
    #[command(
        subcommand,
        alias = "proxy",
        after_help = "Examples:\n  \
        etnactl proxies ls\n  \
        etnactl --store etcd://127.0.0.1:2379/vulcand proxies ls"
    )]
    Proxies(noun::proxies::Verb),
    /// Write everything that is stored to a file.
    Export(transfer::Export),
    /// Put what a file holds into the store.
    Import(transfer::Import),
    /// Single keys, as bytes.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        etnactl key ls backends/blog/\n  \
        etnactl key get backends/blog/servers/one"
    )]
    Key(key::Verb),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  etnactl completions bash > /usr/share/bash-completion/completions/etnactl")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command.
    #[command(after_help = "Examples:\n  \
        etnactl man | man -l -\n  \
        etnactl man server upsert | man -l -    # etnactl-server-upsert(1)")]
    Man {
        /// The command, in one word or more.
        command: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_can_be_pasted_from_a_narrow_terminal() {
        fn walk(command: &clap::Command) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() < 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn every_command_shows_an_example_of_itself() {
        fn walk(command: &clap::Command, path: &str) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = |line: &str| path.split(' ').all(|word| line.split_whitespace().any(|told| told == word));
            assert!(text.lines().any(|line| line.starts_with("  ") && own(line)), "{path}: {text:?}");
            for below in command.get_subcommands() {
                walk(below, &format!("{path} {}", below.get_name()));
            }
        }
        walk(&Cli::command(), "etnactl");
    }

    #[test]
    fn every_command_has_its_page() {
        let page = |words: &[&str]| crate::man::page(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(page(&[]).unwrap().contains("etnactl\\-server(1)"));
        let upsert = page(&["server", "upsert"]).unwrap();
        assert!(upsert.contains(".TH etnactl-server-upsert 1") && upsert.contains("\\-\\-weight"), "{upsert}");
        assert!(page(&["server", "frob"]).is_err());
    }

    #[test]
    fn a_store_is_refused_where_it_would_not_be_used() {
        let refused = |line: &str| {
            let words = std::iter::once("etnactl").chain(line.split(' '));
            crate::store::refuse_unused(&Cli::try_parse_from(words).unwrap()).is_err()
        };
        assert!(refused("--store embedded:/x backend upsert --id b") && refused("status --store etcd://a/b"));
        assert!(refused("--store etcd://a/b secret new-key"));
        for line in [
            "--store embedded:/x export",
            "--store etcd://a/b import f",
            "--store etcd://a/b key get k",
            "--store etcd://a/b proxies ls",
            "--store etcd://a/b secret reseal",
            "status",
        ] {
            assert!(!refused(line), "{line}");
        }
    }

    #[test]
    fn the_flags_of_vctl_are_understood() {
        for line in [
            "backend upsert --id b --readTimeout 5s --dialTimeout 1s --handshakeTimeout 1s --keepAlivePeriod 9s --maxIdleConns 3",
            "server upsert --id s -b b --url http://a:1 --ttl 30s",
            "server ls -b b --vulcan http://127.0.0.1:1",
            "frontend upsert --id f -b b --route Host(\"x\") --maxBodyKB 6 --failoverPredicate x --forwardHost h --trustForwardHeader --passHostHeader",
            "frontend rm --id f",
            "server drain -b b s",
            "backend upsert --id b --health-check {\"Path\":\"/x\"}",
            "middleware upsert -f f --id m --type ratelimit --requests 5 --period 2 --burst 3 --var client.ip --ttl 1m",
            "ratelimit upsert --frontend f --id r --priority 2 --ttl 1m --period 2 --requests 1 --burst 3 --variable request.host --rateVar request.header.X",
            "ratelimit upsert -f f --id r --var client.ip",
            "ratelimit rm -f f --id r",
            "connlimit upsert -f f --id c --conns 3 --variable client.ip",
            "connlimit rm --frontend f --id c",
            "listener upsert --id l --proto http --net tcp --addr 0.0.0.0:80 --scope Host(\"x\")",
            "backend show b",
            "backend upsert --id b --tlsSkipVerify --tlsPreferServerCS --tlsSessionTicketsOff --tlsMinV VersionTLS12 --tlsMaxV VersionTLS12 --tlsSessionCache LRU --tlsSessionCacheCapacity 5 --tlsCS A --tlsCS B",
            "listener upsert --id l --proto https --addr :443 --proxy-header PROXY_V1 --tlsMinV VersionTLS12",
            "site upsert --id s --host a.test --public p --https admin --hsts 31536000",
            "host ls",
            "host show --name a.test",
            "host rm --name a.test",
            "host upsert --name a.test --cert c.pem --privateKey k.pem --sealKey f --ocsp --ocspSkipCheck --ocspPeriod 1h --ocspResponder http://r",
            "secret new_key -f k",
            "secret seal_keypair -f e --sealKey f --cert c --privateKey k",
        ] {
            let words = std::iter::once("etnactl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "backend upsert",
            "server upsert --id s --url http://a",
            "backend show",
            "backend show a --id b",
            "frob",
            "ratelimit upsert --id r",
            "connlimit upsert -f f --id c --requests 1",
            "middleware upsert -f f --id m --type ratelimit --settings {} --burst 1",
        ] {
            let words = std::iter::once("etnactl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
