//! What a signal sent to a container means for its traffic. Pure.

/// What a `kill` event announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// SIGKILL: it is dead before anybody can read of it.
    Dead,
    /// It was asked to stop: take no new work to it.
    Stopping,
    /// Something else: reload, log rotation, a window that changed its size.
    Other,
}

/// Judges a `kill` event's `signal` (a number, in some versions a name) by the container's own stop signal.
pub fn meaning(signal: &str, stop_signal: &str) -> Meaning {
    const SIGINT: u8 = 2;
    const SIGQUIT: u8 = 3;
    const SIGKILL: u8 = 9;
    const SIGTERM: u8 = 15;
    let stop = number(stop_signal).unwrap_or(SIGTERM);
    match number(signal) {
        Some(SIGKILL) => Meaning::Dead,
        Some(signal) if [SIGINT, SIGQUIT, SIGTERM, stop].contains(&signal) => Meaning::Stopping,
        Some(_) | None => Meaning::Other,
    }
}

/// The number of a signal given as `15`, `TERM` or `SIGTERM`, on Linux.
fn number(signal: &str) -> Option<u8> {
    let signal = signal.trim();
    if let Ok(number) = signal.parse() {
        return Some(number);
    }
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|offset| offset.parse::<u8>().ok()) {
        return 34u8.checked_add(offset);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Those that images use as stop signals, and those that must not be taken for one.
const NAMES: [(&str, u8); 15] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("WINCH", 28),
    ("PWR", 30),
    ("RTMIN", 34),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (signal, stop, expected) in [
            ("15", "", Meaning::Stopping),
            ("SIGTERM", "SIGWINCH", Meaning::Stopping),
            ("28", "SIGWINCH", Meaning::Stopping),
            ("28", "28", Meaning::Stopping),
            ("28", "", Meaning::Other),
            ("3", "SIGQUIT", Meaning::Stopping),
            ("9", "SIGTERM", Meaning::Dead),
            ("KILL", "", Meaning::Dead),
            ("1", "", Meaning::Other),
            ("37", "SIGRTMIN+3", Meaning::Stopping),
            ("", "", Meaning::Other),
            ("999", "", Meaning::Other),
        ] {
            assert_eq!(meaning(signal, stop), expected, "{signal} with stop signal {stop:?}");
        }
    }
}
