//! The seeds: inputs worth starting from, and those that once broke something.

use std::path::Path;

/// A check, and the name of its target and of its folder of seeds.
pub type Check = (&'static str, fn(&[u8]));

/// Runs every check on each of its seeds.
///
/// # Panics
/// If a check does, if a target has no seeds, or if they cannot be read.
pub fn replay(root: &Path, checks: &[Check]) {
    for (name, check) in checks {
        let folder = root.join("seeds").join(name);
        let seeds = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for seed in seeds {
            let path = seed.unwrap().path();
            println!("{}", path.display());
            check(&std::fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
