//! What a process knows of its servers' health, for the one that replaces it.
//!
//! A server's state is whatever its `Health` says and reads again; here it is only carried, by backend, server and
//! address: a server that has moved meanwhile starts afresh.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::Server;
use crate::table::Table;

/// The state of every server that has one, by backend and server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    backends: BTreeMap<String, BTreeMap<String, SavedServer>>,
}

/// One server's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedServer {
    /// Where it listened.
    url: String,
    state: Value,
}

impl Saved {
    /// The state of a table's servers.
    pub fn of(table: &Table) -> Saved {
        let mut backends: BTreeMap<String, BTreeMap<String, SavedServer>> = BTreeMap::new();
        for backend in table.backends.iter().flatten() {
            for server in &backend.servers {
                if let Some(state) = server.live.health.export() {
                    let servers = backends.entry(backend.id.to_string()).or_default();
                    servers.insert(server.spec.id.to_string(), SavedServer { url: url(server), state });
                }
            }
        }
        Saved { version: VERSION, backends }
    }

    /// Gives the servers of a table their state back; how many took it.
    pub fn restore(&self, table: &Table) -> usize {
        if self.version != VERSION || self.backends.is_empty() {
            return 0;
        }
        let servers = table.backends.iter().flatten().filter_map(|backend| {
            let saved = self.backends.get(&*backend.id)?;
            Some(backend.servers.iter().filter_map(|server| Some((server, saved.get(&*server.spec.id)?))))
        });
        servers
            .flatten()
            .filter(|(server, saved)| saved.url == url(server))
            .fold(0, |taken, (server, saved)| taken + usize::from(server.live.health.import(&saved.state)))
    }
}

fn url(server: &Server) -> String {
    format!("{:?}://{}:{}", server.spec.scheme, server.spec.host, server.spec.port).to_ascii_lowercase()
}

/// Of what `Health` exports: another version's is not read.
const VERSION: u32 = 1;
