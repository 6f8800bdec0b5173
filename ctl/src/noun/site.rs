//! `etnactl site`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use etna_store::Key;
use http::Method;
use serde_json::{Value, json};

use super::{Done, One, Write, given, remove, server_counts, show, table, text, upsert};
use crate::client::{Client, segment};
use crate::output::Output;

/// What can be done with sites.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List them.
    #[command(after_help = "Example:\n  etnactl site ls")]
    Ls,
    /// Show one.
    #[command(after_help = "Example:\n  etnactl site show blog")]
    Show(One),
    /// Create one, or replace all of one: what is not given is removed.
    Upsert(Upsert),
    /// Delete one; its backends stay.
    #[command(after_help = "Example:\n  etnactl site rm blog")]
    Rm(One),
}

/// Flags of `site upsert`.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    etnactl site upsert --id blog --host blog.example.com \\\n      \
        --host www.example.com --public blog-public --admin-backend blog-admin")]
pub(crate) struct Upsert {
    /// Its id.
    #[arg(long)]
    id: String,
    /// A host name; the first one given is the canonical one.
    #[arg(long = "host", value_name = "NAME", required = true, value_delimiter = ',')]
    hosts: Vec<String>,
    /// The backend of the public containers.
    #[arg(long, value_name = "BACKEND")]
    public: String,
    /// The backend of the admin containers [default: the public ones serve all].
    #[arg(long = "admin-backend", value_name = "BACKEND")]
    admin_backend: Option<String>,
    /// Where anonymous admin-ajax.php goes.
    #[arg(long, value_parser = ["admin", "public", "auto"])]
    ajax: Option<String>,
    /// Do not ask the admin container for uploads that the public ones lack.
    #[arg(long)]
    no_uploads_fallback: bool,
    /// What happens to requests in the clear: auto redirects them to https where there is a certificate, always
    /// everywhere, admin only those to the administration, off none.
    #[arg(long, value_parser = ["auto", "off", "always", "admin"])]
    https: Option<String>,
    /// For how many seconds browsers are told to come by https only [default: 0, nothing is said].
    #[arg(long, value_name = "SECONDS")]
    hsts: Option<u32>,
    /// Get certificates by ACME for its hosts that have none of their own; so does --acme-email.
    #[arg(long)]
    acme: bool,
    /// Whom the authority may write to.
    #[arg(long, value_name = "ADDRESS")]
    acme_email: Option<String>,
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls => {
            let columns =
                [("ID", "Id"), ("HOSTS", "Hosts"), ("PUBLIC", "Public"), ("ADMIN", "Admin"), ("AJAX", "Ajax")];
            let mut answer = client.get("/v3/sites").await?;
            if output.is_json() {
                output.json(&answer["Sites"]);
                return Ok(ExitCode::SUCCESS);
            }
            let counts = server_counts(client).await;
            let sites = answer["Sites"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let told: Vec<Value> = sites.into_iter().map(|site| with_servers(site, &counts)).collect();
            table(output, &told, &columns);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Show(one) => {
            show(client, output, &format!("/v3/sites/{}", one.segment()), &Key::Site(one.id().into())).await
        }
        Verb::Rm(one) => {
            remove(client, output, &format!("/v3/sites/{}", one.segment()), &Key::Site(one.id().into())).await
        }
        Verb::Upsert(flags) => {
            let acme = given([("Email", text(&flags.acme_email))]);
            let site = Value::Object(given([
                ("Preset", Some(json!("wordpress"))),
                ("Hosts", Some(json!(flags.hosts))),
                ("Public", Some(json!(flags.public))),
                ("Admin", text(&flags.admin_backend)),
                ("Ajax", text(&flags.ajax)),
                ("UploadsFallback", flags.no_uploads_fallback.then_some(Value::Bool(false))),
                ("Https", text(&flags.https)),
                ("Hsts", flags.hsts.map(Value::from)),
                ("Acme", (flags.acme || !acme.is_empty()).then_some(Value::Object(acme))),
            ]));
            let path = format!("/v3/sites/{}", segment(&flags.id));
            let key = Key::Site(flags.id.as_str().into());
            let write = Write { method: Method::PUT, path: &path, body: &site, key, field: None };
            upsert(client, output, write).await
        }
    }
}

/// A site whose backends say so where they have no server; as it came from a proxy that does not count them.
fn with_servers(mut site: Value, counts: &Value) -> Value {
    for role in ["Public", "Admin"] {
        let none = |backend: &str| counts.is_object() && counts[backend].as_u64().unwrap_or(0) == 0;
        if let Some(backend) = site[role].as_str().filter(|backend| none(backend)) {
            site[role] = format!("{backend} (no server)").into();
        }
    }
    site
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_without_servers_says_so() {
        let site = json!({ "Public": "p", "Admin": "a" });
        let told = with_servers(site.clone(), &json!({ "p": 2, "a": 0 }));
        assert_eq!(told, json!({ "Public": "p", "Admin": "a (no server)" }));
        assert_eq!(with_servers(site.clone(), &json!({}))["Public"], "p (no server)");
        assert_eq!(with_servers(site.clone(), &Value::Null), site);
    }
}
