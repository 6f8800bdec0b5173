//! `etnactl frontend`.

use clap::{Args, Subcommand};
use etna_store::Key;
use http::Method;
use serde_json::{Map, Value, json};

use super::{Done, One, Write, add, given, list, remove, show, text, upsert};
use crate::client::Client;
use crate::output::Output;

/// What can be done with frontends.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List them, those of sites included.
    #[command(after_help = "Example:\n  etnactl frontend ls")]
    Ls,
    /// Show one.
    #[command(after_help = "Example:\n  etnactl frontend show blog")]
    Show(One),
    /// Create one, or replace all of one: what is not given is removed.
    Upsert(Upsert),
    /// Delete one with its middlewares.
    #[command(after_help = "Example:\n  etnactl frontend rm blog")]
    Rm(One),
}

/// Flags of `frontend upsert`.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    etnactl frontend upsert --id blog -b blog --passHostHeader \\\n      \
        --route 'Host(\"blog.example.com\") && PathPrefix(\"/shop\")'")]
pub(crate) struct Upsert {
    /// Its id.
    #[arg(long)]
    id: String,
    /// When it is chosen.
    #[arg(long, value_name = "RULE")]
    route: String,
    /// The backend it leads to.
    #[arg(short, long)]
    backend: String,
    /// Time after which it is gone, unless it is put again [default: never].
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Wins over frontends of a lower priority, however specific their rules are.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i64>,
    /// What happens to requests in the clear: auto redirects them to https where there is a certificate, always
    /// everywhere, off none [default: off].
    #[arg(long, value_parser = ["auto", "off", "always"])]
    https: Option<String>,
    /// For how many seconds browsers are told to come by https only [default: 0, nothing is said].
    #[arg(long, value_name = "SECONDS")]
    hsts: Option<u32>,
    /// Request body kept in memory; for vulcand only.
    #[arg(long = "maxMemBodyKB", alias = "max-mem-body-kb", value_name = "KIB")]
    max_mem_body_kb: Option<u64>,
    /// Longest request body.
    #[arg(long = "maxBodyKB", alias = "max-body-kb", value_name = "KIB")]
    max_body_kb: Option<u64>,
    /// When another server is tried.
    #[arg(long = "failoverPredicate", alias = "failover-predicate", value_name = "PREDICATE")]
    failover_predicate: Option<String>,
    /// Set X-Forwarded-Server to this.
    #[arg(long = "forwardHost", alias = "forward-host", value_name = "NAME")]
    forward_host: Option<String>,
    /// Believe the X-Forwarded-* headers of any client.
    #[arg(long = "trustForwardHeader", alias = "trust-forward-header")]
    trust_forward_header: bool,
    /// Send the client's Host to the server instead of the server's own.
    #[arg(long = "passHostHeader", alias = "pass-host-header")]
    pass_host_header: bool,
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls => {
            let columns = [
                ("ID", "Id"),
                ("PRIORITY", "Priority"),
                ("BACKEND", "BackendId"),
                ("SITE", "Site"),
                ("ROUTE", "Route"),
            ];
            list(client, output, "/v2/frontends", "Frontends", &columns).await
        }
        Verb::Show(one) => {
            show(client, output, &format!("/v2/frontends/{}", one.segment()), &Key::Frontend(one.id().into())).await
        }
        Verb::Rm(one) => {
            remove(client, output, &format!("/v2/frontends/{}", one.segment()), &Key::Frontend(one.id().into())).await
        }
        Verb::Upsert(flags) => {
            let body = json!({ "Frontend": flags.object(), "TTL": flags.ttl.as_deref().unwrap_or_default() });
            let key = Key::Frontend(flags.id.as_str().into());
            let write =
                Write { method: Method::POST, path: "/v2/frontends", body: &body, key, field: Some("Frontend") };
            upsert(client, output, write).await
        }
    }
}

impl Upsert {
    fn object(&self) -> Value {
        let bytes = |kib: Option<u64>| kib.map(|kib| Value::from(kib.saturating_mul(1024)));
        let limits =
            given([("MaxMemBodyBytes", bytes(self.max_mem_body_kb)), ("MaxBodyBytes", bytes(self.max_body_kb))]);
        let mut settings: Map<String, Value> = given([
            ("FailoverPredicate", text(&self.failover_predicate)),
            ("Hostname", text(&self.forward_host)),
            ("TrustForwardHeader", self.trust_forward_header.then_some(Value::Bool(true))),
            ("PassHostHeader", self.pass_host_header.then_some(Value::Bool(true))),
        ]);
        add(&mut settings, "Limits", limits);
        let mut frontend = given([
            ("Id", Some(json!(self.id))),
            ("Type", Some(json!("http"))),
            ("Route", Some(json!(self.route))),
            ("BackendId", Some(json!(self.backend))),
            ("Priority", self.priority.map(Value::from)),
            ("Https", text(&self.https)),
            ("Hsts", self.hsts.map(Value::from)),
        ]);
        add(&mut frontend, "Settings", settings);
        Value::Object(frontend)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        upsert: Upsert,
    }

    #[test]
    fn flags_are_fields() {
        let object = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.upsert.object());
        let bare = json!({ "Id": "a", "Type": "http", "Route": "r", "BackendId": "b" });
        assert_eq!(object("upsert --id a --route r -b b").unwrap(), bare);
        let secure = object("upsert --id a --route r -b b --https auto --hsts 60").unwrap();
        assert_eq!((&secure["Https"], &secure["Hsts"]), (&json!("auto"), &json!(60)));
        assert!(object("upsert --id a --route r -b b --https admin").is_err(), "only sites have it");
    }
}
