//! The other side of a connection, for clients that open theirs themselves: it reads a request and answers with bytes.

use std::cell::RefCell;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;

struct Side {
    runtime: Runtime,
    listener: UnixListener,
    path: PathBuf,
}

thread_local! {
    static SIDE: RefCell<Option<Side>> = const { RefCell::new(None) };
}

/// Runs a client to its end, on a socket where every request is answered with these bytes and the connection's end.
///
/// # Panics
/// If the client does, or if no socket can be opened.
pub fn answer(bytes: &[u8], client: impl AsyncFnOnce(PathBuf)) {
    SIDE.with_borrow_mut(|side| {
        let Side { runtime, listener, path } = side.get_or_insert_with(Side::open);
        runtime.block_on(async {
            let serve = async {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let _ = reply(stream, bytes).await;
                }
            };
            tokio::select! {
                () = client(path.clone()) => {}
                () = serve => {}
            }
        });
    });
}

async fn reply(mut stream: UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut request = Vec::new();
    // Closed with something unread, a connection is reset, and takes the answer with it.
    while !is_whole(&request) && stream.read_buf(&mut request).await? > 0 {}
    stream.write_all(bytes).await
}

/// Requests here are small and say how long they are.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.trim().parse().ok()).is_none_or(|length: usize| body.len() >= length)
}

impl Side {
    fn open() -> Side {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let name = format!("etna-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&path).unwrap()
        };
        Side { runtime, listener, path }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
