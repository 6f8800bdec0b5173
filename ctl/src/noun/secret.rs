//! `etnactl secret`: seal keys, and what is sealed with them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use etna_store::seal::SealKey;
use serde_json::json;

use super::Done;
use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::{Output, complain, complain_softly, print};
use crate::pair::{self, SealKeyFile, Told};
use crate::reseal::{self, Resealed};
use crate::store;

/// What can be done with secrets.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a seal key.
    #[command(alias = "new_key", after_help = "Example:\n  etnactl secret new-key -f /etc/etna/seal-key")]
    NewKey(NewKey),
    /// Seal a certificate and its private key, as vctl does.
    #[command(alias = "seal_keypair")]
    SealKeypair(SealKeypair),
    /// Seal everything in the store again with the first seal key, after a new one was put first.
    #[command(after_help = "Example:\n  etnactl secret reseal --seal-key /etc/etna/seal-key")]
    Reseal(SealKeyFile),
}

/// Flags of `secret new-key`.
#[derive(Args)]
pub(crate) struct NewKey {
    /// New file for it, mode 0600; stdout if not given.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Flags of `secret seal-keypair`.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    etnactl secret seal-keypair --seal-key /etc/etna/seal-key \\\n      \
        --cert blog.pem --private-key blog-key.pem\n\n\
    It prints the envelope, as vctl does. What a host's Settings.KeyPair holds is its base64; `etnactl host upsert` does \
    all of it.")]
pub(crate) struct SealKeypair {
    #[command(flatten)]
    seal_key: SealKeyFile,
    /// PEM file of the certificate and its chain.
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// PEM file of its private key.
    #[arg(long, alias = "privateKey", value_name = "FILE")]
    private_key: PathBuf,
    /// New file for the envelope, mode 0600; stdout if not given.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Does it.
pub(crate) async fn run(cli: &Cli, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::NewKey(flags) => {
            let key = SealKey::generate().map_err(|error| Failure::unread(error.to_string()))?;
            write(flags.file.as_deref(), &key.to_hex())?;
        }
        Verb::SealKeypair(flags) => {
            let ring = flags.seal_key.needed()?;
            let pair = pair::read(&flags.cert, &flags.private_key)?;
            if Told::of(&pair).is_ok_and(|told| told.expired) {
                complain_softly("the certificate has expired");
            }
            let envelope = ring.seal(&pair).map_err(|error| Failure::refused(error.to_string()))?;
            write(flags.file.as_deref(), &String::from_utf8_lossy(&envelope))?;
        }
        Verb::Reseal(file) => {
            let ring = file.needed()?;
            let engine = store::open_to_read(cli).await?;
            let resealed = reseal::all(&*engine, &ring).await?;
            tell(output, &resealed);
            if !resealed.failed.is_empty() {
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(output: &Output, resealed: &Resealed) {
    if output.is_json() {
        let failed: Vec<_> = resealed.failed.iter().map(|(key, why)| json!({ "Key": key, "Reason": why })).collect();
        output.json(&json!({ "Resealed": resealed.done, "Current": resealed.current, "Failed": failed }));
        return;
    }
    for (key, why) in &resealed.failed {
        complain(&format!("{key}: {why}"));
    }
    let (done, current, failed) = (resealed.done.len(), resealed.current, resealed.failed.len());
    let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
    print(&format!("{done} sealed again, {current} were sealed with the first key{failed}\n"));
}

/// Writes a line to stdout, or to a file that is not there yet and that only its owner may read.
fn write(path: Option<&Path>, line: &str) -> Result<(), Failure> {
    let Some(path) = path else {
        print(line);
        print("\n");
        return Ok(());
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(|error| Failure::unread(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_of_secrets_is_new_and_its_owners() {
        let dir = std::env::temp_dir().join(format!("etnactl-secret-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("key");
        write(Some(&path), "x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = write(Some(&path), "y").unwrap_err().to_string();
        assert!(refused.contains("File exists"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"x\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
