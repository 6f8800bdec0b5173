//! `ratelimit`: so many requests per period for each value of a variable, as vulcand's token bucket.
//!
//! Buckets survive every change of the frontend and of its servers; vulcand's did not.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::variable::Variable;
use super::{Answer, BadSettings, Kind, Middleware, Next, Request};
use crate::error::Error;

/// What the store calls it.
pub(super) const KIND: Kind = Kind { name: "ratelimit", build };

#[derive(Deserialize)]
struct Settings {
    #[serde(alias = "requests")]
    #[serde(rename = "Requests")]
    requests: u64,
    #[serde(alias = "periodSeconds", alias = "periodseconds", rename = "PeriodSeconds", default = "one")]
    period_seconds: u64,
    #[serde(alias = "burst", rename = "Burst", default = "one")]
    burst: u64,
    #[serde(alias = "variable", rename = "Variable", default = "client_ip")]
    variable: String,
}

struct RateLimit {
    /// How long one request's worth of the limit takes to come back.
    interval: Duration,
    burst: u64,
    variable: Variable,
    /// For each value, when its bucket is full again.
    full_at: Mutex<HashMap<u64, Instant>>,
    keys: RandomState,
}

impl RateLimit {
    /// Takes one request out of a bucket, or says after how long that will be possible. The bucket is kept as the
    /// moment when it is full again (GCRA): one instant per value, exact, nothing to refill.
    fn take(&self, value: u64, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_BUCKETS && !buckets.contains_key(&value) {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= MOST_BUCKETS {
                return Err(self.interval);
            }
        }
        let full_at = buckets.entry(value).or_insert(now);
        let next = (*full_at).max(now) + self.interval;
        let capacity = self.interval.saturating_mul(u32::try_from(self.burst).unwrap_or(u32::MAX));
        match next.saturating_duration_since(now).checked_sub(capacity).filter(|over| !over.is_zero()) {
            Some(over) => Err(over),
            None => {
                *full_at = next;
                Ok(())
            }
        }
    }
}

impl Middleware for RateLimit {
    fn handle<'a>(&'a self, request: Request, next: Next<'a>) -> Answer<'a> {
        match self.take(self.variable.of(&request.head, request.client, &self.keys), Instant::now()) {
            Ok(()) => next.run(request),
            Err(wait) => Box::pin(std::future::ready(Err(Error::Limited(whole_seconds(wait))))),
        }
    }
}

fn build(settings: &RawValue) -> Result<Arc<dyn Middleware>, BadSettings> {
    let settings: Settings = serde_json::from_str(settings.get())
        .map_err(|error| BadSettings { reason: format!("ratelimit: {error}"), hint: EXAMPLE.into() })?;
    if settings.requests == 0 || settings.period_seconds == 0 || settings.burst == 0 {
        return Err(BadSettings {
            reason: "ratelimit: Requests, PeriodSeconds and Burst must be above 0".into(),
            hint: EXAMPLE.into(),
        });
    }
    if settings.period_seconds > LONGEST_PERIOD {
        return Err(BadSettings {
            reason: format!("ratelimit: PeriodSeconds must be at most {LONGEST_PERIOD}, a year"),
            hint: EXAMPLE.into(),
        });
    }
    let interval = Duration::from_secs(settings.period_seconds).div_f64(settings.requests as f64);
    Ok(Arc::new(RateLimit {
        interval: interval.max(Duration::from_nanos(1)),
        burst: settings.burst,
        variable: Variable::parse(&settings.variable)?,
        full_at: Mutex::default(),
        keys: RandomState::new(),
    }))
}

fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).unwrap_or(u32::MAX)
}

fn one() -> u64 {
    1
}

fn client_ip() -> String {
    "client.ip".into()
}

/// In seconds.
const LONGEST_PERIOD: u64 = 365 * 24 * 60 * 60;
/// Values counted at once; past that new ones are limited, as memory is.
const MOST_BUCKETS: usize = 65_536;
const EXAMPLE: &str = r#"write {"Requests":10,"PeriodSeconds":1,"Burst":20,"Variable":"client.ip"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u64, burst: u64) -> RateLimit {
        RateLimit {
            interval: Duration::from_secs(1).div_f64(requests as f64),
            burst,
            variable: Variable::ClientIp,
            full_at: Mutex::default(),
            keys: RandomState::new(),
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limit = limit(10, 3);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(limit.take(1, start), Ok(()));
        }
        assert_eq!(limit.take(1, start), Err(Duration::from_millis(100)));
        assert_eq!(limit.take(2, start), Ok(()));
        assert_eq!(limit.take(1, start + Duration::from_millis(100)), Ok(()));
        assert!(limit.take(1, start + Duration::from_millis(150)).is_err());
    }

    #[test]
    fn settings_are_read_as_vulcand_writes_them() {
        let read = |text: &str| build(&RawValue::from_string(text.into()).unwrap()).map(|_| ());
        assert!(read(r#"{"Requests":1,"PeriodSeconds":1,"Burst":3,"Variable":"client.ip"}"#).is_ok());
        assert!(read(r#"{"requests":1,"variable":"request.header.X-Key"}"#).is_ok());
        assert!(read(r#"{"Requests":0}"#).is_err());
        assert!(read(r#"{"Requests":1,"PeriodSeconds":9223372036854775807}"#).is_err());
        assert!(read(r#"{"Requests":1,"Variable":"moon"}"#).is_err());
        assert!(read(r#"[]"#).is_err());
    }
}
