//! `etnactl key`: single keys of the store, as bytes, without looking into them.

use std::io::Read as _;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Subcommand;
use etna_store::{Key, Op, Txn, key};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::{Output, clean, complain_softly, print, print_bytes};
use crate::store;

/// What can be done with keys. Keys are below the prefix: `backends/b/servers/one`.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List keys.
    #[command(after_help = "Example:\n  etnactl key ls backends/blog/")]
    Ls {
        /// What they begin with [default: all].
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Write a key's value to stdout.
    #[command(after_help = "Example:\n  etnactl key get backends/blog/servers/one | jq .")]
    Get {
        /// The key.
        key: String,
    },
    /// Put a key. What is put is not checked; `etnactl problems` tells.
    #[command(after_help = "Examples:\n  \
        etnactl key put backends/b/servers/one '{\"URL\":\"http://10.0.0.1:80\"}'\n  \
        etnactl --store etcd://127.0.0.1:2379/vulcand key put sites/blog < blog.json")]
    Put {
        /// The key.
        key: String,
        /// Its value; - or nothing: what stdin holds.
        value: Option<String>,
        /// Put it even if no layout has such a key.
        #[arg(long)]
        force: bool,
    },
    /// Delete exactly one key.
    #[command(after_help = "Example:\n  etnactl key rm backends/blog/servers/one")]
    Rm {
        /// The key.
        key: String,
    },
}

/// Does it.
pub(crate) async fn run(cli: &Cli, verb: &Verb) -> Result<ExitCode, Failure> {
    let engine = match verb {
        Verb::Ls { .. } | Verb::Get { .. } | Verb::Rm { .. } => store::open_to_read(cli).await?,
        Verb::Put { .. } => store::open(cli).await?,
    };
    let get = async |key: &str| engine.get(key).await.map_err(|error| store::failed(&*engine, "cannot read", &error));
    let commit =
        async |txn: Txn| engine.commit(txn).await.map_err(|error| store::failed(&*engine, "cannot write to", &error));
    match verb {
        Verb::Ls { prefix } => {
            let snapshot = engine.snapshot().await.map_err(|error| store::failed(&*engine, "cannot read", &error))?;
            let mut keys: Vec<String> = snapshot
                .changes
                .iter()
                .map(|change| key::show(&change.key))
                .filter(|key| key.starts_with(prefix))
                .collect();
            keys.sort_unstable();
            list(cli, &keys);
        }
        Verb::Get { key } => {
            let item = get(key).await?.ok_or_else(|| missing(key))?;
            print_bytes(&item.value);
        }
        Verb::Put { key, value, force } => {
            if let (Err(error), false) = (Key::parse(key.as_bytes()), force) {
                return Err(Failure::usage(format!("{key}: {error}; {}, or put it with --force", error.hint())));
            }
            let value = match value.as_deref() {
                None | Some("-") => stdin()?,
                Some(value) => Bytes::copy_from_slice(value.as_bytes()),
            };
            let revision = commit(Txn { compares: Vec::new(), ops: vec![Op::Put(key.clone(), value, None)] }).await?;
            complain_softly(&format!("put at revision {}", revision.0));
        }
        Verb::Rm { key } => {
            get(key).await?.ok_or_else(|| missing(key))?;
            let revision = commit(Txn::delete(key.clone())).await?;
            complain_softly(&format!("deleted at revision {}", revision.0));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(cli: &Cli, keys: &[String]) {
    let output = Output::new(cli.output);
    if output.is_json() {
        output.json(&keys.into());
    } else if keys.is_empty() {
        complain_softly("none");
    } else {
        print(&keys.iter().map(|key| format!("{}\n", clean(key))).collect::<String>());
    }
}

fn missing(key: &str) -> Failure {
    Failure::refused(format!("there is no key {key}"))
}

fn stdin() -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST_VALUE + 1).read_to_end(&mut value);
    match read {
        Ok(_) if value.len() as u64 > LONGEST_VALUE => Err(Failure::usage("the value is longer than 1 MiB")),
        Ok(_) => Ok(value.into()),
        Err(error) => Err(Failure::unread(format!("cannot read stdin: {error}"))),
    }
}

const LONGEST_VALUE: u64 = 1 << 20;
