//! A test's own corner: a turn on the machine, a prefix of an etcd, a folder, and what runs there.
//!
//! Everything a scene starts ends with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{Client, DeleteOptions, Txn, TxnOp};
use serde_json::Value;
use tempfile::TempDir;

use crate::etcd::{Etcd, folder};
use crate::proxy::Proxy;
use crate::report;
use crate::sidekick::Sidekick;
use crate::turn::Turn;

/// A test's own corner.
pub struct Scene {
    /// Below this lie all its keys.
    pub prefix: String,
    /// The etcd it is on.
    pub etcd: Arc<Etcd>,
    client: Client,
    folder: TempDir,
    // Last: the next test starts once everything above is gone.
    _turn: Turn,
}

impl Scene {
    /// On the shared etcd, beside other tests.
    pub async fn open(name: &str) -> Scene {
        let turn = Turn::shared().await;
        Scene::on(name, Etcd::shared().await, turn).await
    }

    /// On the shared etcd, with the machine to itself: for tests that measure.
    pub async fn alone(name: &str) -> Scene {
        let turn = Turn::alone().await;
        Scene::on(name, Etcd::shared().await, turn).await
    }

    /// On an etcd of its own, which it may kill.
    pub async fn with_etcd(name: &str, members: usize) -> Scene {
        let turn = Turn::shared().await;
        Scene::on(name, Arc::new(Etcd::start(members).await), turn).await
    }

    /// On an etcd of its own, with the machine to itself.
    pub async fn alone_with_etcd(name: &str) -> Scene {
        let turn = Turn::alone().await;
        Scene::on(name, Arc::new(Etcd::start(1).await), turn).await
    }

    /// On an etcd made for it, with the machine to itself.
    pub async fn alone_on(name: &str, etcd: Arc<Etcd>) -> Scene {
        let turn = Turn::alone().await;
        Scene::on(name, etcd, turn).await
    }

    async fn on(name: &str, etcd: Arc<Etcd>, turn: Turn) -> Scene {
        report::ran("etcd");
        let client = etcd.client().await;
        Scene { prefix: format!("/test-{name}"), etcd, client, folder: folder(name), _turn: turn }
    }

    /// From now on writes as a user of etcd's.
    pub async fn sign_in(&mut self, user: &str, password: &str) {
        self.client = self.etcd.client_as(user, password).await;
    }

    /// `--store` of this scene.
    pub fn store(&self) -> String {
        self.etcd.store(&self.prefix)
    }

    /// Where its files may lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts an object as JSON; the revision that wrote it.
    pub async fn put(&self, key: &str, value: Value) -> i64 {
        self.put_raw(key.as_bytes(), value.to_string().as_bytes()).await
    }

    /// Puts any bytes under any key.
    pub async fn put_raw(&self, key: &[u8], value: &[u8]) -> i64 {
        let response = self.client.kv_client().put(self.key(key), value, None).await.expect("etcd takes a put");
        response.header().expect("etcd's answers have a header").revision()
    }

    /// Puts an object as JSON, if etcd takes it.
    pub async fn try_put(&self, key: &str, value: Value) -> Result<i64, String> {
        let put = self.client.kv_client().put(self.key(key.as_bytes()), value.to_string(), None).await;
        Ok(put.map_err(|error| error.to_string())?.header().expect("etcd's answers have a header").revision())
    }

    /// Puts and deletes at one revision.
    pub async fn change(&self, changes: Vec<(String, Option<Value>)>) -> i64 {
        let ops: Vec<TxnOp> = changes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => TxnOp::put(self.key(key.as_bytes()), value.to_string(), None),
                None => TxnOp::delete(self.key(key.as_bytes()), None),
            })
            .collect();
        let response = self.client.kv_client().txn(Txn::new().and_then(ops)).await.expect("etcd takes a transaction");
        response.header().expect("etcd's answers have a header").revision()
    }

    /// Puts many objects; those of one chunk of a thousand at one revision.
    pub async fn put_all(&self, objects: impl IntoIterator<Item = (String, Value)>) -> i64 {
        let mut puts = objects
            .into_iter()
            .map(|(key, value)| TxnOp::put(self.key(key.as_bytes()), value.to_string(), None))
            .peekable();
        let mut revision = 0;
        while puts.peek().is_some() {
            let txn = Txn::new().and_then(puts.by_ref().take(1000).collect::<Vec<_>>());
            let response = self.client.kv_client().txn(txn).await.expect("etcd takes a transaction");
            revision = response.header().expect("etcd's answers have a header").revision();
        }
        revision
    }

    /// Deletes exactly one key; the revision at which it is gone.
    pub async fn delete(&self, key: &str) -> i64 {
        self.delete_raw(key.as_bytes()).await
    }

    /// Deletes a key of any bytes.
    pub async fn delete_raw(&self, key: &[u8]) -> i64 {
        let response = self.client.kv_client().delete(self.key(key), None).await.expect("etcd takes a delete");
        response.header().expect("etcd's answers have a header").revision()
    }

    /// Deletes everything below a path.
    pub async fn delete_below(&self, path: &str) {
        let options = DeleteOptions::new().with_prefix();
        let key = self.key(path.as_bytes());
        self.client.kv_client().delete(key, Some(options)).await.expect("etcd takes a delete");
    }

    /// The keys below a path, with their values.
    pub async fn below(&self, path: &str) -> Vec<(String, Bytes)> {
        let options = etcd_client::GetOptions::new().with_prefix();
        let key = self.key(path.as_bytes());
        let response = self.client.kv_client().get(key, Some(options)).await.expect("etcd answers");
        let shown = |key: &[u8]| String::from_utf8_lossy(&key[self.prefix.len() + 1..]).into_owned();
        response.kvs().iter().map(|kv| (shown(kv.key()), Bytes::copy_from_slice(kv.value()))).collect()
    }

    /// A backend with the servers given by id and address, and everything of one host leading to it.
    pub async fn route(&self, id: &str, host: &str, servers: &[(&str, std::net::SocketAddr)]) -> i64 {
        for (server, address) in servers {
            self.put(&server_key(id, server), server_at(*address)).await;
        }
        self.put(&frontend_key(id), frontend(&format!("Host(`{host}`)"), id)).await
    }

    /// Starts a proxy that follows this scene, and waits until it is ready.
    pub async fn proxy(&self, name: &str) -> Proxy {
        self.proxy_with(name, &[]).await
    }

    /// The same with more flags.
    pub async fn proxy_with(&self, name: &str, flags: &[&str]) -> Proxy {
        Proxy::start(name, &self.store(), flags, self.folder.path()).await
    }

    /// Starts a proxy from a copy of the program, at the path that is given back: what is put there replaces it.
    pub async fn upgradable(&self, name: &str, flags: &[&str]) -> (Proxy, PathBuf) {
        let program = self.folder.path().join("bin-etna");
        std::fs::copy(crate::binaries::binary("etna"), &program).expect("the program can be copied");
        let proxy = Proxy::start_upgradable(name, &program, &self.store(), flags, self.folder.path()).await;
        (proxy, program)
    }

    /// Starts a sidekick that registers in this scene.
    pub async fn sidekick(&self, name: &str, flags: &[&str]) -> Sidekick {
        Sidekick::start(name, &self.store(), flags, self.folder.path()).await
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), b"/", key].concat()
    }
}

/// The key of a frontend.
pub fn frontend_key(id: &str) -> String {
    format!("frontends/{id}/frontend")
}

/// The key of a server.
pub fn server_key(backend: &str, id: &str) -> String {
    format!("backends/{backend}/servers/{id}")
}

/// A frontend's value.
pub fn frontend(route: &str, backend: &str) -> Value {
    serde_json::json!({ "Type": "http", "BackendId": backend, "Route": route, "Settings": { "PassHostHeader": true } })
}

/// A server's value.
pub fn server_at(address: std::net::SocketAddr) -> Value {
    serde_json::json!({ "URL": format!("http://{address}") })
}
