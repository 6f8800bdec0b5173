//! Bytes that go from one socket to another without leaving the kernel: through a pipe, by splice(2).
//!
//! Pipes are a worker's, and a transfer has one only while bytes of its own are in it. A pipe that is given back with
//! bytes in it is closed, so that they never come out on another connection. Knows nothing of messages: how many bytes
//! belong to one is for whoever asks to say.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The pipes of a worker.
#[derive(Debug, Default)]
pub struct Pipes {
    empty: RefCell<Vec<Rc<Ends>>>,
    /// How many are in use.
    taken: Cell<usize>,
    /// How often one may be asked for in vain before another is opened, after that has failed.
    vain: Cell<u32>,
    /// Whether the kernel, or what guards it, does none of this.
    refused: Cell<bool>,
}

/// A pipe, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    ends: Rc<Ends>,
    held: usize,
    pipes: Rc<Pipes>,
}

#[derive(Debug)]
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipes {
    /// An empty pipe; `None` where there are enough, or no more can be had: then bytes have to be copied.
    pub fn take(self: &Rc<Pipes>) -> Option<Pipe> {
        if self.taken.get() == MOST || self.refused.get() {
            return None;
        }
        let kept = self.empty.borrow_mut().pop();
        let ends = kept.or_else(|| self.open())?;
        self.taken.set(self.taken.get() + 1);
        Some(Pipe { ends, held: 0, pipes: self.clone() })
    }

    fn open(&self) -> Option<Rc<Ends>> {
        let vain = self.vain.get();
        if vain > 0 {
            self.vain.set(vain - 1);
            return None;
        }
        let opened = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).and_then(|(out, into)| {
            // What a user without privileges may have in pipes is limited; in a short one, copying is no dearer.
            fcntl_setpipe_size(&into, LONGEST)?;
            Ok(Rc::new(Ends { out, into }))
        });
        match opened {
            Ok(ends) => Some(ends),
            Err(error) => {
                tracing::debug!(%error, "no pipe can be had: long bodies are copied");
                self.vain.set(VAIN);
                None
            }
        }
    }
}

impl Pipe {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes at most `most` bytes of what has come on a connection, and says how many; 0: it has ended. For an empty pipe.
    /// [`ErrorKind::Unsupported`]: nothing was taken and nothing is wrong with the connection, but bytes have to be
    /// copied, here and from now on.
    pub fn poll_fill(&mut self, from: &TcpStream, most: u64, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(LONGEST);
        let taken = ready!(poll(cx, TcpStream::poll_read_ready, from, Interest::READABLE, || {
            splice(from, None, &self.ends.into, None, most, SpliceFlags::NONBLOCK).inspect_err(|error| {
                // Some sandboxes forbid what they do not know.
                if matches!(*error, Errno::NOSYS | Errno::PERM | Errno::INVAL) {
                    self.pipes.refused.set(true);
                }
            })
        }));
        if self.pipes.refused.get() && taken.is_err() {
            tracing::warn!("splice(2) is refused: long bodies are copied");
            return Poll::Ready(Err(ErrorKind::Unsupported.into()));
        }
        let taken = taken?;
        self.held += taken;
        Poll::Ready(Ok(taken))
    }

    /// Has a connection take some of what is in it, and says how much. For one that is not empty.
    pub fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let given = ready!(poll(cx, TcpStream::poll_write_ready, to, Interest::WRITABLE, || {
            splice(&self.ends.out, None, to, None, self.held, SpliceFlags::NONBLOCK)
        }))?;
        if given == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        self.held = self.held.saturating_sub(given);
        Poll::Ready(Ok(given))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pipes.taken.set(self.pipes.taken.get() - 1);
        let mut empty = self.pipes.empty.borrow_mut();
        if self.held == 0 && empty.len() < MOST_EMPTY {
            empty.push(self.ends.clone());
        }
    }
}

/// Tries until a connection has something to say to it, or can be waited for.
fn poll(
    cx: &mut Context<'_>,
    poll_ready: fn(&TcpStream, &mut Context<'_>) -> Poll<io::Result<()>>,
    stream: &TcpStream,
    interest: Interest,
    mut attempt: impl FnMut() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        match stream.try_io(interest, || attempt().map_err(io::Error::from)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(poll_ready(stream, cx))?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

/// With less than that to come, a pipe costs more calls than it saves copies.
pub const WORTHWHILE: u64 = 64 * 1024;
/// Bytes that are taken at once.
const LONGEST: usize = 256 * 1024;
/// Pipes of a worker that hold something: clients that read slowly keep theirs for long, and together no more than 16 MiB.
const MOST: usize = 64;
/// Pipes that are kept for the next transfers.
const MOST_EMPTY: usize = 8;
const VAIN: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn no_more_than_is_asked_for_is_taken_and_an_end_is_seen() {
        let pipes = Rc::<Pipes>::default();
        let ((mut server, from), (to, mut client)) = (pair().await, pair().await);
        server.write_all(b"bodynext").await.unwrap();
        let mut pipe = pipes.take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 4, cx)).await.unwrap(), 4);
        while !pipe.is_empty() {
            poll_fn(|cx| pipe.poll_drain(&to, cx)).await.unwrap();
        }
        let mut got = [0; 4];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"body");
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 100, cx)).await.unwrap(), 4);
        drop(pipe);
        drop(server);
        let mut pipe = pipes.take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 100, cx)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn only_an_empty_pipe_is_used_again() {
        let pipes = Rc::<Pipes>::default();
        let (mut server, from) = pair().await;
        drop(pipes.take().unwrap());
        assert_eq!(pipes.empty.borrow().len(), 1);
        let mut pipe = pipes.take().unwrap();
        server.write_all(b"a secret").await.unwrap();
        poll_fn(|cx| pipe.poll_fill(&from, 100, cx)).await.unwrap();
        drop(pipe);
        assert!(pipes.empty.borrow().is_empty(), "what is in it is somebody's");
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let pipes = Rc::<Pipes>::default();
        let mut taken: Vec<Pipe> = std::iter::repeat_with(|| pipes.take()).map_while(|pipe| pipe).collect();
        assert_eq!(taken.len(), MOST);
        taken.pop();
        assert!(pipes.take().is_some());
        drop(taken);
        assert_eq!((pipes.empty.borrow().len(), pipes.taken.get()), (MOST_EMPTY, 0));
    }
}
