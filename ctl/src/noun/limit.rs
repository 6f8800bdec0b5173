//! `etnactl ratelimit` and `etnactl connlimit`: vctl's words for `etnactl middleware … --type ratelimit`.
//!
//! As in vctl they know `upsert` and `rm`; to look there is `etnactl middleware ls`.

use clap::{Args, Subcommand};

use super::One;
use super::middleware::{self, Connections, Counted, Place, Rate};

/// What can be done with ratelimits.
#[derive(Subcommand)]
pub(crate) enum RateLimit {
    /// Create one, or replace all of one: what is not given is the default.
    #[command(after_help = "Example:\n  etnactl ratelimit upsert -f blog --id limit --requests 10 --burst 20")]
    Upsert(RateLimitUpsert),
    /// Delete one.
    #[command(after_help = "Example:\n  etnactl ratelimit rm -f blog limit")]
    Rm(Which),
}

/// Flags of `ratelimit upsert`.
#[derive(Args)]
pub(crate) struct RateLimitUpsert {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    counted: Counted,
}

/// What can be done with connlimits.
#[derive(Subcommand)]
pub(crate) enum ConnLimit {
    /// Create one, or replace all of one: what is not given is the default.
    #[command(after_help = "Example:\n  etnactl connlimit upsert -f blog --id conns --connections 8")]
    Upsert(ConnLimitUpsert),
    /// Delete one.
    #[command(after_help = "Example:\n  etnactl connlimit rm -f blog conns")]
    Rm(Which),
}

/// Flags of `connlimit upsert`.
#[derive(Args)]
pub(crate) struct ConnLimitUpsert {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    connections: Connections,
    #[command(flatten)]
    counted: Counted,
}

/// Names one.
#[derive(Args)]
pub(crate) struct Which {
    /// Its frontend.
    #[arg(short, long)]
    frontend: String,
    #[command(flatten)]
    one: One,
}

impl RateLimit {
    /// The same as a verb of `etnactl middleware`.
    pub(crate) fn verb(&self) -> middleware::Verb {
        match self {
            RateLimit::Upsert(flags) => {
                upsert("ratelimit", &flags.place, &flags.rate, &Connections::default(), &flags.counted)
            }
            RateLimit::Rm(which) => which.rm(),
        }
    }
}

impl ConnLimit {
    /// The same as a verb of `etnactl middleware`.
    pub(crate) fn verb(&self) -> middleware::Verb {
        match self {
            ConnLimit::Upsert(flags) => {
                upsert("connlimit", &flags.place, &Rate::default(), &flags.connections, &flags.counted)
            }
            ConnLimit::Rm(which) => which.rm(),
        }
    }
}

impl Which {
    fn rm(&self) -> middleware::Verb {
        middleware::Verb::Rm { frontend: self.frontend.clone(), one: self.one.clone() }
    }
}

fn upsert(kind: &str, place: &Place, rate: &Rate, connections: &Connections, counted: &Counted) -> middleware::Verb {
    middleware::Verb::Upsert(Box::new(middleware::Upsert {
        place: place.clone(),
        kind: kind.to_owned(),
        settings: None,
        rate: rate.clone(),
        connections: connections.clone(),
        counted: counted.clone(),
    }))
}
