//! `etnactl listener`.

use clap::{Args, Subcommand};
use etna_store::Key;
use http::Method;
use serde_json::json;

use super::{Done, One, Write, given, list, remove, show, text, upsert};
use crate::client::Client;
use crate::output::Output;

/// What can be done with listeners.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List them; those of etna's command line are in `etnactl status`.
    Ls,
    /// Show one.
    Show(One),
    /// Create one, or replace all of one: what is not given is removed.
    Upsert(Upsert),
    /// Delete one: it drains.
    Rm(One),
}

/// Flags of `listener upsert`.
#[derive(Args)]
#[command(after_help = "Example:\n  etnactl listener upsert --id extra --proto http --addr 0.0.0.0:8080")]
pub(crate) struct Upsert {
    /// Its id.
    #[arg(long)]
    id: String,
    /// What is spoken there.
    #[arg(long, value_name = "PROTOCOL", default_value = "http")]
    proto: String,
    /// What kind of address it has.
    #[arg(long, value_name = "NETWORK", default_value = "tcp")]
    net: String,
    /// Where to listen.
    #[arg(long, value_name = "IP:PORT")]
    addr: String,
    /// Rule that requests must match to be served here.
    #[arg(long, value_name = "RULE")]
    scope: Option<String>,
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls => {
            let columns = [
                ("ID", "Id"),
                ("PROTOCOL", "Protocol"),
                ("NETWORK", "Address.Network"),
                ("ADDRESS", "Address.Address"),
                ("SCOPE", "Scope"),
            ];
            list(client, output, "/v2/listeners", "Listeners", &columns).await
        }
        Verb::Show(one) => {
            show(client, output, &format!("/v2/listeners/{}", one.segment()), &Key::Listener(one.id().into())).await
        }
        Verb::Rm(one) => {
            remove(client, output, &format!("/v2/listeners/{}", one.segment()), &Key::Listener(one.id().into())).await
        }
        Verb::Upsert(flags) => {
            let listener = given([
                ("Id", Some(json!(flags.id))),
                ("Protocol", Some(json!(flags.proto))),
                ("Address", Some(json!({ "Network": flags.net, "Address": flags.addr }))),
                ("Scope", text(&flags.scope)),
            ]);
            let body = json!({ "Listener": listener });
            let key = Key::Listener(flags.id.as_str().into());
            let write =
                Write { method: Method::POST, path: "/v2/listeners", body: &body, key, field: Some("Listener") };
            upsert(client, output, write).await
        }
    }
}
