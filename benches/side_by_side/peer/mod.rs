//! The peers. Each serves the same three routes: `blog.test/wp-admin…` → the admin server, the rest of `blog.test` and
//! all of `shop.test` → the two public servers in turn; each passes Host on and says whom it forwards for.
//!
//! A new peer is one file here with `version` and `start`, and an arm in [`Kind`].

mod caddy;
pub(crate) mod etna;
pub(crate) mod floor;
mod haproxy;
mod nginx;
mod setup;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;

use crate::bed::{Bed, eventually};
use crate::http;
use crate::process::Process;

pub(crate) use setup::{Etna, Servers, Setup, Store, With, Workers};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Ours.
    Etna,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
    /// Caddy.
    Caddy,
    /// A relay that looks at no byte: what sockets cost.
    Floor,
}

impl Kind {
    /// All, in the order in which a round runs them.
    pub(crate) const ALL: &[Kind] = &[Kind::Etna, Kind::Haproxy, Kind::Nginx, Kind::Caddy, Kind::Floor];

    /// As the command line and the report say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Etna => "etna",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Caddy => "caddy",
            Kind::Floor => "floor",
        }
    }

    /// Whether ours is compared with it.
    pub(crate) fn is_rival(self) -> bool {
        matches!(self, Kind::Haproxy | Kind::Nginx | Kind::Caddy)
    }

    /// What it says of its version; `None` if it is not installed.
    pub(crate) fn version(self, etna: &Path) -> Option<String> {
        match self {
            Kind::Etna => etna::version(etna),
            Kind::Haproxy => haproxy::version(),
            Kind::Nginx => nginx::version(),
            Kind::Caddy => caddy::version(),
            Kind::Floor => Some("byte relay, tokio current_thread".to_owned()),
        }
    }

    /// Starts it on the proxy's core and waits until every route answers as it should.
    /// With a key, TLS is spoken there beside what is in the clear, and that is what is measured.
    pub(crate) async fn start(self, bed: &Bed, setup: &Setup) -> anyhow::Result<Running> {
        let home = bed.directory(self.name())?;
        let mut running = match self {
            Kind::Etna => etna::start(bed, &home, setup).await,
            Kind::Haproxy => haproxy::start(bed, &home, setup),
            Kind::Nginx => nginx::start(bed, &home, setup),
            Kind::Caddy => caddy::start(bed, &home, setup),
            Kind::Floor => floor::start(bed, &home, setup).await,
        }
        .with_context(|| format!("cannot start {}", self.name()))?;
        let routes: &[Route] = if self == Kind::Floor { &[] } else { ROUTES };
        let address = running.address;
        for route in routes {
            eventually(&mut running.process, async || route.is_served(address).await)
                .await
                .with_context(|| format!("{} does not serve {}{}", self.name(), route.host, route.path))?;
        }
        if let (Some(_), Some(secure)) = (setup.key, running.secure) {
            running.address = secure;
            running.is_tls = true;
        }
        Ok(running)
    }
}

/// A started peer.
pub(crate) struct Running {
    pub(crate) process: Process,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(crate) secure: Option<SocketAddr>,
    /// Whether it is measured there.
    pub(crate) is_tls: bool,
}

impl Running {
    fn at(process: Process, address: SocketAddr, secure: Option<SocketAddr>) -> Running {
        Running { process, address, secure, is_tls: false }
    }
}

/// The hosts that are served.
pub(crate) const BLOG: &str = "blog.test";
pub(crate) const SHOP: &str = "shop.test";
/// What of the blog goes to the admin server.
pub(crate) const ADMIN_PREFIX: &str = "/wp-admin";

/// A request, and the server that must have answered it.
struct Route {
    host: &'static str,
    path: &'static str,
    server: &'static str,
}

const ROUTES: &[Route] = &[
    Route { host: BLOG, path: "/check", server: "public" },
    Route { host: BLOG, path: "/wp-admin/check", server: "admin" },
    Route { host: SHOP, path: "/check", server: "public" },
    Route { host: SHOP, path: "/wp-admin/check", server: "public" },
];

impl Route {
    /// Whether the right server answered, and was told what it has to be told.
    async fn is_served(&self, address: SocketAddr) -> anyhow::Result<bool> {
        let answer = http::get(address, self.host, self.path).await?;
        let expected = format!("{} host={} for=127.0.0.1", self.server, self.host);
        // A body of unknown length is framed in chunks, which this client does not take apart.
        anyhow::ensure!(
            answer.status == 200 && answer.body.contains(&expected),
            "expected {expected:?}, got {} {:?}",
            answer.status,
            answer.body
        );
        Ok(true)
    }
}
