//! nginx at its best for one core: one worker, kept connections to the servers, nothing logged.

use std::path::Path;

use super::{ADMIN_PREFIX, BLOG, Running, SHOP};
use crate::bed::{self, Bed, free_port};
use crate::process::{self, Process};

pub(super) fn version() -> Option<String> {
    process::version("nginx", "-v")
}

pub(super) fn start(bed: &Bed, home: &Path) -> anyhow::Result<Running> {
    let address = free_port()?;
    let [one, two] = bed.public;
    let admin = bed.admin;
    let keep = "keepalive 256; keepalive_requests 1000000000; keepalive_timeout 3600s;";
    let head = bed::nginx_head(home);
    let config = format!(
        "{head}
  upstream public {{ server {one}; server {two}; {keep} }}
  upstream admin {{ server {admin}; {keep} }}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  server {{
    listen {address} backlog=4096;
    server_name {BLOG};
    location {ADMIN_PREFIX} {{ proxy_pass http://admin; }}
    location / {{ proxy_pass http://public; }}
  }}
  server {{
    listen {address};
    server_name {SHOP};
    location / {{ proxy_pass http://public; }}
  }}
}}
"
    );
    std::fs::write(home.join("nginx.conf"), config)?;
    Ok(Running { process: Process::start(bed.cores.proxy, bed::nginx(home), &home.join("log"))?, address })
}
