//! Which backend has which slot. One that no frontend names and that is not there gives its slot to another.

use std::collections::HashMap;
use std::sync::Arc;

use etna_store::Frontend;
use etna_store::object::Id;

use crate::backend::{Backend, Slot};

/// The slots of the tables that come one after the other.
#[derive(Default)]
pub(super) struct Slots {
    taken: HashMap<Id, Taken>,
    free: Vec<Slot>,
}

/// A slot with a backend's name on it.
struct Taken {
    slot: Slot,
    /// How many times frontends name it.
    named: usize,
}

/// A table's backends.
type Backends = imbl::Vector<Option<Arc<Backend>>>;

impl Slots {
    /// A backend's slot.
    pub(super) fn of(&mut self, id: &Id, backends: &mut Backends) -> Slot {
        if let Some(taken) = self.taken.get(id) {
            return taken.slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            backends.push_back(None);
            // Slots are 32 bits wide; a store cannot hold as many backends.
            Slot(u32::try_from(backends.len() - 1).unwrap_or(u32::MAX))
        });
        self.taken.insert(id.clone(), Taken { slot, named: 0 });
        slot
    }

    /// A frontend names its backends, all of which have slots.
    pub(super) fn name(&mut self, frontend: &Frontend) {
        for id in backends_of(frontend) {
            if let Some(taken) = self.taken.get_mut(id) {
                taken.named += 1;
            }
        }
    }

    /// A frontend no longer names them.
    pub(super) fn forget(&mut self, frontend: &Frontend, backends: &Backends) {
        for id in backends_of(frontend) {
            if let Some(taken) = self.taken.get_mut(id) {
                taken.named -= 1;
            }
            self.free(id, backends);
        }
    }

    /// Makes a backend's slot another's, unless it is named or the backend is there.
    pub(super) fn free(&mut self, id: &Id, backends: &Backends) {
        let is_there = |slot: Slot| backends.get(slot.0 as usize).is_some_and(Option::is_some);
        if self.taken.get(id).is_some_and(|taken| taken.named == 0 && !is_there(taken.slot)) {
            self.free.extend(self.taken.remove(id).map(|taken| taken.slot));
        }
    }
}

/// The backends that a frontend names.
fn backends_of(frontend: &Frontend) -> impl Iterator<Item = &Id> {
    let elsewhere = frontend.elsewhere.as_ref().map(|elsewhere| &elsewhere.backend);
    [Some(&frontend.backend), frontend.fallback.as_ref(), elsewhere].into_iter().flatten()
}
