//! `ratelimit`: so many requests per period for each value of a variable, as vulcand's token bucket.
//!
//! Buckets survive every change of the frontend and of its servers; vulcand's did not. Which rates hold may be said by a
//! header field of each request (`RateVar`); what that says badly, or not at all, leaves the rate of the settings.

mod buckets;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::HeaderName;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::variable::Variable;
use super::{Answer, BadSettings, Kind, Middleware, Next, Request};
use crate::error::Error;
use crate::message::fields::Fields;
use buckets::{Buckets, Rate};

/// What the store calls it.
pub(super) const KIND: Kind = Kind { name: "ratelimit", build };

#[derive(Deserialize)]
struct Settings {
    #[serde(flatten)]
    rate: Written,
    #[serde(alias = "variable", rename = "Variable", default = "client_ip")]
    variable: String,
    #[serde(alias = "rateVar", alias = "ratevar", rename = "RateVar", default)]
    rate_var: String,
}

/// A rate as it is written, in settings and in a field.
#[derive(Deserialize)]
struct Written {
    #[serde(alias = "requests", rename = "Requests")]
    requests: u64,
    #[serde(alias = "periodSeconds", alias = "periodseconds", rename = "PeriodSeconds", default = "one")]
    period_seconds: u64,
    #[serde(alias = "burst", rename = "Burst")]
    burst: Option<u64>,
}

struct RateLimit {
    rate: Rate,
    variable: Variable,
    /// The field that says which rates hold for a request.
    rates: Option<HeaderName>,
    buckets: Mutex<Buckets>,
    keys: RandomState,
}

impl RateLimit {
    /// Takes one request out of a value's buckets, or says after how long that will be possible.
    fn take(&self, value: u64, fields: &Fields, now: Instant) -> Result<(), Duration> {
        let said = self.rates.as_ref().and_then(|name| said(fields, name));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            None => buckets.take(&[(value, self.rate)], now),
            // Each rate has its own bucket, which is another where the rate is another.
            Some(rates) => {
                let each = rates.into_iter().map(|rate| (self.keys.hash_one((value, rate)), rate));
                buckets.take(&each.collect::<Vec<_>>(), now)
            }
        }
    }
}

impl Middleware for RateLimit {
    fn handle<'a>(&'a self, request: Request, next: Next<'a>) -> Answer<'a> {
        let value = self.variable.of(&request.head, request.client, &self.keys);
        match self.take(value, &request.head.fields, Instant::now()) {
            Ok(()) => next.run(request),
            Err(wait) => Box::pin(std::future::ready(Err(Error::Limited(wait)))),
        }
    }
}

impl Written {
    /// The rate that is meant; `None` where there is no such rate. `Burst` that is not given is 1 in settings, and as
    /// many as the requests in a field, as in vulcand.
    fn rate(&self, burst: u64) -> Option<Rate> {
        let burst = self.burst.unwrap_or(burst);
        let is_one = self.requests > 0 && burst > 0 && self.period_seconds > 0 && self.period_seconds <= LONGEST_PERIOD;
        is_one.then(|| Rate::new(self.requests, Duration::from_secs(self.period_seconds), burst))
    }
}

/// The rates that a field of a request says: `[{"PeriodSeconds":1,"Requests":2,"Burst":3}]`.
fn said(fields: &Fields, name: &HeaderName) -> Option<Vec<Rate>> {
    let field = fields.get(name.as_str()).filter(|field| field.len() <= LONGEST_FIELD)?;
    let written: Vec<Written> = serde_json::from_slice(field).ok()?;
    if written.is_empty() || written.len() > MOST_RATES {
        return None;
    }
    let of = |written: &Written| match written.burst {
        Some(0) => Written { burst: None, ..*written }.rate(written.requests),
        _ => written.rate(written.requests),
    };
    written.iter().map(of).collect()
}

fn build(settings: &RawValue) -> Result<Arc<dyn Middleware>, BadSettings> {
    let bad = |reason: String| BadSettings { reason: format!("ratelimit: {reason}"), hint: EXAMPLE.into() };
    let settings: Settings = serde_json::from_str(settings.get()).map_err(|error| bad(error.to_string()))?;
    if settings.rate.period_seconds > LONGEST_PERIOD {
        return Err(bad(format!("PeriodSeconds must be at most {LONGEST_PERIOD}, a year")));
    }
    let rate = settings.rate.rate(1);
    let rate = rate.ok_or_else(|| bad("Requests, PeriodSeconds and Burst must be above 0".into()))?;
    Ok(Arc::new(RateLimit {
        rate,
        variable: Variable::parse(&settings.variable)?,
        rates: field_of(&settings.rate_var)?,
        buckets: Mutex::default(),
        keys: RandomState::new(),
    }))
}

/// The field that `RateVar` names.
fn field_of(text: &str) -> Result<Option<HeaderName>, BadSettings> {
    match Variable::parse(text) {
        _ if text.is_empty() => Ok(None),
        Ok(Variable::Header(name)) => Ok(Some(name)),
        Ok(_) | Err(_) => Err(BadSettings {
            reason: format!("ratelimit: RateVar {text:?} is not a header of the request"),
            hint: "write request.header.<Name>".into(),
        }),
    }
}

fn one() -> u64 {
    1
}

fn client_ip() -> String {
    "client.ip".into()
}

/// In seconds.
const LONGEST_PERIOD: u64 = 365 * 24 * 60 * 60;
/// Of a field that says rates, in bytes; one that is longer says none.
const LONGEST_FIELD: usize = 1024;
/// That a field may say.
const MOST_RATES: usize = 8;
const EXAMPLE: &str = r#"write {"Requests":10,"PeriodSeconds":1,"Burst":20,"Variable":"client.ip"}"#;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(text: &str) -> Result<(), BadSettings> {
        build(&RawValue::from_string(text.into()).unwrap()).map(|_| ())
    }

    #[test]
    fn settings_are_read_as_vulcand_writes_them() {
        assert!(read(r#"{"Requests":1,"PeriodSeconds":1,"Burst":3,"Variable":"client.ip"}"#).is_ok());
        assert!(read(r#"{"requests":1,"variable":"request.header.X-Key"}"#).is_ok());
        assert!(read(r#"{"Requests":1,"RateVar":""}"#).is_ok());
        assert!(read(r#"{"Requests":1,"RateVar":"request.header.X-Rates"}"#).is_ok());
        for bad in [
            r#"{"Requests":0}"#,
            r#"{"Requests":1,"Burst":0}"#,
            r#"{"Requests":1,"PeriodSeconds":9223372036854775807}"#,
            r#"{"Requests":1,"Variable":"moon"}"#,
            r#"{"Requests":1,"RateVar":"client.ip"}"#,
            r#"{"Requests":1,"RateVar":"X-Rates"}"#,
            "[]",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_may_say_its_rates() {
        let limit = RateLimit {
            rate: Rate::new(1, Duration::from_secs(1), 1),
            variable: Variable::ClientIp,
            rates: Some("x-rates".parse().unwrap()),
            buckets: Mutex::default(),
            keys: RandomState::new(),
        };
        let start = Instant::now();
        let passed = |value: u64, said: &str| {
            let mut fields = Fields::default();
            if !said.is_empty() {
                fields.append(&HeaderName::from_static("x-rates"), &HeaderValue::from_str(said).unwrap());
            }
            (0..20).filter(|_| limit.take(value, &fields, start).is_ok()).count()
        };
        assert_eq!(passed(1, ""), 1);
        assert_eq!(passed(1, r#"[{"PeriodSeconds":1,"Requests":2,"Burst":3}]"#), 3);
        // As many as the requests, where there is no burst.
        assert_eq!(passed(1, r#"[{"periodSeconds":1,"requests":5,"Burst":0}]"#), 5);
        assert_eq!(passed(2, r#"[{"Requests":4}]"#), 4);
        // All of them must admit it.
        assert_eq!(passed(3, r#"[{"Requests":9},{"PeriodSeconds":60,"Requests":6},{"Requests":7}]"#), 6);
        // What is said badly leaves the rate of the settings.
        let many = format!("[{}]", [r#"{"Requests":9}"#; 9].join(","));
        let long = format!(r#"[{{"Requests":9}}]{}"#, " ".repeat(1024));
        let bad = ["[]", "{}", "9", r#"[{"Requests":0}]"#, r#"[{"Requests":9},{"Requests":-1}]"#, &many, &long];
        for (value, said) in bad.iter().enumerate() {
            assert_eq!(passed(100 + value as u64, said), 1, "{said}");
        }
    }
}
