//! `etnactl middleware`.

use clap::{Args, Subcommand};
use etna_store::Key;
use http::Method;
use serde_json::{Value, json};

use super::{Done, One, Write, given, list, remove, show, text, upsert};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::Output;

/// What can be done with middlewares.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List those of a frontend, in the order they run.
    #[command(after_help = "Example:\n  etnactl middleware ls -f blog")]
    Ls {
        /// The frontend.
        #[arg(short, long)]
        frontend: String,
    },
    /// Show one.
    #[command(after_help = "Example:\n  etnactl middleware show -f blog limit")]
    Show {
        /// Its frontend.
        #[arg(short, long)]
        frontend: String,
        #[command(flatten)]
        one: One,
    },
    /// Create one, or replace all of one: what is not given is removed.
    Upsert(Box<Upsert>),
    /// Delete one.
    #[command(after_help = "Example:\n  etnactl middleware rm -f blog limit")]
    Rm {
        /// Its frontend.
        #[arg(short, long)]
        frontend: String,
        #[command(flatten)]
        one: One,
    },
}

/// Flags of `middleware upsert`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etnactl middleware upsert -f blog --id limit --type ratelimit \\\n      \
        --requests 10 --period 1 --burst 20\n  \
    etnactl middleware upsert -f blog --id any --type connlimit \\\n      \
        --settings '{\"Connections\":8,\"Variable\":\"client.ip\"}'")]
pub(crate) struct Upsert {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Its kind: ratelimit or connlimit; there are no others yet.
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: String,
    /// The kind's settings, whole, as JSON.
    #[arg(long, value_name = "JSON")]
    #[arg(conflicts_with_all = ["requests", "period", "burst", "rate_var", "connections", "variable"])]
    pub(crate) settings: Option<String>,
    #[command(flatten)]
    pub(crate) rate: Rate,
    #[command(flatten)]
    pub(crate) connections: Connections,
    #[command(flatten)]
    pub(crate) counted: Counted,
}

/// Which middleware, and where it stands.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// Its id.
    #[arg(long)]
    id: String,
    /// Its frontend.
    #[arg(short, long)]
    frontend: String,
    /// Lower ones run first.
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    priority: i64,
    /// Time after which it is gone, unless it is put again [default: never].
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
}

/// Settings of a ratelimit.
#[derive(Args, Clone, Default)]
pub(crate) struct Rate {
    /// ratelimit: requests per period [default: 1].
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// ratelimit: the period in seconds [default: 1].
    #[arg(long, value_name = "SECONDS")]
    period: Option<u64>,
    /// ratelimit: requests at once [default: 1].
    #[arg(long, value_name = "N")]
    burst: Option<u64>,
    /// ratelimit: where a request says its own rate (request.header.NAME).
    #[arg(long = "rateVar", alias = "rate-var", value_name = "VARIABLE")]
    rate_var: Option<String>,
}

/// Settings of a connlimit.
#[derive(Args, Clone, Default)]
pub(crate) struct Connections {
    /// connlimit: requests at the same time [default: 1].
    #[arg(long, visible_alias = "conns", value_name = "N")]
    connections: Option<u64>,
}

/// What both count.
#[derive(Args, Clone)]
pub(crate) struct Counted {
    /// What is counted apart: client.ip, request.host, request.header.NAME [default: client.ip].
    #[arg(long, visible_alias = "var", value_name = "VARIABLE")]
    variable: Option<String>,
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls { frontend } => {
            let columns = [("ID", "Id"), ("TYPE", "Type"), ("PRIORITY", "Priority"), ("SETTINGS", "Middleware")];
            list(client, output, &path(frontend), "Middlewares", &columns).await
        }
        Verb::Show { frontend, one } => {
            let key = Key::Middleware(frontend.as_str().into(), one.id().into());
            show(client, output, &format!("{}/{}", path(frontend), one.segment()), &key).await
        }
        Verb::Rm { frontend, one } => {
            let key = Key::Middleware(frontend.as_str().into(), one.id().into());
            remove(client, output, &format!("{}/{}", path(frontend), one.segment()), &key).await
        }
        Verb::Upsert(flags) => {
            let middleware = json!({
                "Id": flags.place.id,
                "Type": flags.kind,
                "Priority": flags.place.priority,
                "Middleware": flags.settings()?,
            });
            let Place { id, frontend, ttl, .. } = &flags.place;
            let body = json!({ "Middleware": middleware, "TTL": ttl.as_deref().unwrap_or_default() });
            let key = Key::Middleware(frontend.as_str().into(), id.as_str().into());
            let path = path(frontend);
            let write = Write { method: Method::POST, path: &path, body: &body, key, field: Some("Middleware") };
            upsert(client, output, write).await
        }
    }
}

impl Upsert {
    fn settings(&self) -> Result<Value, Failure> {
        if let Some(settings) = &self.settings {
            return serde_json::from_str(settings)
                .map_err(|error| Failure::usage(format!("--settings is not JSON: {error}")));
        }
        let variable = text(&self.counted.variable).or_else(|| Some(json!("client.ip")));
        let number = |given: Option<u64>| Some(json!(given.unwrap_or(1)));
        Ok(Value::Object(match self.kind.as_str() {
            "ratelimit" => given([
                ("Requests", number(self.rate.requests)),
                ("PeriodSeconds", number(self.rate.period)),
                ("Burst", number(self.rate.burst)),
                ("Variable", variable),
                ("RateVar", text(&self.rate.rate_var)),
            ]),
            "connlimit" => given([("Connections", number(self.connections.connections)), ("Variable", variable)]),
            kind => {
                let message = format!("there is no middleware of type {kind} yet: use ratelimit or connlimit");
                return Err(Failure::usage(message));
            }
        }))
    }
}

fn path(frontend: &str) -> String {
    format!("/v2/frontends/{}/middlewares", segment(frontend))
}
