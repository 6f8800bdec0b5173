//! `etna stand-in`: what stands in for a WordPress container in the demo. It answers every request with its id; a
//! public one refuses the admin pages, as a WordPress container whose admin is disabled does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// Flags of `etna stand-in`.
#[derive(Args)]
pub(super) struct Flags {
    /// Address to listen on; the address that was bound is the first line of output.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Who it says it is [default: the host name].
    #[arg(long)]
    id: Option<String>,
    /// Whether it serves the admin pages.
    #[arg(long, value_enum, default_value_t = Role::Public)]
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Public,
    Admin,
}

/// Serves until told to stop, or until whoever started it is gone.
pub(super) fn run(flags: Flags) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(flags))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn serve(flags: Flags) -> std::io::Result<()> {
    let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let id = flags.id.clone().unwrap_or_else(hostname);
    let listener = TcpListener::bind(flags.listen).await?;
    announce(listener.local_addr()?);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let parent_gone = parent_gone();
    tokio::pin!(parent_gone);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let id = id.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let response = answer(&id, flags.role, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
            () = &mut parent_gone => return Ok(()),
        }
    }
}

/// Ends when a piped standard input does. Without a pipe (in a container) it never does.
async fn parent_gone() {
    // Opened anew, so that reading it can be left without a thread that waits.
    let Ok(mut pipe) = pipe::OpenOptions::new().open_receiver("/proc/self/fd/0") else {
        return std::future::pending().await;
    };
    let mut buffer = [0; 64];
    while pipe.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

fn answer(id: &str, role: Role, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let is_admin_page = path.split('/').any(|segment| matches!(segment, "wp-admin" | "wp-login.php"));
    let refused = role == Role::Public && is_admin_page;
    let mut response = Response::new(Full::from(page(id, role, path, refused)));
    if refused {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if let Ok(id) = http::HeaderValue::from_str(id) {
        headers.insert("x-backend", id);
    }
    response
}

fn page(id: &str, role: Role, path: &str, refused: bool) -> String {
    let role = match role {
        Role::Public => "public container",
        Role::Admin => "admin container",
    };
    let hue = hue(id);
    let text = if refused { "refuses the admin pages" } else { "answered" };
    let path: String = path.chars().take(80).flat_map(escape).collect();
    let id: String = id.chars().flat_map(escape).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{id}</title>\
         <style>body{{font:18px system-ui,sans-serif;margin:0;display:grid;place-items:center;height:100vh;\
         background:hsl({hue} 55% 92%);color:hsl({hue} 60% 20%)}}h1{{font-size:3rem;margin:.2em 0}}\
         code{{font-size:1rem}}</style><main><p>{role}</p><h1>{id}</h1><p>{text} <code>{path}</code></p>\
         <p><a href=\"/\">/</a> &middot; <a href=\"/wp-admin/\">/wp-admin/</a> &middot; refresh to ask again</p></main>\n"
    )
}

/// A colour of its own, in degrees, so that a change is seen before it is read: names that follow each other are the
/// golden angle apart.
fn hue(id: &str) -> u32 {
    let number = id.bytes().fold(7u32, |number, byte| number.wrapping_mul(31).wrapping_add(u32::from(byte)));
    ((number.wrapping_mul(0x9e37_79b9) >> 16) * 360) >> 16
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let text = match c {
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '&' => "&amp;".to_owned(),
        '"' => "&quot;".to_owned(),
        other => other.to_string(),
    };
    text.chars().collect::<Vec<_>>().into_iter()
}

#[expect(clippy::print_stdout, reason = "whoever started it reads this line")]
fn announce(address: SocketAddr) {
    println!("{address}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_of_the_demo_differ_in_colour() {
        let hues: Vec<u32> = ["public-1", "public-2", "admin"].map(hue).to_vec();
        for (at, a) in hues.iter().enumerate() {
            for b in &hues[at + 1..] {
                let apart = a.abs_diff(*b).min(360 - a.abs_diff(*b));
                assert!(*a < 360 && apart > 60, "{hues:?}");
            }
        }
    }
}
