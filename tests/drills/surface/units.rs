//! What systemd says of the units.

use std::path::Path;
use std::process::Command;

use etna_tests::process::try_output_of;

use crate::drill::{Length, Outcome};

/// S1. As `units/check.sh` has it, but the limit is stated here, too.
pub(super) async fn confined(_length: Length) -> Outcome {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("units").join("check.sh");
    let said = match try_output_of(&mut Command::new(script)) {
        Ok(said) => said,
        Err(error) => return Outcome::fail(error),
    };
    // security  etna.service             exposure level for etna.service: 1.6 OK
    let levels: Vec<(String, f64)> = said
        .lines()
        .filter_map(|line| {
            let (unit, level) = line.split_once("exposure level for ")?.1.split_once(": ")?;
            Some((unit.to_owned(), level.split_whitespace().next()?.parse().ok()?))
        })
        .collect();
    let pass = levels.len() == 3 && levels.iter().all(|(_, level)| *level <= 2.0);
    let shown: Vec<String> = levels.iter().map(|(unit, level)| format!("{unit} {level}")).collect();
    Outcome { load: "none".into(), figure: format!("{} (<= 2.0)", shown.join(", ")), pass, ..Outcome::default() }
}
