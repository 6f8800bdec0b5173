//! The programs under test, built once a test run by cargo itself, so that they are never stale.
//!
//! `cargo test` does not build the binaries of other packages, and lets go of its lock before the tests run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of one of `etna`, `etnactl`, `etna-sidekick`.
pub fn binary(name: &str) -> PathBuf {
    let path = FOLDER.get_or_init(build).join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

fn build() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    // <target>/<profile>/deps/e2e-0123456789abcdef, or <target>/<profile>/drills
    let folder =
        exe.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).expect("it lies in a folder").to_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "etna-proxy", "--package", "etna-sidekick", "--package", "etna-ctl"]);
    cargo.arg("--target-dir").arg(folder.parent().expect("a profile lies in a target folder"));
    if folder.file_name().is_some_and(|profile| profile == "release") {
        cargo.arg("--release");
    }
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the binaries do not build: {status}");
    folder
}

static FOLDER: OnceLock<PathBuf> = OnceLock::new();
