//! nginx at its best for one core: one worker, kept connections to the servers, nothing logged.

use std::path::Path;

use super::{ADMIN_PREFIX, BLOG, Running, SHOP, Setup};
use crate::bed::{self, Bed, free_port};
use crate::process::{self, Process};

pub(super) fn version() -> Option<String> {
    process::version("nginx", "-v")
}

pub(super) fn start(bed: &Bed, home: &Path, setup: &Setup) -> anyhow::Result<Running> {
    let address = free_port()?;
    let secure = setup.key.map(|key| Ok::<_, anyhow::Error>((free_port()?, bed.pair(key)))).transpose()?;
    let (listen, first, certificate) = match &secure {
        Some((address, pair)) => {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            let files = format!(
                "ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; \
                 ssl_session_cache shared:tls:10m;"
            );
            let http2 = if setup.http2 { " http2" } else { "" };
            (format!("listen {address} ssl{http2};"), format!("listen {address} ssl{http2} backlog=4096;"), files)
        }
        None => Default::default(),
    };
    let public: String = bed.public(setup).iter().map(|server| format!("server {server}; ")).collect();
    // Only where it is asked for: an Upgrade passed on costs a variable for each request.
    let connection = if setup.websocket {
        "proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade;"
    } else {
        "proxy_set_header Connection \"\";"
    };
    let admin = bed.admin;
    let keep = "keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 3600s;";
    let head = bed::nginx_head(home);
    let config = format!(
        "{head}
  {certificate}
  upstream public {{ {public}{keep} }}
  upstream admin {{ server {admin}; {keep} }}
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  proxy_http_version 1.1;
  {connection}
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
