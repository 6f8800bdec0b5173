//! Drills: the control surface.

mod browser;
mod examples;
mod roles;
mod secrets;
mod token;
mod transport;
mod units;

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "S1", what: "units are confined", quick: true, run: |length| Box::pin(units::confined(length)) },
    Drill { id: "S2", what: "admin API's transport", quick: true, run: |length| Box::pin(transport::guarded(length)) },
    Drill {
        id: "S3",
        what: "rebinding, cross-site requests",
        quick: true,
        run: |length| Box::pin(browser::foreign(length)),
    },
    Drill {
        id: "S4",
        what: "any request to the admin API",
        quick: true,
        run: |length| Box::pin(examples::any(length)),
    },
    Drill { id: "S5", what: "secrets in the clear", quick: true, run: |length| Box::pin(secrets::hidden(length)) },
    Drill { id: "S7", what: "etcd roles, as documented", quick: true, run: |length| Box::pin(roles::denied(length)) },
    Drill {
        id: "S8",
        what: "tokens, and the audit trail",
        quick: true,
        run: |length| Box::pin(token::audited(length)),
    },
];
