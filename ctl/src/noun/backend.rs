//! `etnactl backend`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use etna_store::Key;
use http::Method;
use serde_json::{Map, Value, json};

use super::tls::TlsFlags;
use super::{Done, One, Write, add, given, pem, remove, server_counts, show, table, text, upsert};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::pair::{self, SealKeyFile};

/// What can be done with backends.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List them.
    #[command(after_help = "Example:\n  etnactl backend ls")]
    Ls,
    /// Show one.
    #[command(after_help = "Example:\n  etnactl backend show blog")]
    Show(One),
    /// Create one, or replace all of one: what is not given is removed.
    Upsert(Box<Upsert>),
    /// Delete one with its servers; refused while a frontend leads to it.
    #[command(after_help = "Example:\n  etnactl backend rm blog")]
    Rm(One),
}

/// Flags of `backend upsert`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etnactl backend upsert --id blog --readTimeout 60s --policy p2c --sticky\n  \
    etnactl backend upsert --id shop --limit 150 --queue 100 \\\n      \
        --health-check '{\"Path\":\"/healthz\",\"Interval\":\"2s\"}'")]
pub(crate) struct Upsert {
    /// Its id.
    #[arg(long)]
    id: String,
    /// Longest wait for a response header, such as 60s.
    #[arg(long = "readTimeout", alias = "read-timeout", value_name = "DURATION")]
    read_timeout: Option<String>,
    /// Longest wait for a connection.
    #[arg(long = "dialTimeout", alias = "dial-timeout", value_name = "DURATION")]
    dial_timeout: Option<String>,
    /// Longest wait for a TLS handshake.
    #[arg(long = "handshakeTimeout", alias = "handshake-timeout", value_name = "DURATION")]
    handshake_timeout: Option<String>,
    /// Period of TCP keep-alive probes.
    #[arg(long = "keepAlivePeriod", alias = "keep-alive-period", value_name = "DURATION")]
    keep_alive_period: Option<String>,
    /// Idle connections kept per server and worker.
    #[arg(long = "maxIdleConns", alias = "max-idle-conns", value_name = "N")]
    max_idle_conns: Option<u64>,
    /// How a server is chosen: wrr (in turn, by weight), p2c (the less loaded of two), ewma (the faster and less loaded
    /// of two) or hash (the same one for the same key).
    #[arg(long, value_name = "POLICY", value_parser = ["wrr", "p2c", "ewma", "hash"])]
    policy: Option<String>,
    /// What hash goes by: client, path, header:NAME or cookie:NAME.
    #[arg(long, value_name = "KEY")]
    hash_on: Option<String>,
    /// How long a new server takes to its full share; 0s: no time.
    #[arg(long, value_name = "DURATION")]
    slow_start: Option<String>,
    /// How long a draining server keeps its sticky clients.
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// Most requests at one server at a time.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Most requests that wait for a server.
    #[arg(long, value_name = "N", requires = "limit")]
    queue: Option<u32>,
    /// How long they wait before they are answered 503.
    #[arg(long, value_name = "DURATION", requires = "limit")]
    queue_wait: Option<String>,
    /// How servers are checked: true or http (GET /), tcp, wordpress, false, or all of it as JSON such as
    /// {"Path":"/healthz","Interval":"2s"}.
    #[arg(long, alias = "healthCheck", value_name = "CHECK", value_parser = health_check)]
    health_check: Option<Value>,
    /// Keep a client on its server, with a cookie.
    #[arg(long)]
    sticky: bool,
    /// Name of that cookie.
    #[arg(long, value_name = "NAME", requires = "sticky")]
    cookie: Option<String>,
    #[command(flatten)]
    tls: TlsFlags,
    /// PEM file of the authorities that https servers are verified by [default: the system's].
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Name that https servers are asked for, and verified by [default: that of the URL].
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// PEM file of the certificate that is shown to https servers.
    #[arg(long, value_name = "FILE", requires = "tls_private_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key; it is sealed before it is sent.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_private_key: Option<PathBuf>,
    #[command(flatten)]
    seal_key: SealKeyFile,
    /// What servers speak.
    #[arg(long, value_parser = ["http1", "h2"])]
    protocol: Option<String>,
    /// Header of the PROXY protocol that is sent to servers: PROXY_V1 or PROXY_V2.
    #[arg(long, value_name = "VERSION")]
    proxy_protocol: Option<String>,
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls => {
            let columns = [
                ("ID", "Id"),
                ("POLICY", "Policy"),
                ("SERVERS", "Servers"),
                ("CHECK", "HealthCheck"),
                ("LIMIT", "Limit"),
                ("READ", "Settings.Timeouts.Read"),
                ("DIAL", "Settings.Timeouts.Dial"),
            ];
            let mut answer = client.get("/v2/backends").await?;
            if output.is_json() {
                output.json(&answer["Backends"]);
                return Ok(ExitCode::SUCCESS);
            }
            let counts = server_counts(client).await;
            let backends = answer["Backends"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let told: Vec<Value> = backends.into_iter().map(|backend| in_short(backend, &counts)).collect();
            table(output, &told, &columns);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Show(one) => {
            show(client, output, &format!("/v2/backends/{}", one.segment()), &Key::Backend(one.id().into())).await
        }
        Verb::Rm(one) => {
            remove(client, output, &format!("/v2/backends/{}", one.segment()), &Key::Backend(one.id().into())).await
        }
        Verb::Upsert(flags) => {
            let body = json!({ "Backend": flags.object()? });
            let key = Key::Backend(flags.id.as_str().into());
            let write = Write { method: Method::POST, path: "/v2/backends", body: &body, key, field: Some("Backend") };
            upsert(client, output, write).await
        }
    }
}

impl Upsert {
    fn object(&self) -> Result<Value, Failure> {
        let timeouts = given([
            ("Read", text(&self.read_timeout)),
            ("Dial", text(&self.dial_timeout)),
            ("TLSHandshake", text(&self.handshake_timeout)),
        ]);
        let keep_alive = given([
            ("Period", text(&self.keep_alive_period)),
            ("MaxIdleConnsPerHost", self.max_idle_conns.map(Value::from)),
        ]);
        let mut settings = given([("Protocol", text(&self.protocol)), ("ProxyProtocol", text(&self.proxy_protocol))]);
        add(&mut settings, "Timeouts", timeouts);
        add(&mut settings, "TLS", self.tls()?);
        add(&mut settings, "KeepAlive", keep_alive);
        let mut backend =
            given([("Id", Some(json!(self.id))), ("Type", Some(json!("http"))), ("Policy", text(&self.policy))]);
        add(&mut backend, "Settings", settings);
        backend.extend(given([
            ("HashOn", text(&self.hash_on)),
            ("SlowStart", text(&self.slow_start)),
            ("DrainTimeout", text(&self.drain_timeout)),
        ]));
        let limit = given([
            ("Requests", self.limit.map(Value::from)),
            ("Queue", self.queue.map(Value::from)),
            ("Wait", text(&self.queue_wait)),
        ]);
        add(&mut backend, "Limit", limit);
        if let Some(check) = &self.health_check {
            backend.insert("HealthCheck".into(), check.clone());
        }
        if self.sticky {
            backend.insert("Sticky".into(), Value::Object(given([("Cookie", text(&self.cookie))])));
        }
        Ok(Value::Object(backend))
    }

    fn tls(&self) -> Result<Map<String, Value>, Failure> {
        let key_pair = match (&self.tls_cert, &self.tls_private_key) {
            (Some(cert), Some(key)) => {
                let ring = self.seal_key.needed()?;
                Some(pair::sealed(&ring, &pair::read(cert, key)?)?)
            }
            _ => None,
        };
        let mut tls = self.tls.fields();
        tls.extend(given([
            ("CA", pem(self.tls_ca.as_deref())?),
            ("ServerName", text(&self.tls_server_name)),
            ("KeyPair", key_pair),
        ]));
        Ok(tls)
    }
}

/// A backend as a row has room for it: its check by kind, its limit by number. What is not said is the default.
fn in_short(mut backend: Value, counts: &Value) -> Value {
    if backend["Policy"].is_null() {
        backend["Policy"] = "wrr".into();
    }
    backend["HealthCheck"] = match &backend["HealthCheck"] {
        Value::Bool(false) => "off".into(),
        Value::Object(check) => check.get("Type").cloned().unwrap_or_default(),
        other => other.clone(),
    };
    backend["Limit"] = backend["Limit"]["Requests"].clone();
    backend["Servers"] = backend["Id"].as_str().map(|id| counts[id].clone()).unwrap_or_default();
    backend
}

/// The field `HealthCheck` as it is meant; whether it can be is for the proxy to say.
fn health_check(text: &str) -> Result<Value, String> {
    match text {
        "http" | "tcp" | "wordpress" => Ok(json!({ "Type": text })),
        _ => match serde_json::from_str(text) {
            Ok(value @ (Value::Bool(_) | Value::Object(_))) => Ok(value),
            _ => Err(r#"write true, http, tcp, wordpress, false or JSON such as {"Path":"/healthz"}"#.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_in_force() {
        let backend = json!({ "Id": "b", "HealthCheck": { "Type": "tcp" }, "Limit": { "Requests": 5 } });
        let row = in_short(backend, &json!({ "b": 3 }));
        assert_eq!(row, json!({ "Id": "b", "Policy": "wrr", "HealthCheck": "tcp", "Limit": 5, "Servers": 3 }));
        assert!(in_short(json!({ "Id": "c" }), &Value::Null)["Servers"].is_null());
    }

    #[test]
    fn checks_are_words_or_json() {
        assert_eq!(health_check("true"), Ok(json!(true)));
        assert_eq!(health_check("wordpress"), Ok(json!({ "Type": "wordpress" })));
        assert_eq!(health_check(r#"{"Path":"/x"}"#), Ok(json!({ "Path": "/x" })));
        for wrong in ["", "yes", "1", "{", "[]", "null"] {
            assert!(health_check(wrong).is_err(), "{wrong}");
        }
    }
}
