//! What the two processes say to each other, over a unix socket.
//!
//! Once from the old one: a length in four bytes, a JSON document, then the sockets (`SCM_RIGHTS`) with one byte for
//! each parcel of them. After that words, a line each: the new one asks for the store and says that it is ready, the
//! old one says that the store is closed and that the sockets are the new one's. The document has a version; what it
//! holds more than a reader knows is ignored, so that newer and older binaries may replace each other.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::health::Saved;
use crate::control::Upgraded;

/// The new process is about to open the store.
pub(super) const STORE: &str = "store";
/// The old process has let go of it.
pub(super) const CLOSED: &str = "closed";
/// The new process can serve.
pub(super) const READY: &str = "ready";
/// The old process accepts no more.
pub(super) const YOURS: &str = "yours";

/// The environment variable that tells a process that its standard input is this channel: the old one's id.
pub(super) const VARIABLE: &str = "ETNA_HANDOVER";

/// What the old process says first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u32,
    /// Whose sockets follow, in this order.
    pub(super) listeners: Vec<Listener>,
    /// The admin API, if its socket follows the others.
    pub(super) admin: Option<Admin>,
    #[serde(default)]
    pub(super) upgraded: Upgraded,
    #[serde(default)]
    pub(super) health: Saved,
}

/// The admin API's socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Admin {
    pub(super) wanted: Option<String>,
}

/// A listener's sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listener {
    pub(super) id: String,
    pub(super) wanted: Option<String>,
    pub(super) own: bool,
    pub(super) sockets: usize,
}

impl Hello {
    fn sockets(&self) -> usize {
        let listeners = self.listeners.iter().fold(0_usize, |sum, listener| sum.saturating_add(listener.sockets));
        listeners.saturating_add(usize::from(self.admin.is_some()))
    }
}

/// Says hello and hands the sockets over.
pub(super) fn send(mut to: &UnixStream, hello: &Hello, sockets: &[OwnedFd]) -> io::Result<()> {
    let text = serde_json::to_vec(hello)?;
    let length = u32::try_from(text.len()).map_err(|_| io::Error::other("there is too much to say"))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&text)?;
    for parcel in sockets.chunks(PARCEL) {
        let parcel: Vec<BorrowedFd<'_>> = parcel.iter().map(OwnedFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PARCEL))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&parcel)) {
            return Err(io::Error::other("too many sockets in one parcel"));
        }
        sendmsg(to, &[IoSlice::new(b".")], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Hears hello and takes the sockets.
pub(super) fn receive(mut from: &UnixStream) -> io::Result<(Hello, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other("it has too much to say"));
    }
    let mut text = Vec::new();
    from.take(length.into()).read_to_end(&mut text)?;
    let hello: Hello = serde_json::from_slice(&text)?;
    if hello.version != VERSION {
        return Err(io::Error::other(format!("it speaks version {}, this is {VERSION}", hello.version)));
    }
    let mut sockets = Vec::new();
    while sockets.len() < hello.sockets() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PARCEL))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let got = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let before = sockets.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(parcel) = message {
                sockets.extend(parcel);
            }
        }
        if got.bytes == 0 || sockets.len() == before {
            return Err(io::Error::other("the sockets did not come; is the limit on open files too low?"));
        }
    }
    Ok((hello, sockets))
}

/// The part of the channel that comes after hello: a word a line, in both directions.
pub(super) struct Words {
    stream: tokio::net::UnixStream,
    heard: Vec<u8>,
}

impl Words {
    /// Goes on with words. Call it inside a tokio runtime.
    pub(super) fn after_hello(stream: UnixStream) -> io::Result<Words> {
        stream.set_nonblocking(true)?;
        Ok(Words { stream: tokio::net::UnixStream::from_std(stream)?, heard: Vec::new() })
    }

    /// Says a word.
    pub(super) async fn say(&mut self, word: &str) -> io::Result<()> {
        self.stream.write_all(format!("{word}\n").as_bytes()).await
    }

    /// Hears the next word; `None` if the other process is gone. Nothing is lost when the future is dropped.
    pub(super) async fn hear(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.heard.len() > LONGEST_WORD {
                return Err(io::Error::other("it says something else than words"));
            }
            match self.stream.read_buf(&mut self.heard).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // What it had not read when it ended.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) const VERSION: u32 = 1;
const LONGEST_WORD: usize = 64;
/// Sockets handed over at once; the kernel takes 253.
const PARCEL: usize = 64;
/// Bytes of the document: a hundred thousand servers take 10 MiB.
const LONGEST: u32 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn sockets_arrive_in_order_and_are_the_same_sockets() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let bound: Vec<TcpListener> = (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let fds: Vec<OwnedFd> = bound.iter().map(|socket| socket.try_clone().unwrap().into()).collect();
        let hello = Hello {
            version: VERSION,
            listeners: vec![Listener { id: "default".into(), wanted: None, own: true, sockets: 149 }],
            admin: Some(Admin { wanted: Some("127.0.0.1:0".into()) }),
            ..Hello::default()
        };
        let sender = std::thread::spawn(move || send(&ours, &hello, &fds));
        let (hello, sockets) = receive(&theirs).unwrap();
        sender.join().unwrap().unwrap();
        assert_eq!((hello.sockets(), sockets.len()), (150, 150));
        for (socket, bound) in sockets.into_iter().zip(&bound) {
            assert_eq!(TcpListener::from(socket).local_addr().unwrap(), bound.local_addr().unwrap());
        }
    }

    #[test]
    fn another_version_garbage_and_silence_are_errors() {
        let told = |bytes: &[u8]| {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(bytes).unwrap();
            drop(ours);
            receive(&theirs).map(|_| ()).unwrap_err().to_string()
        };
        told(b"");
        told(b"\xff\xff\xff\xff");
        told(b"\0\0\0\x02{]");
        told(b"\0\0\0\x20{");
        let text = br#"{"version":9,"listeners":[]}"#;
        let said = told(&[&(text.len() as u32).to_be_bytes()[..], text].concat());
        assert!(said.contains("version 9"), "{said}");
        let text = br#"{"version":1,"listeners":[{"id":"a","wanted":null,"own":true,"sockets":2}],"new":1}"#;
        let said = told(&[&(text.len() as u32).to_be_bytes()[..], text].concat());
        assert!(said.contains("did not come"), "{said}");
    }
}
