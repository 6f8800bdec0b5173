//! HAProxy at its best for one core: one thread, server connections always reused, bodies spliced, nothing logged.

use std::path::Path;
use std::process::Command;

use super::{ADMIN_PREFIX, BLOG, Running, SHOP, Setup};
use crate::bed::{Bed, free_port};
use crate::process::{self, Process};

pub(super) fn version() -> Option<String> {
    process::version("haproxy", "-v")
}

pub(super) fn start(bed: &Bed, home: &Path, setup: &Setup) -> anyhow::Result<Running> {
    let address = free_port()?;
    let secure = setup.key.map(|key| Ok::<_, anyhow::Error>((free_port()?, bed.pair(key)))).transpose()?;
    let (bind, proto) = match &secure {
        Some((address, pair)) => {
            let alpn = if setup.http2 { " alpn h2,http/1.1" } else { "" };
            let bind = format!("  bind {address} backlog 4096 ssl crt {}{alpn}\n", pair.both.display());
            (bind, "%[ssl_fc,iif(https,http)]")
        }
        None => (String::new(), "http"),
    };
    let public: String =
        bed.public(setup).iter().enumerate().map(|(number, server)| format!("  server p{number} {server}\n")).collect();
    let admin = bed.admin;
    let config = format!(
        "global
  nbthread 1
  maxconn 12000
  no strict-limits
defaults
  mode http
  http-reuse always
  option forwardfor
  option splice-auto
  option http-keep-alive
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 60s
frontend all
  bind {address} backlog 4096
{bind}  acl blog hdr(host) -i {BLOG}
  acl shop hdr(host) -i {SHOP}
  acl admin path_beg {ADMIN_PREFIX}
  http-request set-header X-Forwarded-Proto {proto}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend admin if blog admin
  use_backend blog if blog
  use_backend shop if shop
backend admin
  server a {admin}
backend blog
  balance roundrobin
{public}backend shop
  balance roundrobin
{public}"
    );
    let file = home.join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let mut command = Command::new("haproxy");
    // In the foreground, without the master process that a service has.
    command.arg("-db").arg("-f").arg(&file);
    let process = Process::start(bed.cores.proxy, command, &home.join("log"))?;
    Ok(Running::at(process, address, secure.map(|(address, _)| address)))
}
