//! Sockets that a service manager has bound: systemd's `.socket` units, as `sd_listen_fds(3)` passes them.
//!
//! `FileDescriptorName=` says which listener a socket is for: `default` for the first of the command line, `admin` for
//! the admin API, else the name of a stored listener. Sockets without a name are taken for `default`. What has one
//! name and several addresses becomes `NAME`, `NAME-1`, …

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, bail};
use etna_store::object::Id;
use listenfd::ListenFd;

use super::{AdminSocket, Inherited};
use crate::listener::held::Held;

/// Takes what a service manager has passed. Call it once, before there are threads.
pub(super) fn take() -> anyhow::Result<Inherited> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets: Vec<(String, SocketAddr, TcpListener)> = Vec::new();
    let mut admin: Option<OwnedFd> = None;
    for at in 0..passed.len() {
        let name = match names.next().unwrap_or_default() {
            "" | "unknown" => DEFAULT,
            // What systemd calls the sockets of a unit that says nothing.
            unit if unit.ends_with(".socket") => DEFAULT,
            name => name,
        };
        let expected = || format!("what systemd passes as `{name}` is not a stream socket: use ListenStream=");
        if name == ADMIN {
            if admin.is_some() {
                bail!("systemd passes two sockets as `admin`: the admin API has one");
            }
            admin = match passed.take_unix_listener(at) {
                Ok(socket) => socket.map(OwnedFd::from),
                Err(_) => passed.take_tcp_listener(at).with_context(expected)?.map(OwnedFd::from),
            };
        } else if let Some(socket) = passed.take_tcp_listener(at).with_context(expected)? {
            let address = socket.local_addr().with_context(expected)?;
            sockets.push((name.to_owned(), address, socket));
        }
    }
    let admin = admin.map(|socket| AdminSocket { wanted: None, socket });
    Ok(Inherited { sockets: by_listener(sockets), admin, predecessor: None })
}

/// Sockets of one name and address belong to one listener.
fn by_listener(sockets: Vec<(String, SocketAddr, TcpListener)>) -> BTreeMap<Id, Held> {
    let mut addresses: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    let mut listeners: BTreeMap<Id, Held> = BTreeMap::new();
    for (name, address, socket) in sockets {
        let seen = addresses.entry(name.clone()).or_default();
        let number = seen.iter().position(|known| *known == address).unwrap_or_else(|| {
            seen.push(address);
            seen.len() - 1
        });
        let id = if number == 0 { name.clone() } else { format!("{name}-{number}") };
        let new = || Held { wanted: None, own: name == DEFAULT, sockets: Vec::new() };
        listeners.entry(id.into()).or_insert_with(new).sockets.push(socket);
    }
    listeners
}

/// The first listener of the command line.
pub const DEFAULT: &str = "default";
const ADMIN: &str = "admin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_grouped_by_name_and_address() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, two, other) = (bind(), bind(), bind());
        let twice = one.try_clone().unwrap();
        let named = |name: &str, socket: TcpListener| (name.to_owned(), socket.local_addr().unwrap(), socket);
        let listeners = by_listener(vec![
            named("default", one),
            named("web", other),
            named("default", two),
            named("default", twice),
        ]);
        let shape: Vec<(&str, bool, usize)> =
            listeners.iter().map(|(id, held)| (&**id, held.own, held.sockets.len())).collect();
        assert_eq!(shape, [("default", true, 2), ("default-1", true, 1), ("web", false, 1)]);
    }
}
