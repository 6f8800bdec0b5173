//! What the authority answers to which request.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use rcgen::{CertificateSigningRequestParams, SanType, date_time_ymd};
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};

use super::jws::{Signed, token};
use super::{Account, Answer, Inner, Manner, Order, State, validate};

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a client broke a rule, and says so.
    fn violated(&self, what: String) -> Answer {
        self.state().violations.push(what.clone());
        problem(StatusCode::BAD_REQUEST, "malformed", &what)
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return problem(StatusCode::BAD_REQUEST, "malformed", "no body") };
        let body = body.to_bytes();
        let manner = self.state().manner.clone();
        if manner.down {
            let body = Full::from("<html>we are down</html>");
            return Response::builder().status(503).header(CONTENT_TYPE, "text/html").body(body).expect("valid");
        }
        if manner.junk {
            return Response::builder()
                .header(CONTENT_TYPE, "application/json")
                .body(Full::from("[[[{"))
                .expect("valid");
        }
        let path = head.uri.path().trim_start_matches('/').to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let mut answer = match (&head.method, parts.as_slice()) {
            (&Method::GET, ["directory"]) => self.directory(&manner),
            (&Method::GET | &Method::HEAD, ["new-nonce"]) => Response::new(Full::default()),
            (&Method::GET, ["renewal-info", id]) => self.renewal(id, &manner),
            (&Method::POST, parts) => {
                let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                if kind == "application/jose+json" {
                    self.clone().signed(&path, parts, &body, &manner)
                } else {
                    self.violated(format!("a request of the type {kind:?}"))
                }
            }
            _ => problem(StatusCode::NOT_FOUND, "malformed", "there is nothing"),
        };
        let nonce = self.state().nonce();
        answer.headers_mut().insert("replay-nonce", nonce.parse().expect("base64"));
        answer
    }

    fn directory(&self, manner: &Manner) -> Answer {
        let at = |name: &str| format!("{}/{name}", self.base);
        let mut directory = json!({ "newNonce": at("new-nonce"), "newAccount": at("new-account"), "newOrder": at("new-order"),
            "revokeCert": at("revoke"), "keyChange": at("key-change"), "meta": { "termsOfService": at("terms") } });
        if manner.renewal.is_some() {
            directory["renewalInfo"] = at("renewal-info").into();
        }
        reply(200, &directory)
    }

    fn renewal(&self, id: &str, manner: &Manner) -> Answer {
        let mut state = self.state();
        state.asked_when += 1;
        let known = |order: &Order| order.chain.as_deref().and_then(validate::renewal_id).as_deref() == Some(id);
        if !state.orders.iter().any(known) {
            state.violations.push(format!("a question about a certificate that never was: {id}"));
        }
        let Some((start, end, again)) = manner.renewal else {
            return problem(StatusCode::NOT_FOUND, "malformed", "no opinion");
        };
        let window = json!({ "suggestedWindow": { "start": date(start), "end": date(end) } });
        let mut answer = reply(200, &window);
        answer.headers_mut().insert(RETRY_AFTER, again.into());
        answer
    }

    /// Requests with a signature (RFC 8555 section 6.2).
    fn signed(self: Arc<Self>, path: &str, parts: &[&str], body: &[u8], manner: &Manner) -> Answer {
        let url = format!("{}/{path}", self.base);
        let signed = {
            let state = self.state();
            let keys = |account: &str| {
                let number: usize = account.strip_prefix(&format!("{}/account/", self.base))?.parse().ok()?;
                state.accounts.get(number).filter(|account| account.valid).map(|account| account.key.clone())
            };
            Signed::read(body, &url, keys)
        };
        let signed = match signed {
            Ok(signed) => signed,
            Err((kind, what)) if kind == "accountDoesNotExist" => return problem(StatusCode::BAD_REQUEST, kind, &what),
            Err((_, what)) => return self.violated(what),
        };
        {
            let mut state = self.state();
            if state.refused.remove(&signed.nonce) {
                return problem(StatusCode::BAD_REQUEST, "badNonce", "not this one");
            }
            if !state.nonces.remove(&signed.nonce) {
                drop(state);
                return self.violated("a nonce that was never given, or twice".into());
            }
        }
        match parts {
            ["new-account"] => self.new_account(&signed),
            _ if signed.is_new => self.violated(format!("{path} signed with a key instead of an account")),
            ["account", _] => self.account(&signed),
            ["new-order"] => self.new_order(&signed, manner),
            [what, number, rest @ ..] => {
                let number: usize = number.parse().unwrap_or(usize::MAX);
                let Some(order) = self.state().orders.get(number).cloned() else {
                    return self.violated(format!("{path}, which never was"));
                };
                if self.state().account_of(&signed.key) != Some(order.account) {
                    return self.violated(format!("{path} of another account"));
                }
                match (*what, rest) {
                    ("order" | "authz" | "cert", []) if signed.payload.is_some() => {
                        self.violated(format!("{path} with a payload"))
                    }
                    ("order", []) => reply(200, &self.order(number)),
                    ("authz", []) => reply(200, &self.authorization(number)),
                    ("chall", [kind]) => self.challenge(number, kind, &signed),
                    ("finalize", []) => self.finalize(number, &signed),
                    ("cert", []) => match order.chain {
                        Some(chain) => Response::builder()
                            .header(CONTENT_TYPE, "application/pem-certificate-chain")
                            .body(Full::from(chain))
                            .expect("valid"),
                        None => self.violated("a certificate that was not issued".into()),
                    },
                    _ => problem(StatusCode::NOT_FOUND, "malformed", "there is nothing"),
                }
            }
            _ => problem(StatusCode::NOT_FOUND, "malformed", "there is nothing"),
        }
    }

    fn new_account(&self, signed: &Signed) -> Answer {
        let Some(payload) = signed.payload.as_ref().filter(|_| signed.is_new) else {
            return self.violated("an account without a key of its own".into());
        };
        if payload["termsOfServiceAgreed"] != true {
            return problem(StatusCode::FORBIDDEN, "userActionRequired", "the terms were not agreed to");
        }
        let mut state = self.state();
        let known = state.account_of(&signed.key);
        let number = known.unwrap_or_else(|| {
            let contact = payload["contact"].clone();
            state.accounts.push(Account { key: signed.key.clone(), contact, valid: true });
            state.accounts.len() - 1
        });
        let mut answer = reply(if known.is_some() { 200 } else { 201 }, &json!({ "status": "valid" }));
        answer.headers_mut().insert(LOCATION, format!("{}/account/{number}", self.base).parse().expect("a URL"));
        answer
    }

    fn account(&self, signed: &Signed) -> Answer {
        let mut state = self.state();
        let ends = signed.payload.as_ref().is_some_and(|payload| payload["status"] == "deactivated");
        if let Some(number) = state.account_of(&signed.key).filter(|_| ends) {
            state.accounts[number].valid = false;
        }
        reply(200, &json!({ "status": if ends { "deactivated" } else { "valid" } }))
    }

    fn new_order(&self, signed: &Signed, manner: &Manner) -> Answer {
        if let Some(seconds) = manner.limited {
            let mut answer =
                problem(StatusCode::TOO_MANY_REQUESTS, "rateLimited", "too many certificates already issued");
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            return answer;
        }
        let payload = signed.payload.clone().unwrap_or_default();
        let name = match payload["identifiers"].as_array().map(Vec::as_slice) {
            Some([one]) if one["type"] == "dns" => one["value"].as_str().unwrap_or_default().to_owned(),
            other => return self.violated(format!("an order for {other:?}")),
        };
        if name.is_empty() || name.contains('*') || name != name.to_ascii_lowercase() {
            return self.violated(format!("an order for {name:?}"));
        }
        if manner.rejected.contains(&name) {
            return problem(StatusCode::BAD_REQUEST, "rejectedIdentifier", "policy forbids issuing for this name");
        }
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        let mut state = self.state();
        let Some(account) = state.account_of(&signed.key) else {
            return problem(StatusCode::BAD_REQUEST, "accountDoesNotExist", "who are you?");
        };
        let offers = manner.offers.clone();
        let tokens = offers.iter().map(|kind| (*kind, token())).collect();
        state.orders.push(Order {
            account,
            name,
            replaces,
            tokens,
            offers,
            status: "pending",
            error: None,
            chain: None,
        });
        let number = state.orders.len() - 1;
        drop(state);
        let mut answer = reply(201, &self.order(number));
        answer.headers_mut().insert(LOCATION, format!("{}/order/{number}", self.base).parse().expect("a URL"));
        answer
    }

    fn order(&self, number: usize) -> Value {
        let order = self.state().orders[number].clone();
        let mut shown = json!({
            "status": order.status,
            "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [format!("{}/authz/{number}", self.base)],
            "finalize": format!("{}/finalize/{number}", self.base),
        });
        if order.chain.is_some() {
            shown["certificate"] = format!("{}/cert/{number}", self.base).into();
        }
        if let Some(replaces) = order.replaces {
            shown["replaces"] = replaces.into();
        }
        shown
    }

    fn authorization(&self, number: usize) -> Value {
        let order = self.state().orders[number].clone();
        let status = match order.status {
            "pending" | "processing" => "pending",
            "invalid" => "invalid",
            _ => "valid",
        };
        let challenges: Vec<Value> = order.offers.iter().map(|kind| self.posed(number, &order, kind)).collect();
        json!({ "status": status, "identifier": { "type": "dns", "value": order.name }, "challenges": challenges })
    }

    fn posed(&self, number: usize, order: &Order, kind: &str) -> Value {
        let error = order.error.as_ref().filter(|(failed, _)| *failed == kind);
        let mut shown = json!({
            "type": kind,
            "url": format!("{}/chall/{number}/{kind}", self.base),
            "token": order.tokens[kind],
            "status": if error.is_some() { "invalid" } else { "pending" },
        });
        if let Some((_, error)) = error {
            shown["error"] = error.clone();
        }
        shown
    }

    fn challenge(self: Arc<Self>, number: usize, kind: &str, signed: &Signed) -> Answer {
        if signed.payload != Some(json!({})) {
            return self.violated("a challenge is begun with an empty object".into());
        }
        let (order, places, frozen) = {
            let mut state = self.state();
            let order = state.orders[number].clone();
            if order.status != "pending" {
                drop(state);
                return self.violated("a challenge that was begun before".into());
            }
            state.orders[number].status = "processing";
            (order, (state.http.clone(), state.tls.clone()), state.manner.frozen)
        };
        let Some(kind) = order.offers.iter().copied().find(|offered| *offered == kind) else {
            return self.violated(format!("the challenge {kind}, which is not offered"));
        };
        let answer = reply(200, &self.posed(number, &order, kind));
        if !frozen {
            let authorization = format!("{}.{}", order.tokens[kind], signed.key.thumbprint());
            tokio::spawn(async move {
                let looked = validate::look(kind, &order.name, &order.tokens[kind], &authorization, places).await;
                let mut state = self.state();
                match looked {
                    Ok(()) => {
                        *state.validated.entry(kind).or_default() += 1;
                        state.orders[number].status = "ready";
                    }
                    Err(what) => {
                        let error = json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": what });
                        state.orders[number].status = "invalid";
                        state.orders[number].error = Some((kind, error));
                    }
                }
            });
        }
        answer
    }

    fn finalize(&self, number: usize, signed: &Signed) -> Answer {
        let order = self.state().orders[number].clone();
        if order.status != "ready" {
            return problem(StatusCode::FORBIDDEN, "orderNotReady", "the order is not ready");
        }
        let request = signed.payload.as_ref().and_then(|payload| payload["csr"].as_str());
        let request = request.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).unwrap_or_default();
        match self.issue(&order.name, request) {
            Ok(chain) => {
                let mut state = self.state();
                state.orders[number].status = "valid";
                state.orders[number].chain = Some(chain);
            }
            Err(what) => {
                self.state().violations.push(what.clone());
                return problem(StatusCode::BAD_REQUEST, "badCSR", &what);
            }
        }
        reply(200, &self.order(number))
    }

    /// A certificate for exactly the name of the order.
    fn issue(&self, name: &str, request: Vec<u8>) -> Result<String, String> {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request).map_err(|error| error.to_string())?;
        let [SanType::DnsName(asked)] = request.params.subject_alt_names.as_slice() else {
            return Err("the request is not for one name".into());
        };
        if asked.as_str() != name {
            return Err(format!("the request is for {asked}, the order for {name}"));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let begin = now - Duration::from_secs(3600);
        request.params.not_before = date_time_ymd(1970, 1, 1) + begin;
        request.params.not_after = date_time_ymd(1970, 1, 1) + begin + self.state().manner.life;
        request.params.use_authority_key_identifier_extension = true;
        let certificate = request.signed_by(&self.issuer).map_err(|error| error.to_string())?;
        Ok(format!("{}{}", certificate.pem(), self.issuer.pem()))
    }
}

fn reply(status: u16, body: &Value) -> Answer {
    let body = Full::from(body.to_string());
    Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(body).expect("valid")
}

fn problem(status: StatusCode, kind: &str, detail: &str) -> Answer {
    let body =
        json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status.as_u16() });
    let body = Full::from(body.to_string());
    Response::builder().status(status).header(CONTENT_TYPE, "application/problem+json").body(body).expect("valid")
}

/// So many seconds from now, as RFC 3339 has it.
fn date(from_now: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let seconds = now.saturating_add_signed(from_now);
    let at = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", at.hour(), at.minute(), at.second())
}
