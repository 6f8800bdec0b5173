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
mod objects;
mod page;
mod reply;
mod status;
pub mod store_api;
mod suspects;
mod token;

use std::sync::Arc;

use anyhow::bail;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::config::{AdminAddress, Config};
use crate::control::State;
use guard::Guard;
use listen::Socket;
use reply::Refusal;
use token::Token;

/// The admin API, bound and not yet serving.
pub struct Admin {
    address: AdminAddress,
    socket: Socket,
    router: Router,
}

/// Binds the admin API's address. Refuses to be reachable from elsewhere without a token.
pub async fn bind(config: &Config, state: Arc<State>) -> anyhow::Result<Admin> {
    let token = config.admin_token_file.as_deref().map(Token::read).transpose()?;
    if let (AdminAddress::Tcp(address), None) = (&config.admin, &token)
        && !address.ip().to_canonical().is_loopback()
    {
        bail!(
            "the admin API on {address} would be open to the network: give it a token with --admin-token-file (make \
             one with `openssl rand -hex 32`), or listen on 127.0.0.1 or unix:/PATH"
        );
    }
    let (socket, address) = listen::bind(&config.admin).await?;
    Ok(Admin { address, socket, router: router(state, Guard { token }) })
}

impl Admin {
    /// What was bound.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Serves until the process ends.
    pub async fn serve(self) {
        listen::serve(self.socket, self.router).await;
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
        .merge(objects::router())
        .with_state(state)
        .merge(store)
        // As vulcand: a wrong method is a wrong path.
        .fallback(async || Refusal::not_found())
        .method_not_allowed_fallback(async || Refusal::not_found())
        .layer(DefaultBodyLimit::max(guard::LONGEST_BODY))
        .layer(from_fn_with_state(Arc::new(guard), guard::pass))
}
