//! Routes that are gone and whose time is over: what still streams by them ends.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::telemetry::metrics::RouteId;

/// One worker's. Bounded by the number of routes that metrics tell apart.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    any: Cell<bool>,
    /// The last generation whose requests end.
    until: RefCell<HashMap<RouteId, u64, RandomState>>,
}

impl Cuts {
    /// Requests by this route end that began under `generation` or an earlier one.
    pub(super) fn add(&self, route: RouteId, generation: u64) {
        self.any.set(true);
        let mut until = self.until.borrow_mut();
        let last = until.entry(route).or_default();
        *last = generation.max(*last);
    }

    /// As long as no route is gone, this costs a look at a flag.
    pub(super) fn has(&self, route: impl FnOnce() -> Option<RouteId>, generation: u64) -> bool {
        self.any.get()
            && route().is_some_and(|route| self.until.borrow().get(&route).is_some_and(|until| generation <= *until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Names;

    #[test]
    fn only_what_began_before_is_cut() {
        let names = Names::new();
        let listener = names.listener("inbound");
        let [gone, other] = ["gone", "other"].map(|name| names.route(listener, name));
        let cuts = Cuts::default();
        assert!(!cuts.has(|| Some(gone), 1));
        cuts.add(gone, 3);
        cuts.add(gone, 2);
        assert!(cuts.has(|| Some(gone), 1) && cuts.has(|| Some(gone), 3));
        assert!(!cuts.has(|| Some(gone), 4), "the route has come back");
        assert!(!cuts.has(|| Some(other), 1) && !cuts.has(|| None, 1));
    }
}
