//! The admin side: health, metrics, status, problems, explain, the stored objects, and the store itself for others.
//!
//! It reads the control loop's [`State`] and writes to the store, never to the table. Every
//! request passes `guard.rs`; sockets and their bounds are in `listen.rs`. Endpoints answer JSON, errors included.

mod audit;
mod explain;
mod exposition;
mod guard;
mod health;
mod listen;
mod metrics;
pub mod objects;
mod openapi;
mod page;
mod places;
mod reply;
mod status;
pub mod store_api;
mod suspects;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use crate::config::{AdminAddress, Config};
use crate::control::State;
use crate::handover::AdminSocket;
use guard::Guard;
use listen::Socket;
pub use reply::Refusal;
pub use token::Shown;

/// The admin API, bound and not yet serving.
pub struct Admin {
    address: AdminAddress,
    /// What was asked for; `None` where the service manager has chosen it.
    wanted: Option<String>,
    socket: Socket,
    router: Router,
    token: Arc<Shown>,
    stop: CancellationToken,
}

/// Binds the admin API's address. Refuses to be reachable from elsewhere without a token.
pub async fn bind(config: &Config, state: Arc<State>) -> anyhow::Result<Admin> {
    bind_or_adopt(config, state, None).await
}

/// The same on a socket that is bound already, if it is for the address asked for.
pub async fn bind_or_adopt(
    config: &Config,
    state: Arc<State>,
    inherited: Option<AdminSocket>,
) -> anyhow::Result<Admin> {
    let token = Shown::read(config.admin_token_file.clone())?;
    let asked = config.admin.to_string();
    let inherited = inherited.filter(|socket| socket.wanted.as_ref().is_none_or(|wanted| *wanted == asked));
    let (wanted, adopted) = match inherited {
        Some(inherited) => (inherited.wanted.clone(), Some(listen::adopt(inherited)?)),
        None => (Some(asked), None),
    };
    let address = adopted.as_ref().map_or(&config.admin, |(_, address)| address);
    address.check(token.is_set())?;
    let (socket, address) = match adopted {
        Some(adopted) => adopted,
        None => listen::bind(&config.admin).await?,
    };
    let router = router(state, Guard { token: token.clone() });
    Ok(Admin { address, wanted, socket, router, token, stop: CancellationToken::new() })
}

impl Admin {
    /// What was bound.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// One more handle on its socket, for a process that replaces this one.
    pub fn share(&self) -> std::io::Result<AdminSocket> {
        Ok(AdminSocket { wanted: self.wanted.clone(), socket: self.socket.share()? })
    }

    /// What callers must show.
    pub fn token(&self) -> Arc<Shown> {
        self.token.clone()
    }

    /// Cancelled to make it end because another process serves in its place.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Serves until the process ends.
    pub async fn serve(self) {
        listen::serve(self.socket, self.router, self.stop).await;
    }
}

fn router(state: Arc<State>, guard: Guard) -> Router {
    let store = store_api::router(state.engine.clone());
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(status::live))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/status", get(status::vulcand))
        .route("/v2/status", get(status::vulcand))
        .route("/v3/status", get(status::status))
        .route("/v3/problems", get(status::problems))
        .route("/v3/explain", get(explain::explain))
        .route("/v3/suspects", get(suspects::list))
        .route("/v3/suspects/release", post(suspects::release))
        .route("/v3/health", get(health::health))
        .route("/v3/openapi.json", get(openapi::openapi))
        .merge(objects::router())
        .with_state(state)
        .merge(store)
        // As vulcand: a wrong method is a wrong path.
        .fallback(async || Refusal::not_found())
        .method_not_allowed_fallback(async || Refusal::not_found())
        .layer(DefaultBodyLimit::max(guard::LONGEST_BODY))
        .layer(from_fn_with_state(Arc::new(guard), guard::pass))
}
