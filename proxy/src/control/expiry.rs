//! Certificates that end while they serve: nothing changes in the store then, so the clock is looked at.
//!
//! They serve on, as some clients can be told to go on. Not here: certificates that have ended when they are put
//! (`table/edge.rs`), which do not replace one that holds.

use std::time::{Duration, Instant, SystemTime};

use etna_store::{Key, Problem};

use super::follow::Control;
use crate::tls::certificate::Certificate;

/// What is known of the certificates that serve.
#[derive(Default)]
pub(super) struct Expiry {
    looked: Option<Instant>,
    /// Of hosts whose certificate has ended, or soon will.
    pub(super) problems: Vec<Problem>,
}

impl Control {
    /// Looks at the certificates that serve, every few seconds.
    pub(super) fn watch_expiry(&mut self) {
        if self.expiry.looked.is_some_and(|looked| looked.elapsed() < BETWEEN) {
            return;
        }
        self.expiry.looked = Some(Instant::now());
        let now = SystemTime::now();
        let table = self.state.live.table();
        let problems: Vec<Problem> =
            table.certificates.iter().filter_map(|certificate| problem(certificate, now)).collect();
        if problems != self.expiry.problems {
            self.expiry.problems = problems;
            self.news = true;
        }
    }
}

/// What is wrong with a certificate because of the time.
fn problem(certificate: &Certificate, now: SystemTime) -> Option<Problem> {
    let ends = certificate.not_after;
    let date = httpdate::fmt_http_date(ends);
    let (reason, hint, effect) = if ends <= now {
        (format!("the certificate ended {date}"), ENDED_HINT, ENDED_EFFECT)
    } else if now < certificate.not_before {
        let date = httpdate::fmt_http_date(certificate.not_before);
        (format!("the certificate does not hold before {date}"), ENDED_HINT, ENDED_EFFECT)
    } else if ends.duration_since(now).unwrap_or_default() < notice(certificate) {
        (format!("the certificate ends {date}"), "put the next one", "after that clients will complain")
    } else {
        return None;
    };
    Some(Problem {
        key: Key::Host(certificate.host.clone()).to_string(),
        reason,
        hint: hint.into(),
        line: None,
        column: None,
        effect: effect.into(),
    })
}

/// How long before its end a certificate is told of: a week, less where it holds for weeks itself.
fn notice(certificate: &Certificate) -> Duration {
    let holds = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    WEEK.min(holds / 10)
}

/// As the compiler says of one that had ended when it was put.
pub(crate) const ENDED_HINT: &str = "put a certificate that holds now; if this one does, correct the clock";
/// The same.
pub(crate) const ENDED_EFFECT: &str = "it serves all the same; clients will complain";
const BETWEEN: Duration = Duration::from_secs(5);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_a_week_before_or_a_tenth_of_its_time() {
        let pair = crate::tls::testing::pair(&["a.test"]);
        let mut certificate = Certificate::read("a.test".into(), &pair).unwrap();
        let day = Duration::from_secs(86_400);
        certificate.not_before = SystemTime::UNIX_EPOCH + 1000 * day;
        for (days, notice) in [(90, 7), (50, 5)] {
            certificate.not_after = certificate.not_before + days * day;
            let told = |at: SystemTime| problem(&certificate, at).map(|problem| problem.reason);
            assert_eq!(told(certificate.not_before), None);
            assert_eq!(told(certificate.not_after - notice * day), None);
            let soon = told(certificate.not_after - notice * day + Duration::from_secs(1)).unwrap();
            assert!(soon.starts_with("the certificate ends "), "{soon}");
            assert!(told(certificate.not_after).unwrap().starts_with("the certificate ended "));
            let early = told(certificate.not_before - Duration::from_secs(1)).unwrap();
            assert!(early.starts_with("the certificate does not hold before "), "{early}");
        }
    }
}
