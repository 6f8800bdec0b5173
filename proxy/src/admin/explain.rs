//! `GET /v3/explain`: what would happen to a request, and why. Decided by the code that serves, on the table in force.
//!
//! Parameters: `url`, and where wanted `method`, `header` (`Name: value`, repeated), `client` (an address) and
//! `listener`. Nothing is sent and nothing is counted; the order of servers is that of a request coming now.

mod servers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{RawQuery, State as Extract};
use axum::response::Response;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::reply::{self, Refusal};
use crate::backend::sticky;
use crate::control::State;
use crate::error::Error;
use crate::message::RequestHead;
use crate::message::fields::Fields;
use crate::router::Candidate;
use crate::rule::{Head, host_of};
use crate::table::{Frontend, Otherwise, Route, Table};
use crate::traffic::secure;

/// The endpoint.
pub(super) async fn explain(
    Extract(state): Extract<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let asked = Asked::read(query.as_deref().unwrap_or_default())?;
    let table = state.live.table();
    let mut answer = answer(&table, &asked);
    if answer["frontend"].is_null() {
        answer["unreadable"] = unreadable(&state, &table).into();
    }
    Ok(reply::json(&answer))
}

/// Frontends that match nothing, because their rules cannot be read.
fn unreadable(state: &State, table: &Table) -> Vec<String> {
    let model = state.model();
    let missing = model.frontends().filter(|frontend| table.router.get(&frontend.id).is_none());
    missing.take(MOST_SHOWN).map(|frontend| frontend.id.to_string()).collect()
}

/// The request that is asked about.
#[derive(Debug)]
struct Asked {
    method: Method,
    uri: Uri,
    host: String,
    headers: HeaderMap,
    client: IpAddr,
    /// Whether that address was given.
    is_client_known: bool,
    listener: String,
}

impl Asked {
    fn read(query: &str) -> Result<Asked, Refusal> {
        let mut asked = Asked {
            method: Method::GET,
            uri: Uri::default(),
            host: String::new(),
            headers: HeaderMap::new(),
            client: IpAddr::from([127, 0, 0, 1]),
            is_client_known: false,
            listener: "default".into(),
        };
        let mut url = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match &*decode(name) {
                "url" => url = Some(value),
                "method" => {
                    asked.method = value.parse().map_err(|_| Refusal::bad(format!("{value:?} is no method")))?;
                }
                "header" => {
                    let (name, value) = header(&value)?;
                    asked.headers.append(name, value);
                }
                "client" => {
                    asked.client = value.parse().map_err(|_| {
                        Refusal::bad(format!("client {value:?} is no IP address: write it without a port"))
                    })?;
                    asked.is_client_known = true;
                }
                "listener" => asked.listener = value,
                other => {
                    let known = "url, method, header, client, listener";
                    return Err(Refusal::bad(format!("unknown parameter {other:?}: known are {known}")));
                }
            }
        }
        let url = url.ok_or_else(|| Refusal::bad("url is missing: ask /v3/explain?url=http://HOST/PATH"))?;
        asked.uri = parse_url(&url)?;
        asked.host = asked.uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        // As a client would send it, unless the header was given.
        match asked.headers.get(HOST).and_then(|host| host.to_str().ok()) {
            Some(host) => asked.host = host.to_owned(),
            None => {
                if let Ok(host) = HeaderValue::from_str(&asked.host) {
                    asked.headers.insert(HOST, host);
                }
            }
        }
        Ok(asked)
    }
}

impl Asked {
    /// As a request's head.
    fn head(&self) -> RequestHead {
        let Asked { method, uri, headers, .. } = self;
        let version = http::Version::HTTP_11;
        RequestHead { method: method.clone(), uri: uri.clone(), version, fields: Fields::from(headers) }
    }
}

fn answer(table: &Table, asked: &Asked) -> Value {
    let host = host_of(&asked.host);
    let uri = &asked.uri;
    let fields = Fields::from(&asked.headers);
    let head = Head::new(&asked.method, &host, uri.path(), uri.query(), &fields, asked.client);
    let scoped_out = table.scopes.get(&*asked.listener).is_some_and(|scope| !scope.matches(&head));
    let route = match asked.method {
        Method::CONNECT => Err(Error::Method),
        _ => table.route(&asked.listener, &head),
    };
    // Of a request that is refused because its path means something else to servers.
    let passed = table.router.find(&head).filter(|_| matches!(route, Err(Error::BadRequest(_))));
    let otherwise = passed.and_then(|passed| Some((passed, table.otherwise(&asked.listener, &head, passed)?)));
    let candidates = table.router.candidates(&head);
    let chosen = route.as_ref().ok().map(|route| &route.frontend);
    let mut answer = json!({
        "request": {
            "method": asked.method.as_str(),
            "host": host,
            "path": uri.path(),
            "query": uri.query(),
            "client": asked.client.to_string(),
            "listener": asked.listener,
        },
        "revision": table.revision.0,
        "frontend": chosen.map(|frontend| shape(frontend)),
        "why": match &otherwise {
            Some((passed, otherwise)) => ambiguous(passed, otherwise),
            None => why(table, chosen.map(|frontend| &**frontend), &candidates, scoped_out, asked),
        },
        "candidates": candidates.iter().take(MOST_SHOWN).map(|candidate| considered(candidate, chosen, otherwise.is_some(), &head)).collect::<Vec<_>>(),
    });
    let more = match &route {
        Ok(route) => path(table, route, asked),
        Err(error) => {
            json!({ "outcome": format!("{}, {error}", error.status().as_u16()), "middlewares": [], "servers": [] })
        }
    };
    if let (Value::Object(answer), Value::Object(more)) = (&mut answer, more) {
        answer.extend(more);
    }
    answer
}

fn shape(frontend: &Frontend) -> Value {
    json!({
        "id": &*frontend.id,
        "route": frontend.rule.source(),
        "priority": frontend.spec.priority,
        "site": frontend.spec.site.as_deref(),
        "broken": frontend.broken,
        "deny": frontend.deny.map(|status| status.as_u16()),
    })
}

fn why(
    table: &Table,
    chosen: Option<&Frontend>,
    candidates: &[Candidate<Frontend>],
    scoped_out: bool,
    asked: &Asked,
) -> String {
    let matching = candidates.iter().filter(|candidate| candidate.matches).count();
    match chosen {
        Some(_) if matching > 1 => {
            format!(
                "of {matching} rules that match it has the highest priority, or at the same one the most specific rule"
            )
        }
        Some(_) => "its rule is the only one that matches".into(),
        None if asked.method == Method::CONNECT => "CONNECT is never forwarded".into(),
        None if scoped_out => {
            format!("the scope of listener {} does not match, so nothing is served there", asked.listener)
        }
        None if candidates.is_empty() => {
            format!("none of the {} frontends has a rule for such a host and path", table.router.len())
        }
        None => format!("no rule matches; {} came close", candidates.len()),
    }
}

/// Why a request is refused whose path means something else to servers.
fn ambiguous(passed: &Frontend, otherwise: &Otherwise) -> String {
    let by = otherwise.frontend.as_ref().map_or_else(|| "no frontend".into(), |frontend| format!("{}", frontend.id));
    format!(
        "{} matches the path as it is sent, but a server may read it as {}, which {by} would have: \
         send it without needless escapes, .. and //",
        passed.id, otherwise.path
    )
}

fn considered(
    candidate: &Candidate<Frontend>,
    chosen: Option<&Arc<Frontend>>,
    is_refused: bool,
    head: &Head<'_>,
) -> Value {
    let frontend = &candidate.value;
    let is_chosen = chosen.is_some_and(|chosen| chosen.id == frontend.id);
    let reason = match (is_chosen, candidate.matches) {
        (true, _) => "chosen".to_owned(),
        (false, false) => {
            let parts = frontend.rule.explain(head);
            let failed: Vec<&str> =
                parts.iter().filter(|(_, matched)| !matched).map(|(part, _)| part.as_str()).collect();
            match failed.as_slice() {
                // A negated part that matches, and nothing that does not.
                [] => "does not match: what it excludes is there".into(),
                failed => format!("does not match: {}", failed.join(", ")),
            }
        }
        (false, true) => match chosen {
            Some(chosen) if chosen.spec.priority > frontend.spec.priority => {
                format!("matches, but {} has a higher priority", chosen.id)
            }
            Some(chosen) => format!("matches, but the rule of {} is more specific", chosen.id),
            None if is_refused => "matches, but the request is refused".into(),
            None => "matches, but is not served on this listener".into(),
        },
    };
    json!({
        "id": &*frontend.id,
        "route": frontend.rule.source(),
        "priority": frontend.spec.priority,
        "matches": candidate.matches,
        "chosen": is_chosen,
        "reason": reason,
    })
}

/// What comes after the choice of the frontend.
fn path(table: &Table, route: &Route, asked: &Asked) -> Value {
    let now = Instant::now();
    let head = asked.head();
    let frontend = &route.frontend;
    let middlewares: Vec<Value> = frontend
        .chain
        .iter()
        .map(|step| json!({ "id": &*step.spec.id, "type": step.spec.kind, "priority": step.spec.priority }))
        .collect();
    let used = route.serving();
    let is_first = used.is_some_and(|used| route.backend.as_ref().is_some_and(|first| Arc::ptr_eq(first, used)));
    let elsewhere = sent_to_https(table, route, asked).filter(|_| frontend.deny.is_none() && !frontend.broken);
    let outcome = match (frontend.deny, frontend.broken, used) {
        (Some(status), ..) => format!("{}, denied by the site's rules", status.as_u16()),
        (None, true, _) => "503, a middleware of it cannot be built: see the problems".into(),
        (None, false, _) if elsewhere.is_some() => format!("308, sent to {}", elsewhere.as_deref().unwrap_or_default()),
        (None, false, None) => format!("503, backend {} has no server", frontend.spec.backend),
        (None, false, Some(used)) if !is_first => {
            format!("forwarded to backend {}, because {} has no server that is well", used.id, frontend.spec.backend)
        }
        (None, false, Some(used)) => format!("forwarded to backend {}", used.id),
    };
    let used = used.filter(|_| frontend.deny.is_none() && !frontend.broken && elsewhere.is_none());
    let cookie = used.and_then(|used| frontend.cookie.as_ref().or(used.cookie.as_ref()));
    let stuck = used.zip(cookie).and_then(|(used, cookie)| sticky::find(used, cookie, &head.fields, || now));
    let stuck_id =
        used.zip(stuck).and_then(|(used, at)| used.servers.get(usize::from(at))).map(|s| s.spec.id.to_string());
    let session = frontend.session(&head.fields);
    let key = used.and_then(|used| session.or_else(|| used.hash.as_ref()?.of(&head, asked.client)));
    json!({
        "outcome": outcome,
        "middlewares": middlewares,
        "backend": { "id": &*frontend.spec.backend, "exists": route.backend.is_some() },
        "fallback": frontend.spec.fallback.as_ref().map(|id| json!({ "id": &**id, "exists": route.fallback.is_some() })),
        "elsewhere": frontend.spec.elsewhere.as_ref().map(|elsewhere| {
            json!({ "id": &*elsewhere.backend, "statuses": elsewhere.statuses, "exists": route.elsewhere.is_some() })
        }),
        "answers_within": used.map(|used| {
            etna_store::duration::format(used.spec.timeouts.answer(frontend.spec.answer_within))
        }),
        "sticky": cookie.map(|cookie| json!({ "cookie": &**cookie, "server": stuck_id })),
        "balancing": used.map(|used| servers::balancing(used, key)),
        "failover": frontend.spec.settings.failover_predicate.as_deref(),
        "servers": used.map(|used| servers::servers(used, stuck, key, now)).unwrap_or_default(),
    })
}

/// Where a client in the clear is sent, by a URL of http; a server of the site is not, if that is who asks.
fn sent_to_https(table: &Table, route: &Route, asked: &Asked) -> Option<String> {
    let is_clear = asked.uri.scheme_str() != Some("https");
    let is_own = asked.is_client_known && table.is_own_server(&route.frontend, asked.client);
    if !route.wants_tls || !is_clear || is_own {
        return None;
    }
    secure::over_tls(&asked.head())?.to_str().ok().map(str::to_owned)
}

fn parse_url(url: &str) -> Result<Uri, Refusal> {
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    // A fragment stays in the client.
    let whole = whole.split('#').next().unwrap_or_default();
    let uri: Uri = whole.parse().map_err(|error| Refusal::bad(format!("{url:?} is no URL: {error}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(uri),
        _ => Err(Refusal::bad(format!("{url:?} is no URL: write http://HOST/PATH"))),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), Refusal> {
    let wrong = || Refusal::bad(format!("{text:?} is no header: write Name: value"));
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    Ok((name, value.trim().parse().map_err(|_| wrong())?))
}

/// A part of a query as forms write it.
fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

const MOST_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read() {
        let asked = Asked::read(
            "method=POST&url=http%3A%2F%2FBlog.test:81%2Fa%3Fb=c%23d&header=X-A:+1&header=X-A: 2&client=::1",
        )
        .unwrap();
        assert_eq!((asked.method, asked.host.as_str()), (Method::POST, "Blog.test:81"));
        assert_eq!((asked.uri.path(), asked.uri.query()), ("/a", Some("b=c")));
        assert_eq!(asked.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(asked.client, "::1".parse::<IpAddr>().unwrap());
        assert_eq!(Asked::read("url=a.test/x").unwrap().host, "a.test");
        assert_eq!(Asked::read("url=http://a/&header=Host:%20b").unwrap().host, "b");
    }

    #[test]
    fn bad_questions_are_refused() {
        for query in [
            "",
            "url=",
            "url=ftp://a/",
            "url=http:///x",
            "url=a&method=%20",
            "url=a&header=x",
            "url=a&client=x",
            "url=a&heder=x:y",
        ] {
            assert!(Asked::read(query).is_err(), "{query}");
        }
    }
}
