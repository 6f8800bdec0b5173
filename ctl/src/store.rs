//! Where `export`, `import`, `key`, `proxies` and `secret reseal` find the keys: in a store given with `--store`, or in
//! the one behind the admin API.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use etna_store::Engine;
use etna_store::engine::Options;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::noun::secret::Verb;

/// How to reach a store without a running `etna`.
#[derive(Args)]
#[command(next_help_heading = "Options for export, import, key, proxies and secret reseal")]
pub(crate) struct StoreFlags {
    /// The store itself, instead of the one behind the admin API: etcd://H1:2379,H2:2379/PREFIX, etcds://…,
    /// embedded:DIR (of an etna that does not run).
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// PEM file of the authority that signed the store's certificate.
    #[arg(long, global = true, env = "ETNA_STORE_CA", value_name = "FILE")]
    store_ca: Option<PathBuf>,
    /// PEM file of the client certificate shown to the store.
    #[arg(long, global = true, env = "ETNA_STORE_CERT", value_name = "FILE", requires = "store_key")]
    store_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, global = true, env = "ETNA_STORE_KEY", value_name = "FILE", requires = "store_cert")]
    store_key: Option<PathBuf>,
    /// User name at the store.
    #[arg(long, global = true, env = "ETNA_STORE_USER", value_name = "NAME", requires = "store_password_file")]
    store_user: Option<String>,
    /// File with that user's password.
    #[arg(long, global = true, env = "ETNA_STORE_PASSWORD_FILE", value_name = "FILE")]
    store_password_file: Option<PathBuf>,
}

/// Opens the store that was meant, in order to read: one that is not there is not made.
pub(crate) async fn open_to_read(cli: &Cli) -> Result<Arc<dyn Engine>, Failure> {
    let dir = cli.store.store.as_deref().and_then(|url| url.strip_prefix("embedded:"));
    if let Some(dir) = dir.filter(|dir| !Path::new(dir).exists()) {
        return Err(Failure::unread(format!(
            "there is no store at {dir}: name one with --store URL, or leave it out to ask a running etna"
        )));
    }
    open(cli).await
}

/// Opens the store that was meant.
pub(crate) async fn open(cli: &Cli) -> Result<Arc<dyn Engine>, Failure> {
    let flags = &cli.store;
    let Some(url) = &flags.store else { return behind(&cli.admin, cli.token_file.as_deref()).await };
    let options = Options {
        ca_file: flags.store_ca.clone(),
        cert_file: flags.store_cert.clone(),
        key_file: flags.store_key.clone(),
        user: flags.store_user.clone(),
        password_file: flags.store_password_file.clone(),
    };
    etna_store::open(url, &options).await.map_err(|error| Failure::store(&format!("cannot open {url}"), &error))
}

/// The store behind an admin API.
pub(crate) async fn behind(url: &str, token_file: Option<&Path>) -> Result<Arc<dyn Engine>, Failure> {
    let options = Options { password_file: token_file.map(Into::into), ..Options::default() };
    etna_store::open(url, &options).await.map_err(|error| Failure::store(&format!("cannot open {url}"), &error))
}

/// Refuses `--store` where it would not be used: what was meant for one store would go to another.
pub(crate) fn refuse_unused(cli: &Cli) -> Result<(), Failure> {
    let used = match &cli.command {
        Command::Export(_) | Command::Import(_) | Command::Key(_) | Command::Proxies(_) => true,
        Command::Secret(verb) => matches!(verb, Verb::Reseal(_)),
        _ => false,
    };
    if cli.store.store.is_none() || used {
        return Ok(());
    }
    Err(Failure::usage(
        "--store is for export, import, key, proxies and secret reseal; this command talks to an etna: --admin URL",
    ))
}

/// What a store's error means, with what to look at.
pub(crate) fn failed(engine: &dyn Engine, doing: &str, error: &etna_store::Error) -> Failure {
    Failure::store(&format!("{doing} {}", engine.describe()), error)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[tokio::test]
    async fn what_is_only_read_is_not_made() {
        let dir = std::env::temp_dir().join(format!("etnactl-typo-{}", std::process::id()));
        let url = format!("embedded:{}", dir.display());
        let cli = Cli::try_parse_from(["etnactl", "--store", &url, "export"]).unwrap();
        let refused = open_to_read(&cli).await.err().unwrap();
        assert!(matches!(&refused, Failure::Unread(text) if text.contains("there is no store at")), "{refused}");
        assert!(!dir.exists());
    }
}
