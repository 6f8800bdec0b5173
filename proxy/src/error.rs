//! Why a request was not answered by a server: whose fault, whether it may be tried again, and which status it becomes.
//!
//! One exhaustive match turns an error into a status; nothing else in the crate invents a status for a failure.

use std::time::Duration;

use http::StatusCode;

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client sent what cannot be served.
    Client,
    /// The server failed.
    Server,
    /// We cannot serve it as configured.
    Us,
}

/// What went wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is malformed or ambiguous.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// No frontend matches.
    #[error("no route")]
    NoRoute,
    /// The store has not been read yet, so nobody knows what matches.
    #[error("starting: the store has not been read yet")]
    Starting,
    /// A site's rule denies the path; told as if it were not there.
    #[error("denied")]
    Denied(StatusCode),
    /// The method is never forwarded (CONNECT).
    #[error("method not allowed")]
    Method,
    /// The request was here before: what it was forwarded to sends it back (RFC 5842 section 7.2).
    #[error("this proxy forwarded this request before: a server of its backend leads back to the proxy")]
    Loop,
    /// The client asked TLS for one name and this request is for another, which has another certificate.
    #[error("this connection was made for another host")]
    Misdirected,
    /// The body is longer than the frontend allows.
    #[error("request body too large")]
    TooLarge,
    /// The request's head is longer than accepted.
    #[error("request header fields too large")]
    HeadTooLarge,
    /// The request's target is longer than accepted.
    #[error("request target too long")]
    TargetTooLong,
    /// The body's coding is not known.
    #[error("transfer coding not implemented")]
    NotImplemented,
    /// The client expects something other than `100-continue`.
    #[error("expectation cannot be met")]
    Expectation,
    /// The client sends too slowly.
    #[error("the request did not arrive in time")]
    SlowClient,
    /// A rate or connection limit was reached; the value is the time until it may be tried again.
    #[error("too many requests")]
    Limited(Duration),
    /// The frontend cannot be served as written: see the problems.
    #[error("this frontend has a problem")]
    Broken,
    /// The backend has no server to take it.
    #[error("no server")]
    NoServer,
    /// No connection to any server could be made; nothing was sent.
    #[error("could not connect to a server")]
    Connect,
    /// The connection ended before the response began.
    #[error("the server closed the connection before it answered")]
    Upstream,
    /// The server did not answer in time.
    #[error("the server did not answer in time")]
    Timeout,
    /// The proxy is shedding load.
    #[error("overloaded")]
    Overloaded,
}

impl Error {
    /// The status the client gets.
    pub fn status(self) -> StatusCode {
        match self {
            Error::BadRequest(_) => StatusCode::BAD_REQUEST,
            Error::NoRoute => StatusCode::NOT_FOUND,
            Error::Denied(status) => status,
            Error::Method => StatusCode::METHOD_NOT_ALLOWED,
            Error::Loop => StatusCode::LOOP_DETECTED,
            Error::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Error::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Error::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Error::TargetTooLong => StatusCode::URI_TOO_LONG,
            Error::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Error::Expectation => StatusCode::EXPECTATION_FAILED,
            Error::SlowClient => StatusCode::REQUEST_TIMEOUT,
            Error::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Error::Starting | Error::Broken | Error::NoServer | Error::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Error::Connect | Error::Upstream => StatusCode::BAD_GATEWAY,
            Error::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Error::BadRequest(_)
            | Error::NoRoute
            | Error::Denied(_)
            | Error::Method
            | Error::Misdirected
            | Error::TooLarge
            | Error::HeadTooLarge
            | Error::TargetTooLong
            | Error::NotImplemented
            | Error::Expectation
            | Error::SlowClient
            | Error::Limited(_) => Fault::Client,
            Error::Connect | Error::Upstream | Error::Timeout => Fault::Server,
            Error::Loop | Error::Starting | Error::Broken | Error::NoServer | Error::Overloaded => Fault::Us,
        }
    }

    /// Whether the client may send the same request again, and after how many seconds.
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Error::Limited(wait) => Some(whole_seconds(wait)),
            Error::Starting | Error::NoServer | Error::Overloaded | Error::Broken => Some(1),
            Error::BadRequest(_)
            | Error::NoRoute
            | Error::Denied(_)
            | Error::Method
            | Error::Loop
            | Error::Misdirected
            | Error::TooLarge
            | Error::HeadTooLarge
            | Error::TargetTooLong
            | Error::NotImplemented
            | Error::Expectation
            | Error::SlowClient
            | Error::Connect
            | Error::Upstream
            | Error::Timeout => None,
        }
    }

    /// Whether what follows on the client's connection can no longer be trusted to be a request.
    pub fn ends_connection(self) -> bool {
        // A client's fault, unless its request was understood.
        let understood =
            matches!(self, Error::NoRoute | Error::Denied(_) | Error::Method | Error::Misdirected | Error::Limited(_));
        self.fault() == Fault::Client && !understood
    }

    /// A short, stable word for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Error::BadRequest(_) => "bad_request",
            Error::NoRoute => "no_route",
            Error::Starting => "starting",
            Error::Denied(_) => "denied",
            Error::Method => "method",
            Error::Loop => "loop",
            Error::Misdirected => "misdirected",
            Error::TooLarge => "too_large",
            Error::HeadTooLarge => "head_too_large",
            Error::TargetTooLong => "target_too_long",
            Error::NotImplemented => "not_implemented",
            Error::Expectation => "expectation",
            Error::SlowClient => "slow_client",
            Error::Limited(_) => "limited",
            Error::Broken => "broken",
            Error::NoServer => "no_server",
            Error::Connect => "connect",
            Error::Upstream => "upstream",
            Error::Timeout => "timeout",
            Error::Overloaded => "overloaded",
        }
    }
}

fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).unwrap_or(u32::MAX)
}
