//! What is counted of certificates by ACME.

use super::{Kind, family, sample};
use crate::acme::{Status, due, names};
use crate::control::State;
use crate::table::Table;

/// What was done for certificates by ACME; nothing where no host wants any.
pub(super) fn write(state: &State, table: &Table, out: &mut String) {
    if table.acme.is_empty() {
        return;
    }
    let Status { issued, failed, limited, lost, restarts, .. } = &state.acme;
    let help = "Orders of certificates that this proxy made, by result; rate_limited are among the failed.";
    family(out, "etna_acme_orders_total", help, Kind::Counter);
    for (result, counter) in [("ok", issued), ("failed", failed), ("rate_limited", limited), ("lost", lost)] {
        sample(out, "etna_acme_orders_total", &[("result", result)], counter.get());
    }
    let help = "Times looking after certificates broke and was started again.";
    family(out, "etna_acme_restarts_total", help, Kind::Counter);
    sample(out, "etna_acme_restarts_total", &[], restarts.get());
    family(out, "etna_acme_challenges", "Challenges that are answered now.", Kind::Gauge);
    sample(out, "etna_acme_challenges", &[], table.challenges.count());
    let help = "When something is done next for a host's certificate, in seconds since 1970.";
    family(out, "etna_acme_next_seconds", help, Kind::Gauge);
    for subject in table.acme.values() {
        let (at, _) = due::next(subject, state.acme.settings.directory(&subject.acme));
        sample(out, "etna_acme_next_seconds", &[("host", &subject.host)], names::seconds(at));
    }
    let help = "Attempts in a row that gave a host no certificate.";
    family(out, "etna_acme_failures", help, Kind::Gauge);
    for subject in table.acme.values() {
        let failures = subject.record.failures_with(&subject.acme, state.acme.settings.directory(&subject.acme));
        sample(out, "etna_acme_failures", &[("host", &subject.host)], failures);
    }
}
