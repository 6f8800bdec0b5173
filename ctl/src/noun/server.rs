//! `etnactl server`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use etna_store::Key;
use http::Method;
use serde_json::{Value, json};

use super::{Done, Held, One, Write, given, remove, show, table, text, upsert, with_remedy};
use crate::client::{Client, segment};
use crate::output::{Output, Tone, cell, clean, print};
use crate::stored;

/// What can be done with servers.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List those of a backend, or of all.
    #[command(after_help = "Example:\n  etnactl server ls -b blog")]
    Ls {
        /// The backend.
        #[arg(short, long)]
        backend: Option<String>,
    },
    /// Show one.
    #[command(after_help = "Example:\n  etnactl server show -b blog one")]
    Show {
        /// Its backend.
        #[arg(short, long)]
        backend: String,
        #[command(flatten)]
        one: One,
    },
    /// Create one, or replace all of one: what is not given is removed.
    Upsert(Upsert),
    /// Give it no new work: it finishes what it has, and keeps its sticky clients for the backend's DrainTimeout.
    #[command(after_help = "Example:\n  etnactl server drain -b blog one    # and `server up` to undo it")]
    Drain {
        /// Its backend.
        #[arg(short, long)]
        backend: String,
        #[command(flatten)]
        one: One,
    },
    /// Give it work again.
    #[command(after_help = "Example:\n  etnactl server up -b blog one")]
    Up {
        /// Its backend.
        #[arg(short, long)]
        backend: String,
        #[command(flatten)]
        one: One,
    },
    /// Delete one.
    #[command(after_help = "Example:\n  etnactl server rm -b blog one")]
    Rm {
        /// Its backend.
        #[arg(short, long)]
        backend: String,
        #[command(flatten)]
        one: One,
    },
}

/// Flags of `server upsert`.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    etnactl server upsert -b blog --id one --url http://10.0.0.1:8080 --ttl 30s")]
pub(crate) struct Upsert {
    /// Its id.
    #[arg(long)]
    id: String,
    /// Its backend.
    #[arg(short, long)]
    backend: String,
    /// Where it listens: http://HOST:PORT.
    #[arg(long)]
    url: String,
    /// Time after which it is gone, unless it is put again [default: never].
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Its share of the traffic, 0 to 256.
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Its tier: a higher one serves only when no lower one can.
    #[arg(long, value_name = "N")]
    priority: Option<u32>,
    /// Where it stands: proxies with the same --zone prefer it.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Whether it takes new work; of a server that is there, `server drain` changes only this.
    #[arg(long, value_parser = ["up", "draining"])]
    state: Option<String>,
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls { backend } => ls(client, output, backend.as_deref()).await,
        Verb::Show { backend, one } => {
            let key = Key::Server(backend.as_str().into(), one.id().into());
            show(client, output, &path(backend, &one.segment()), &key).await
        }
        Verb::Rm { backend, one } => {
            let key = Key::Server(backend.as_str().into(), one.id().into());
            remove(client, output, &path(backend, &one.segment()), &key).await
        }
        Verb::Upsert(flags) => {
            let server = given([
                ("Id", Some(json!(flags.id))),
                ("URL", Some(json!(flags.url))),
                ("Weight", flags.weight.map(Value::from)),
                ("Priority", flags.priority.map(Value::from)),
                ("Zone", text(&flags.zone)),
                ("State", text(&flags.state)),
            ]);
            let body = json!({ "Server": server, "TTL": flags.ttl.as_deref().unwrap_or_default() });
            let path = format!("/v2/backends/{}/servers", segment(&flags.backend));
            let key = Key::Server(flags.backend.as_str().into(), flags.id.as_str().into());
            let write = Write { method: Method::POST, path: &path, body: &body, key, field: Some("Server") };
            upsert(client, output, write).await
        }
        Verb::Drain { backend, one } => set_state(client, output, backend, one.id(), stored::DRAINING).await,
        Verb::Up { backend, one } => set_state(client, output, backend, one.id(), stored::UP).await,
    }
}

async fn set_state(client: &Client, output: &Output, backend: &str, id: &str, state: &str) -> Done {
    let changed = stored::set_state(client, backend, id, state).await?;
    if output.is_json() {
        output.json(&json!({ "Id": id, "State": state, "Changed": changed }));
    } else {
        let already = if changed { "" } else { " already" };
        print(&format!("{} {} is {state}{already}\n", output.toned(Tone::Good, "ok"), clean(id)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn ls(client: &Client, output: &Output, backend: Option<&str>) -> Done {
    let backends = match backend {
        Some(backend) => {
            // An unknown one has no servers; its owner wants to hear of the slip.
            let key = Key::Backend(backend.into());
            let asked = client.get(&format!("/v2/backends/{}", segment(backend))).await;
            asked.map_err(|failure| with_remedy(failure, &key))?;
            vec![backend.to_owned()]
        }
        None => {
            let answer = client.get("/v2/backends").await?;
            let backends = answer["Backends"].as_array().map(Vec::as_slice).unwrap_or_default();
            backends.iter().filter_map(|backend| backend["Id"].as_str()).map(str::to_owned).collect()
        }
    };
    let held = Held::ask(client).await;
    let mut servers = Vec::new();
    for backend in backends {
        let mut answer = client.get(&format!("/v2/backends/{}/servers", segment(&backend))).await?;
        let health = health(client, &backend).await;
        for mut server in answer["Servers"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            server["Backend"] = backend.as_str().into();
            let id = server["Id"].as_str().unwrap_or_default();
            if held.of(&Key::Server(backend.as_str().into(), id.into())).is_some() {
                server["Suspect"] = true.into();
            }
            if let Some(health) = server["Id"].as_str().and_then(|id| health.get(id)) {
                server["Health"] = health.as_str().into();
            }
            servers.push(server);
        }
    }
    if output.is_json() {
        output.json(&Value::Array(servers));
    } else {
        let columns = [
            ("BACKEND", "Backend"),
            ("ID", "Id"),
            ("URL", "URL"),
            ("WEIGHT", "Weight"),
            ("STATE", "State"),
            ("HEALTH", "Health"),
        ];
        for server in &mut servers {
            // What is not said is the default; people want to see it.
            for (field, default) in [("Weight", json!(1)), ("State", json!("up"))] {
                if server[field].is_null() {
                    server[field] = default;
                }
            }
            if server["Suspect"] == true {
                server["State"] = format!("{}, suspect", cell(&server["State"])).into();
            }
        }
        table(output, &servers, &columns);
    }
    Ok(ExitCode::SUCCESS)
}

/// What the proxy knows of a backend's servers, by id: `up`, `down: timeout`. None from a proxy that does not say.
async fn health(client: &Client, backend: &str) -> BTreeMap<String, String> {
    let answer = client.get(&format!("/v3/health?backend={}", segment(backend))).await.unwrap_or_default();
    let servers = answer["backends"][0]["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |server: &Value| {
        let (id, word) = (server["id"].as_str()?, server["health"].as_str()?);
        let reason = server["reason"].as_str().filter(|reason| !matches!(*reason, "ok" | "starting"));
        Some((id.to_owned(), reason.map_or(word.to_owned(), |reason| format!("{word}: {reason}"))))
    };
    servers.iter().filter_map(told).collect()
}

fn path(backend: &str, server: &str) -> String {
    format!("/v2/backends/{}/servers/{server}", segment(backend))
}
