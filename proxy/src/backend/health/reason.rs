//! Why a server is thought well or ill: a short, stable word for logs, metrics, `explain` and status.

use serde::{Deserialize, Serialize};

/// What a check found, or why a server was ejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// It was not checked yet.
    Starting,
    /// No connection can be made.
    Unreachable,
    /// It does not answer in time.
    Timeout,
    /// It breaks the connection, or answers no HTTP.
    Broken,
    /// It answers 502, 503 or 504.
    Gateway,
    /// A check was answered with a status that is not expected.
    Status,
    /// A check's answer lacks what it must hold, or holds what it must not.
    Body,
    /// WordPress: a page without a word, as one has whose content has not come yet.
    Blank,
    /// WordPress: it sends its visitors to the installation.
    NotInstalled,
    /// WordPress: it says that it is being maintained.
    Maintenance,
    /// WordPress: it does not reach its database.
    Database,
    /// WordPress: it sends every visitor to where the visitor already is.
    SchemeMismatch,
    /// TLS cannot be agreed upon: its certificate is not believed, or it does not take ours, or it speaks none.
    Tls,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Reason; 14] = [
        Reason::Ok,
        Reason::Starting,
        Reason::Unreachable,
        Reason::Timeout,
        Reason::Broken,
        Reason::Gateway,
        Reason::Status,
        Reason::Body,
        Reason::Blank,
        Reason::NotInstalled,
        Reason::Maintenance,
        Reason::Database,
        Reason::SchemeMismatch,
        Reason::Tls,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::Starting => "starting",
            Reason::Unreachable => "unreachable",
            Reason::Timeout => "timeout",
            Reason::Broken => "broken",
            Reason::Gateway => "gateway",
            Reason::Status => "status",
            Reason::Body => "body",
            Reason::Blank => "blank",
            Reason::NotInstalled => "not-installed",
            Reason::Maintenance => "maintenance",
            Reason::Database => "database",
            Reason::SchemeMismatch => "scheme-mismatch",
            Reason::Tls => "tls",
        }
    }

    /// Its place in [`Reason::ALL`].
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The reason in that place.
    pub fn of_number(number: u8) -> Reason {
        Reason::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_agree() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of_number(reason.number()), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.word());
        }
        assert_eq!(Reason::of_number(200), Reason::Ok);
    }
}
