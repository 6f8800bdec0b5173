//! The members of an etcd cluster, and asking one of them.
//!
//! One member is asked as long as it answers; then the next. Connections are made when first needed, and made anew
//! (with password and certificates read again) once one is broken. A request is repeated only if that is safe. Not
//! here: waiting until the cluster is back; that is the caller's.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::Trouble;
use crate::engine::{Error, Options};
use crate::file;

/// The endpoints of one cluster.
pub(super) struct Members {
    list: Vec<Member>,
    /// Whom to ask: an index, modulo their number.
    current: AtomicUsize,
    secure: bool,
    options: Options,
}

struct Member {
    address: String,
    client: Mutex<Option<Client>>,
}

impl Members {
    /// `addresses` are `HOST:PORT`, at least one.
    pub(super) fn new(addresses: &[String], secure: bool, options: Options) -> Members {
        let list = addresses.iter().map(|address| Member { address: address.clone(), client: Mutex::new(None) });
        Members { list: list.collect(), current: AtomicUsize::new(0), secure, options }
    }

    /// Reads everything a connection needs, to tell early what is missing.
    pub(super) async fn check(&self) -> Result<(), Error> {
        self.connect_options().await.map(|_| ())
    }

    /// Asks a member, and others if it does not answer; `repeat` says that asking twice does no harm.
    pub(super) async fn ask<T, F: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        what: &str,
        repeat: bool,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + LONGEST_REQUEST;
        let patience = if repeat && self.list.len() > 1 { LONGEST_REQUEST / 2 } else { LONGEST_REQUEST };
        let mut tries = self.list.len() + 1;
        loop {
            let index = self.current.load(Ordering::Relaxed);
            let Some(member) = self.list.get(index % self.list.len().max(1)) else {
                return Err(Error::Invalid { reason: "etcd needs an endpoint".into() });
            };
            let context = format!("cannot {what} at etcd {}", member.address);
            let attempt = async {
                let client = self.client(member, &context).await?;
                request(client).await.map_err(|error| Trouble::read(&context, error))
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let trouble = match tokio::time::timeout(patience.min(left), attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::silence(&context),
            };
            if trouble.broken {
                self.leave(index, member);
            }
            tries -= 1;
            let refused = matches!(trouble.error, Error::Denied { .. });
            let may = trouble.unsent || (repeat && trouble.broken && !refused);
            if !may || tries == 0 || Instant::now() >= deadline {
                return Err(trouble.error);
            }
        }
    }

    /// Shows the members what the files say now, if one of them takes it, or if none takes what they said before either.
    pub(super) async fn renew(&self) -> Result<(), Error> {
        let options = self.connect_options().await?;
        let tries = self.list.iter().map(|member| {
            let options = options.clone();
            async move {
                let context = format!("cannot show etcd {} what was read again", member.address);
                let attempt = async {
                    let client = self.connect(member, options, &context).await?;
                    let asked = client.maintenance_client().status().await;
                    asked.map(|_| client).map_err(|error| Trouble::read(&context, error))
                };
                let attempt = tokio::time::timeout(LONGEST_CONNECT, attempt).await;
                attempt.unwrap_or_else(|_| Err(Trouble::silence(&context)))
            }
        });
        let tried = futures_util::future::join_all(tries).await;
        if tried.iter().all(Result::is_err) && self.clusters().await.iter().any(Option::is_some) {
            let refused = tried.into_iter().filter_map(Result::err).map(|trouble| trouble.error);
            return refused
                .reduce(|one, other| if matches!(one, Error::Denied { .. }) { one } else { other })
                .map_or(Ok(()), Err);
        }
        for (member, client) in self.list.iter().zip(tried) {
            // Where there is none, one is made when it is needed.
            *member.client.lock().await = client.ok();
        }
        Ok(())
    }

    /// Asks another member next time.
    pub(super) fn avoid_current(&self) {
        let index = self.current.load(Ordering::Relaxed);
        if let Some(member) = self.list.get(index % self.list.len().max(1)) {
            self.leave(index, member);
        }
    }

    /// The cluster each member says it belongs to; `None` for those that do not answer.
    pub(super) async fn clusters(&self) -> Vec<Option<u64>> {
        let ask = self.list.iter().map(|member| async move {
            let status = async { self.client(member, "cluster").await.ok()?.maintenance_client().status().await.ok() };
            let status = tokio::time::timeout(LONGEST_CONNECT, status).await.ok()??;
            Some(status.header()?.cluster_id())
        });
        futures_util::future::join_all(ask).await
    }

    /// The addresses, as in a URL.
    pub(super) fn addresses(&self) -> String {
        self.list.iter().map(|member| member.address.as_str()).collect::<Vec<_>>().join(",")
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    fn leave(&self, index: usize, member: &Member) {
        let next = index.wrapping_add(1);
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        // If somebody holds it, he is just connecting.
        if let Ok(mut client) = member.client.try_lock() {
            *client = None;
        }
    }

    async fn client(&self, member: &Member, context: &str) -> Result<Client, Trouble> {
        let mut slot = member.client.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let options = self.connect_options().await.map_err(Trouble::lasting)?;
        let client = self.connect(member, options, context).await?;
        *slot = Some(client.clone());
        Ok(client)
    }

    async fn connect(&self, member: &Member, options: ConnectOptions, context: &str) -> Result<Client, Trouble> {
        let scheme = if self.secure { "https" } else { "http" };
        let url = format!("{scheme}://{}", member.address);
        Client::connect([url], Some(options)).await.map_err(|error| Trouble::read(context, error))
    }

    async fn connect_options(&self) -> Result<ConnectOptions, Error> {
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(LONGEST_CONNECT)
            .with_timeout(LONGEST_REQUEST)
            .with_keep_alive(PING, LONGEST_PING)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(user) = &self.options.user {
            let Some(path) = &self.options.password_file else {
                return Err(Error::Invalid { reason: format!("etcd user `{user}` has no password file: give one") });
            };
            connect = connect.with_user(user.clone(), text(path).await?.trim_end_matches(['\r', '\n']));
        }
        if self.secure {
            connect = connect.with_tls(self.tls().await?);
        }
        Ok(connect)
    }

    async fn tls(&self) -> Result<TlsOptions, Error> {
        let tls = match &self.options.ca_file {
            Some(path) => TlsOptions::new().ca_certificate(Certificate::from_pem(text(path).await?.as_str())),
            None => TlsOptions::new().with_native_roots(),
        };
        match (&self.options.cert_file, &self.options.key_file) {
            (Some(cert), Some(key)) => {
                Ok(tls.identity(Identity::from_pem(text(cert).await?.as_str(), text(key).await?.as_str())))
            }
            (None, None) => Ok(tls),
            _ => Err(Error::Invalid { reason: "a client certificate and its key belong together: give both".into() }),
        }
    }
}

async fn text(path: &Path) -> Result<Zeroizing<String>, Error> {
    let text = file::text_soon(path.to_owned()).await;
    text.map_err(|error| Error::Invalid { reason: format!("cannot read {}: {error}", path.display()) })
}

const LONGEST_CONNECT: Duration = Duration::from_secs(2);
const LONGEST_REQUEST: Duration = Duration::from_secs(5);
/// Not below etcd's `--grpc-keepalive-min-time`, by default 5 s, or it closes the connection.
const PING: Duration = Duration::from_secs(6);
const LONGEST_PING: Duration = Duration::from_secs(4);
