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
    Exit codes: 0 done, 1 refused or not found, 2 not reached or not read, 64 wrong usage.")]
pub(crate) struct Cli {
    /// Admin API of the etna to talk to: http://IP:PORT or unix:/PATH.
    #[arg(long, global = true, env = "ETNA_ADMIN_URL", value_name = "URL", default_value = "http://127.0.0.1:8182")]
    #[arg(alias = "vulcan")]
    pub(crate) admin: String,
    /// File with the token that admin API asks for.
    #[arg(long, global = true, env = "ETNA_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) store: crate::store::StoreFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

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
    #[command(subcommand)]
    Backend(noun::backend::Verb),
    /// Servers of backends.
    #[command(subcommand)]
    Server(noun::server::Verb),
    /// Rules, and the backends they lead to.
    #[command(subcommand)]
    Frontend(noun::frontend::Verb),
    /// Steps around the forwarding of a frontend.
    #[command(subcommand)]
    Middleware(noun::middleware::Verb),
    /// Addresses to accept on.
    #[command(subcommand)]
    Listener(noun::listener::Verb),
    /// WordPress sites.
    #[command(subcommand)]
    Site(noun::site::Verb),
    /// Write everything that is stored to a file.
    Export(transfer::Export),
    /// Put what a file holds into the store.
    Import(transfer::Import),
    /// Single keys, as bytes.
    #[command(subcommand)]
    Key(key::Verb),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  etnactl completions bash > /usr/share/bash-completion/completions/etnactl")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    #[command(after_help = "Example:\n  etnactl man | man -l -")]
    Man,
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
    fn a_store_is_refused_where_it_would_not_be_used() {
        let refused = |line: &str| {
            let words = std::iter::once("etnactl").chain(line.split(' '));
            crate::store::refuse_unused(&Cli::try_parse_from(words).unwrap()).is_err()
        };
        assert!(refused("--store embedded:/x backend upsert --id b") && refused("status --store etcd://a/b"));
        for line in
            ["--store embedded:/x export", "--store etcd://a/b import f", "--store etcd://a/b key get k", "status"]
        {
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
            "listener upsert --id l --proto http --net tcp --addr 0.0.0.0:80 --scope Host(\"x\")",
            "backend show b",
        ] {
            let words = std::iter::once("etnactl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in
            ["backend upsert", "server upsert --id s --url http://a", "backend show", "backend show a --id b", "frob"]
        {
            let words = std::iter::once("etnactl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
