//! Caddy at its best for one core: one scheduler thread, a raised pool, nothing logged.

use std::path::Path;
use std::process::Command;

use super::{ADMIN_PREFIX, BLOG, Running, SHOP};
use crate::bed::{Bed, free_port};
use crate::process::{self, Process};

pub(super) fn version() -> Option<String> {
    process::version("caddy", "version").map(|version| format!("Caddy {version}"))
}

pub(super) fn start(bed: &Bed, home: &Path) -> anyhow::Result<Running> {
    let address = free_port()?;
    let [one, two] = bed.public;
    let admin = bed.admin;
    let port = address.port();
    // X-Forwarded-For, -Proto and -Host, and the Host itself, it passes on unasked.
    let config = format!(
        "{{
  admin off
  auto_https off
  log {{
    output discard
  }}
}}
(pool) {{
  transport http {{
    keepalive 1h
    keepalive_idle_conns 512
    keepalive_idle_conns_per_host 256
    compression off
  }}
}}
(public) {{
  reverse_proxy {one} {two} {{
    lb_policy round_robin
    import pool
  }}
}}
http://{BLOG}:{port} {{
  bind 127.0.0.1
  @admin path {ADMIN_PREFIX}*
  handle @admin {{
    reverse_proxy {admin} {{
      import pool
    }}
  }}
  handle {{
    import public
  }}
}}
http://{SHOP}:{port} {{
  bind 127.0.0.1
  import public
}}
"
    );
    let file = home.join("Caddyfile");
    std::fs::write(&file, config)?;
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
    command.env("GOMAXPROCS", "1").env("HOME", home).env("XDG_DATA_HOME", home).env("XDG_CONFIG_HOME", home);
    Ok(Running::at(Process::start(bed.cores.proxy, command, &home.join("log"))?, address, None))
}
