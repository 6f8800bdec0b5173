//! How a peer is set up for a scenario: what differs from the usual.

use crate::tls::Key;

/// What a scenario wants of a peer. The default is what most are measured with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// With which key TLS is spoken, beside what is in the clear; it is what is measured then.
    pub(crate) key: Option<Key>,
    /// Whether HTTP/2 is offered there, too.
    pub(crate) http2: bool,
    /// Whether WebSockets pass.
    pub(crate) websocket: bool,
    /// What stands behind.
    pub(crate) servers: Servers,
    /// Of Etna alone.
    pub(crate) etna: Etna,
}

/// The public servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Servers {
    /// Two of nginx, which answer from memory.
    #[default]
    Nginx,
    /// So many of ours, which also take uploads, wait, and echo.
    Ours(usize),
}

impl Servers {
    /// How many of ours.
    pub(crate) fn of_ours(self) -> usize {
        match self {
            Servers::Nginx => 0,
            Servers::Ours(number) => number,
        }
    }
}

/// What only Etna is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Etna {
    /// Frontends beside the usual three: `h0.test`, `h1.test`, … all lead to the public servers.
    pub(crate) frontends: usize,
    /// Where they are.
    pub(crate) store: Store,
    /// What is on.
    pub(crate) with: With,
    /// Workers; with two, both cores are used.
    pub(crate) workers: Workers,
}

/// Where the configuration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Store {
    /// In Etna itself.
    #[default]
    Embedded,
    /// In an etcd that runs beside the load.
    Etcd,
}

/// What is on that need not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// These flags.
    Flags(&'static [&'static str]),
    /// The blog is a WordPress site; its public backend is sticky, and its servers have a limit and a queue.
    Site,
    /// The blog has a rate limit and a limit of connections, both never reached.
    Limits,
}

impl Default for With {
    fn default() -> With {
        With::Flags(&[])
    }
}

/// How many workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Workers {
    /// One, on the proxy's core.
    #[default]
    One,
    /// Two, on the proxy's core and the load's.
    Two,
}
