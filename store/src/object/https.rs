//! What happens to requests in the clear where there is https, for frontends and sites alike.

use super::word;
use crate::json::Fields;
use crate::problem::Flaw;

/// What happens to requests in the clear. Never redirected are ACME's challenges and requests from the site's
/// own containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpsMode {
    /// `auto`: redirected to https if we have a certificate for the name.
    #[default]
    Auto,
    /// `off`: served.
    Off,
    /// `always`: redirected, also where TLS ends at a proxy in front.
    Always,
    /// `admin`: those to the login and the administration are redirected, the others served.
    Admin,
}

impl HttpsMode {
    /// All of them.
    pub(super) const ALL: [HttpsMode; 4] = [HttpsMode::Auto, HttpsMode::Off, HttpsMode::Always, HttpsMode::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            HttpsMode::Auto => "auto",
            HttpsMode::Off => "off",
            HttpsMode::Always => "always",
            HttpsMode::Admin => "admin",
        }
    }
}

/// Reads `Https`, one of these words; `None`: it is absent.
pub(super) fn https(fields: &Fields<'_>, known: &[HttpsMode]) -> Result<Option<HttpsMode>, Flaw> {
    let known: Vec<(&str, HttpsMode)> = known.iter().map(|mode| (mode.name(), *mode)).collect();
    fields.get("Https").map(|node| word(&node, &known)).transpose()
}

/// Reads `Hsts`: seconds.
pub(super) fn hsts(fields: &Fields<'_>) -> Result<u32, Flaw> {
    let Some(node) = fields.get("Hsts") else { return Ok(0) };
    Ok(u32::try_from(node.integer_within(0, LONGEST_HSTS)?).unwrap_or_default())
}

// Ten years, in seconds; lists of preloaded sites want one.
const LONGEST_HSTS: i64 = 10 * 365 * 86_400;
