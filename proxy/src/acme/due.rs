//! When something is to be done for a host, and how. Pure: the clock and chance are arguments.

use std::time::{Duration, SystemTime};

use etna_store::object::Challenge;
use sha2::{Digest as _, Sha256};

use super::Subject;
use super::names::time;
use crate::tls::certificate::Certificate;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Get a certificate.
    Order,
    /// Ask the authority when it wants the certificate renewed (RFC 9773).
    Ask,
}

/// What is to be done next for a host, and not before when. `directory` is where the host's certificates come from.
pub fn next(subject: &Subject, directory: &str) -> (SystemTime, Task) {
    let record = &subject.record;
    let retry = if record.failures_with(&subject.acme, directory) > 0 { time(record.retry_at) } else { PAST };
    // A key pair goes first for as long as it can be used.
    let from = retry.max(subject.key_pair_until.unwrap_or(PAST));
    let Some(certificate) = subject.certificate.as_ref().filter(|known| known.is_for(&subject.host)) else {
        return (from, Task::Order);
    };
    let is_known = record.certificate == certificate.fingerprint;
    if is_known && record.directory != directory {
        return (from, Task::Order);
    }
    let renew = renewal(certificate, subject, is_known);
    let ask = record.ask_at.filter(|_| is_known).map_or(PAST, time);
    if ask < renew { (from.max(ask), Task::Ask) } else { (from.max(renew), Task::Order) }
}

/// When a certificate is renewed: when the authority said, and at the latest as the host's settings say. Hosts that got
/// theirs at the same time do not renew them at the same time.
fn renewal(certificate: &Certificate, subject: &Subject, is_known: bool) -> SystemTime {
    let (begin, end) = (certificate.not_before, certificate.not_after);
    let life = end.duration_since(begin).unwrap_or_default();
    let before = |time: Duration| end.checked_sub(time).unwrap_or(PAST).max(begin);
    let told = subject.record.renew_at.filter(|_| is_known).map(time);
    match (told, subject.acme.renew_before) {
        // Whatever an authority says, there must be time to try again.
        (Some(told), None) => told.min(before(life / 10)),
        (Some(told), Some(wanted)) => told.min(before(wanted.min(life * 9 / 10))),
        (None, wanted) => {
            // What is wanted may be longer than it lives at all.
            let usual = wanted.unwrap_or((life / 3).min(MONTH)).min(life * 9 / 10);
            let jitter = (life / 30).mul_f64(fraction(&subject.host, ""));
            before((usual + jitter).min(life * 9 / 10))
        }
    }
}

/// A moment within what the authority suggests (RFC 9773 section 4.2); `chance` is in 0..1.
pub fn within(start: SystemTime, end: SystemTime, chance: f64) -> SystemTime {
    start + end.duration_since(start).unwrap_or_default().mul_f64(chance.clamp(0.0, 1.0))
}

/// How long to wait after so many failures: 1 minute, doubled each time up to 12 hours, half of it by chance; or as
/// long as the authority said.
pub fn back_off(failures: u32, told: Option<Duration>, chance: f64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0).max(told.unwrap_or_default().min(LONGEST_TOLD))
}

/// A moment after which this proxy sets about what is due, so that proxies rarely do at once: a fraction of
/// `longest`.
pub fn lag(host: &str, proxy: &str, longest: Duration) -> Duration {
    longest.mul_f64(fraction(host, proxy))
}

/// The same for a host and a proxy whenever asked, in 0..1.
fn fraction(host: &str, proxy: &str) -> f64 {
    let digest = Sha256::new().chain_update(host).chain_update("\n").chain_update(proxy).finalize();
    let number = digest.iter().take(4).fold(0u32, |number, byte| (number << 8) | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0)
}

/// Where we can answer.
#[derive(Clone, Copy, Debug)]
pub struct Answerable {
    /// There is a listener in the clear.
    pub http: bool,
    /// There is one that speaks TLS.
    pub tls: bool,
}

/// Which challenge to take of those the authority offers. Where both would do, the second is tried after a failure
/// with the first, and so on in turn: one of the ports may not be reachable from outside.
pub fn choose(
    wanted: Challenge,
    offered: &[Challenge],
    answerable: Answerable,
    failures: u32,
) -> Result<Challenge, String> {
    let fits = |kind: Challenge| {
        let can = if kind == Challenge::Http01 { answerable.http } else { answerable.tls };
        (wanted == Challenge::Any || wanted == kind) && can && offered.contains(&kind)
    };
    let fitting: Vec<Challenge> = [Challenge::Http01, Challenge::TlsAlpn01].into_iter().filter(|k| fits(*k)).collect();
    if let Some(kind) = fitting.get(failures as usize % fitting.len().max(1)) {
        return Ok(*kind);
    }
    let names = |kinds: &[Challenge]| match kinds {
        [] => "none that we know".to_owned(),
        kinds => kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" and "),
    };
    let have = match (answerable.http, answerable.tls) {
        (true, true) => "listeners for both",
        (true, false) => "no listener that speaks TLS",
        (false, true) => "no listener for HTTP in the clear",
        (false, false) => "no listener",
    };
    Err(format!(
        "no challenge can be answered: wanted is {}, offered {}, and there is {have}",
        wanted.name(),
        names(offered)
    ))
}

const PAST: SystemTime = SystemTime::UNIX_EPOCH;
const MONTH: Duration = Duration::from_secs(30 * 86_400);
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 3600);
/// The longest an authority may tell us to wait.
const LONGEST_TOLD: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use etna_store::object::Acme;

    use super::super::names::{Record, seconds, settings};
    use super::*;
    use crate::tls::testing::pair;

    const DAY: u64 = 86_400;
    const BEGIN: u64 = 1_800_000_000;

    /// A host with a certificate of so many days.
    fn subject(days: u64) -> Subject {
        let mut certificate = Certificate::read("a.test".into(), &pair(&["a.test"])).unwrap();
        (certificate.not_before, certificate.not_after) = (time(BEGIN), time(BEGIN + days * DAY));
        let record = Record {
            directory: "d".into(),
            certificate: certificate.fingerprint.clone(),
            ask_at: Some(BEGIN + 400 * DAY),
            ..Record::default()
        };
        Subject { certificate: Some(Arc::new(certificate)), record, ..Subject::new("a.test".into(), Acme::default()) }
    }

    fn day(subject: &Subject) -> (f64, Task) {
        let (at, task) = next(subject, "d");
        ((seconds(at) as f64 - BEGIN as f64) / DAY as f64, task)
    }

    #[test]
    fn a_third_before_the_end_or_thirty_days_or_as_wanted() {
        for (days, wanted, from, to) in [
            (90, None, 57.0, 60.0),
            (6, None, 3.8, 4.0),
            (398, None, 354.0, 368.0),
            (90, Some(10), 77.0, 80.0),
            // Longer than it lives.
            (90, Some(100), 9.0, 9.1),
        ] {
            let mut subject = subject(days);
            subject.acme.renew_before = wanted.map(|days| Duration::from_secs(days * DAY));
            let (at, task) = day(&subject);
            assert!((from..=to).contains(&at) && task == Task::Order, "{days} {wanted:?}: {at}");
        }
    }

    #[test]
    fn the_authority_is_asked_and_obeyed() {
        let mut subject = subject(90);
        subject.record.ask_at = Some(BEGIN + DAY);
        assert_eq!(day(&subject), (1.0, Task::Ask));
        subject.record.renew_at = Some(BEGIN + 20 * DAY);
        assert_eq!(day(&subject), (1.0, Task::Ask));
        subject.record.ask_at = Some(BEGIN + 21 * DAY);
        assert_eq!(day(&subject), (20.0, Task::Order));
        subject.record.renew_at = Some(BEGIN + 1000 * DAY);
        subject.record.ask_at = Some(BEGIN + 900 * DAY);
        assert_eq!(day(&subject), (81.0, Task::Order), "never so late that nothing may go wrong");
        subject.acme.renew_before = Some(Duration::from_secs(30 * DAY));
        assert_eq!(day(&subject), (60.0, Task::Order));
        // What is known of another certificate says nothing about this one.
        subject.record.certificate = "other".into();
        subject.record.renew_at = Some(BEGIN);
        assert_eq!(day(&subject).1, Task::Ask);
    }

    #[test]
    fn without_a_certificate_at_once_unless_that_failed() {
        let mut subject = Subject::new("a.test".into(), Acme::default());
        assert_eq!(next(&subject, "d"), (PAST, Task::Order));
        subject.record =
            Record { failures: 2, retry_at: BEGIN, settings: settings(&subject.acme, "d"), ..Record::default() };
        assert_eq!(next(&subject, "d"), (time(BEGIN), Task::Order));
        assert_eq!(next(&subject, "corrected"), (PAST, Task::Order));
        subject.key_pair_until = Some(time(BEGIN + DAY));
        assert_eq!(next(&subject, "d"), (time(BEGIN + DAY), Task::Order));
    }

    #[test]
    fn a_certificate_of_another_directory_or_name_is_replaced() {
        let subject = subject(90);
        assert_eq!(next(&subject, "production"), (PAST, Task::Order));
        let renamed = Subject { host: "b.test".into(), ..subject };
        assert_eq!(next(&renamed, "d"), (PAST, Task::Order));
    }

    #[test]
    fn pauses_double_and_obey() {
        let full = |failures| back_off(failures, None, 1.0).as_secs();
        assert_eq!([1, 2, 3, 10, 11, 1000].map(full), [60, 120, 240, 30_720, 43_200, 43_200]);
        assert_eq!(back_off(1, None, 0.0).as_secs(), 30);
        assert_eq!(back_off(1, Some(Duration::from_secs(3600)), 0.0).as_secs(), 3600);
        assert_eq!(back_off(1, Some(Duration::MAX), 0.0), LONGEST_TOLD);
    }

    #[test]
    fn moments_are_within_their_windows() {
        assert_eq!(within(time(10), time(20), 0.5), time(15));
        assert_eq!(within(time(20), time(10), 0.5), time(20));
        let lags: Vec<Duration> = ["a", "b", "c"].map(|proxy| lag("h", proxy, Duration::from_secs(10))).into();
        assert!(lags.iter().all(|lag| lag.as_secs() < 10) && lags[0] != lags[1] && lags[1] != lags[2]);
    }

    #[test]
    fn the_challenge_that_can_be_answered() {
        use Challenge::{Any, Http01, TlsAlpn01};
        let both = Answerable { http: true, tls: true };
        let plain = Answerable { http: true, tls: false };
        let offered = [Http01, TlsAlpn01];
        assert_eq!(choose(Any, &offered, both, 0), Ok(Http01));
        assert_eq!(choose(Any, &offered, both, 1), Ok(TlsAlpn01));
        assert_eq!(choose(Any, &offered, plain, 1), Ok(Http01));
        assert_eq!(choose(TlsAlpn01, &offered, both, 0), Ok(TlsAlpn01));
        assert!(choose(TlsAlpn01, &offered, plain, 0).unwrap_err().contains("no listener that speaks TLS"));
        assert!(choose(Any, &[], both, 0).unwrap_err().contains("offered none"));
        assert!(choose(Http01, &[TlsAlpn01], both, 3).is_err());
    }
}
