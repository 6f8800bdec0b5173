//! Interim responses on a connection, as `traffic::interim` hands them over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Method, StatusCode, Version};
use tokio::io::AsyncWrite as _;

use super::Wire;
use crate::message::fields::Fields;
use crate::traffic::h1::answer::{self, Asked, Delimiter};

impl Wire {
    /// Writes an interim head, if the client knows such and its answer has not begun. One that does not go out at once is
    /// dropped; of one that goes out in part the rest is kept, of one at most, and goes out before anything else does.
    pub(in crate::traffic) fn relay(&self, status: StatusCode, fields: &Fields, cx: &mut Context<'_>) {
        let is_time = self.knows_interim.get() && self.answering.get().is_none();
        if !is_time || !matches!(self.poll_begun(cx), Poll::Ready(Ok(()))) {
            return;
        }
        let mut bytes = Vec::new();
        let asked = Asked { method: Method::GET, version: Version::HTTP_11 };
        answer::write(&mut bytes, (status, fields), &asked, Delimiter::Nothing, true, "");
        // Past the watch: nobody waits for a client to read this.
        if let Poll::Ready(Ok(written @ 1..)) = Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &bytes) {
            self.begun.replace(bytes.split_off(written));
        }
    }

    /// What comes before everything else that is sent.
    pub(in crate::traffic::h1) fn take_begun(&self) -> Vec<u8> {
        self.begun.take()
    }

    /// Ready when no interim head is half written.
    pub(super) fn poll_begun(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut begun = self.begun.borrow_mut();
        while !begun.is_empty() {
            let written = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &begun))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            begun.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::task::Waker;

    use crate::backend::framing::Framing;
    use crate::listener::stream::Stream;
    use crate::listener::watch::{Waiting, Watch};
    use crate::traffic::h1::wire::Scratch;
    use http::header::{HeaderValue, LINK};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    /// A connection that takes little, and its client.
    async fn wire() -> (Rc<Wire>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap().0;
        // As it is known to be by the time that a request was read.
        stream.writable().await.unwrap();
        socket2::SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        (Wire::new(Stream::Plain(stream), Rc::new(Watch::new(Rc::default())), Rc::new(Scratch::default())), client)
    }

    fn hint(length: usize) -> Fields {
        let mut fields = Fields::default();
        fields.append(&LINK, &HeaderValue::from_str(&"x".repeat(length)).unwrap());
        fields
    }

    fn relay(wire: &Wire, fields: &Fields) {
        wire.relay(StatusCode::EARLY_HINTS, fields, &mut Context::from_waker(Waker::noop()));
    }

    /// What the client gets until nothing more is on its way.
    async fn read(client: &mut TcpStream, until: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(until.as_bytes()) {
            assert_ne!(client.read_buf(&mut got).await.unwrap(), 0);
        }
        String::from_utf8(got).unwrap()
    }

    #[tokio::test]
    async fn only_to_who_knows_and_waits_for_an_answer() {
        let (wire, mut client) = wire().await;
        relay(&wire, &hint(1));
        wire.begin(Framing::Done, false, Version::HTTP_10);
        relay(&wire, &hint(2));
        wire.begin(Framing::Done, false, Version::HTTP_11);
        relay(&wire, &hint(3));
        wire.answer();
        relay(&wire, &hint(4));
        wire.begin(Framing::Done, false, Version::HTTP_11);
        relay(&wire, &hint(5));
        let got = read(&mut client, "xxxxx\r\n\r\n").await;
        let expected =
            ["xxx", "xxxxx"].map(|link| format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n")).concat();
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn who_does_not_read_gets_no_more_than_has_begun() {
        let (wire, mut client) = wire().await;
        wire.begin(Framing::Done, false, Version::HTTP_11);
        let mut fit = 0;
        while wire.begun.borrow().is_empty() {
            fit += 1;
            assert!(fit < 1000, "it takes and takes");
            relay(&wire, &hint(100_000));
        }
        // The kernel may still move bytes between its buffers.
        let kept = wire.begun.borrow().len();
        for _ in 0..100 {
            relay(&wire, &hint(100_000));
            assert!(wire.begun.borrow().len() <= kept.max(100_100), "no more than one");
        }
        assert!(!wire.watch.is_waiting_for(Waiting::Reader), "nobody waits for it");
        let mut cx = Context::from_waker(Waker::noop());
        let reading = async {
            let mut got = Vec::new();
            while !got.ends_with(b"xx\r\n\r\nend") {
                assert_ne!(client.read_buf(&mut got).await.unwrap(), 0);
            }
            got
        };
        let writing = async {
            let mut rest = wire.take_begun();
            assert!(wire.poll_begun(&mut cx).is_ready());
            rest.extend_from_slice(b"end");
            let mut sent = 0;
            while sent < rest.len() {
                sent += std::future::poll_fn(|cx| wire.poll_write(&rest[sent..], &[], cx)).await.unwrap();
            }
        };
        let (got, ()) = tokio::join!(reading, writing);
        let one = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(100_000));
        let got = String::from_utf8(got).unwrap();
        let whole = got.strip_suffix("end").unwrap();
        assert!(whole.len().is_multiple_of(one.len()) && whole == one.repeat(whole.len() / one.len()));
    }
}
