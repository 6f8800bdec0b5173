//! Drills: servers that die, hang, flap and talk nonsense.

use crate::drill::Drill;
use crate::{backends_gone as gone, backends_ill as ill, backends_lies as lies, backends_sticky as sticky};

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "B1", what: "kill -9 one of three servers", quick: true, run: |length| Box::pin(gone::killed(length)) },
    Drill {
        id: "B2",
        what: "SIGSTOP one of three servers",
        quick: false,
        run: |length| Box::pin(gone::stopped(length)),
    },
    Drill { id: "B4", what: "a server up 1 s, down 1 s", quick: false, run: |length| Box::pin(gone::flapping(length)) },
    Drill {
        id: "B5",
        what: "all checks fail, servers serve",
        quick: true,
        run: |length| Box::pin(ill::unchecked(length)),
    },
    Drill {
        id: "B6",
        what: "a server answers 503, others are busy",
        quick: true,
        run: |length| Box::pin(ill::refusing(length)),
    },
    Drill {
        id: "B7",
        what: "broken, endless, ambiguous responses",
        quick: true,
        run: |length| Box::pin(lies::told(length)),
    },
    Drill {
        id: "B8",
        what: "a response after the response",
        quick: true,
        run: |length| Box::pin(lies::poisoned(length)),
    },
    Drill { id: "B9", what: "packets to a server vanish", quick: true, run: |length| Box::pin(gone::vanished(length)) },
    Drill {
        id: "B10",
        what: "a sticky server goes and comes back",
        quick: true,
        run: |length| Box::pin(sticky::moved(length)),
    },
];
