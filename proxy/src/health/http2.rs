//! A check's request over HTTP/2, for servers that are spoken to so.

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::uri::{Authority, Parts, Scheme};
use http::{Request, Uri, Version};
use tokio_util::task::AbortOnDropHandle;

use super::probe::{LONGEST_BODY, LONGEST_HEAD};
use super::verdict::Answer;
use crate::backend::stream::Stream;

/// Sends a request made for HTTP/1.1 on a connection of its own, and reads of the body what matters.
pub(super) async fn exchange(
    stream: Stream,
    request: Request<()>,
    needs_body: impl Fn(http::StatusCode) -> bool,
) -> Result<Answer, String> {
    let scheme = if stream.is_encrypted() { Scheme::HTTPS } else { Scheme::HTTP };
    let request = of_http1(request, scheme).ok_or("the check's host is none")?;
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(LONGEST_HEAD as u32);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|error| error.to_string())?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut sender = sender.ready().await.map_err(|error| error.to_string())?;
    let (response, _) = sender.send_request(request, true).map_err(|error| error.to_string())?;
    let (head, mut receiving) = response.await.map_err(|error| error.to_string())?.into_parts();
    let mut body = Vec::new();
    while needs_body(head.status)
        && body.len() < LONGEST_BODY
        && let Some(data) = receiving.data().await
    {
        let data = data.map_err(|error| error.to_string())?;
        body.extend_from_slice(&data[..data.len().min(LONGEST_BODY - body.len())]);
        receiving.flow_control().release_capacity(data.len()).map_err(|error| error.to_string())?;
    }
    Ok(Answer { status: head.status, fields: head.headers, body })
}

fn of_http1(mut request: Request<()>, scheme: Scheme) -> Option<Request<()>> {
    request.headers_mut().remove(CONNECTION);
    let host = request.headers_mut().remove(HOST)?;
    let mut parts = Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = Version::HTTP_2;
    Some(request)
}
