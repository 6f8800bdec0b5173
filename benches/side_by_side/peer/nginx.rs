//! nginx at its best for one core: one worker, kept connections to the servers, nothing logged.

use std::path::Path;

use super::{ADMIN_PREFIX, BLOG, Running, SHOP};
use crate::bed::{self, Bed, free_port};
use crate::process::{self, Process};
use crate::tls::Key;

pub(super) fn version() -> Option<String> {
    process::version("nginx", "-v")
}

pub(super) fn start(bed: &Bed, home: &Path, key: Option<Key>) -> anyhow::Result<Running> {
    let address = free_port()?;
    let secure = key.map(|key| Ok::<_, anyhow::Error>((free_port()?, bed.pair(key)))).transpose()?;
    let (listen, first, certificate) = match &secure {
        Some((address, pair)) => {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            let files = format!(
                "ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; \
                 ssl_session_cache shared:tls:10m;"
            );
            (format!("listen {address} ssl;"), format!("listen {address} ssl backlog=4096;"), files)
        }
        None => Default::default(),
    };
    let [one, two] = bed.public;
    let admin = bed.admin;
    let keep = "keepalive 256; keepalive_requests 1000000000; keepalive_timeout 3600s;";
    let head = bed::nginx_head(home);
    let config = format!(
        "{head}
  {certificate}
  upstream public {{ server {one}; server {two}; {keep} }}
  upstream admin {{ server {admin}; {keep} }}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  server {{
    listen {address} backlog=4096; {first}
    server_name {BLOG};
    location {ADMIN_PREFIX} {{ proxy_pass http://admin; }}
    location / {{ proxy_pass http://public; }}
  }}
  server {{
    listen {address}; {listen}
    server_name {SHOP};
    location / {{ proxy_pass http://public; }}
  }}
}}
"
    );
    std::fs::write(home.join("nginx.conf"), config)?;
    let process = Process::start(bed.cores.proxy, bed::nginx(home), &home.join("log"))?;
    Ok(Running::at(process, address, secure.map(|(address, _)| address)))
}
