//! The program that runs, as it was started: what an upgrade starts again.
//!
//! The path is remembered, not the file: what lies there later is the new binary, and `/proc/self/exe` names the old.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// How to start the program again.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it lies.
    pub path: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This process's. Ask early: it depends on the working directory and the search path.
    pub fn running() -> std::io::Result<Program> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let path = match located(&name, env::current_dir().ok().as_deref(), env::var_os("PATH").as_deref()) {
            Some(path) => path,
            None => env::current_exe()?,
        };
        Ok(Program { path, arguments: arguments.collect() })
    }
}

/// Where a program lies that was started by this name. Links are kept: an upgrade may be a link that changes.
fn located(name: &OsStr, directory: Option<&Path>, search: Option<&OsStr>) -> Option<PathBuf> {
    let named = Path::new(name);
    let found = if named.components().count() > 1 {
        directory.unwrap_or(Path::new("/")).join(named)
    } else {
        env::split_paths(search?).map(|folder| folder.join(named)).find(|path| is_program(path))?
    };
    (found.is_absolute() && is_program(&found)).then_some(found)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it_and_links_stay_links() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("etna-1"), dir.path().join("etna"));
        std::fs::write(&real, "").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let search = env::join_paths([Path::new("/nowhere"), dir.path()]).unwrap();
        let found = |name: &str| located(OsStr::new(name), Some(dir.path()), Some(&search));
        assert_eq!(found("etna"), Some(link.clone()));
        assert_eq!(found("./etna"), Some(dir.path().join("./etna")));
        assert_eq!(found(link.to_str().unwrap()), Some(link));
        assert_eq!(found("nothing"), None);
        assert_eq!(found(""), None);
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(found("etna"), None);
    }
}
