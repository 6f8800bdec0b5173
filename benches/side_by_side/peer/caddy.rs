//! Caddy at its best for one core: one scheduler thread, a raised pool, nothing logged.

use std::path::Path;
use std::process::Command;

use super::{ADMIN_PREFIX, BLOG, Running, SHOP, Setup};
use crate::bed::{Bed, free_port};
use crate::process::{self, Process};

pub(super) fn version() -> Option<String> {
    process::version("caddy", "version").map(|version| format!("Caddy {version}"))
}

pub(super) fn start(bed: &Bed, home: &Path, setup: &Setup) -> anyhow::Result<Running> {
    let address = free_port()?;
    let public: Vec<String> = bed.public(setup).iter().map(ToString::to_string).collect();
    let public = public.join(" ");
    let admin = bed.admin;
    let port = address.port();
    // X-Forwarded-For, -Proto and -Host, and the Host itself, it passes on unasked.
    let mut config = format!(
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
    keepalive_idle_conns 2048
    keepalive_idle_conns_per_host 1024
    compression off
  }}
}}
(public) {{
  bind 127.0.0.1
  reverse_proxy {public} {{
    lb_policy round_robin
    import pool
  }}
}}
(blog) {{
  bind 127.0.0.1
  @admin path {ADMIN_PREFIX}*
  handle @admin {{
    reverse_proxy {admin} {{
      import pool
    }}
  }}
  handle {{
    reverse_proxy {public} {{
      lb_policy round_robin
      import pool
    }}
  }}
}}
http://{BLOG}:{port} {{
  import blog
}}
http://{SHOP}:{port} {{
  import public
}}
"
    );
    let mut secure = None;
    if let Some(key) = setup.key {
        let (address, pair) = (free_port()?, bed.pair(key));
        let tls = format!("  tls {} {}\n", pair.certificate.display(), pair.key.display());
        for (host, what) in [(BLOG, "blog"), (SHOP, "public")] {
            config += &format!("https://{host}:{} {{\n{tls}  import {what}\n}}\n", address.port());
        }
        secure = Some(address);
    }
    let file = home.join("Caddyfile");
    std::fs::write(&file, config)?;
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
    command.env("GOMAXPROCS", "1").env("HOME", home).env("XDG_DATA_HOME", home).env("XDG_CONFIG_HOME", home);
    Ok(Running::at(Process::start(bed.cores.proxy, command, &home.join("log"))?, address, secure))
}
