//! Every key of what becomes of more requests than there is room for: queues, limits that find themselves, brownouts.

use std::time::Duration;

use crate::config::schema::{Located, schema};
use crate::config::values::{Name, OrOff};

schema! {
    /// A limit for each upstream that follows the upstream's own answers: it rises while they take what they always take, and falls when they take longer. What it has no room for waits in the route's queue, or is answered 503. Counted is the time to the head of an answer of a backend, below 500, to a request that the client had sent whole: slow clients, errors and refusals of ours do not move it.
    AdaptiveAdmission of "process or upstream" {
        /// Do it.
        enabled: default bool = "true";
        /// The limit of an upstream falls no lower.
        min_limit: default u32 = "16", 1..=1_000_000;
        /// It rises no higher. Left out: to per_upstream_inflight_limit, which holds in any case.
        max_limit: optional u32, 1..=10_000_000;
        /// How much longer than unloaded answers may take, in percent. More lets more wait at the backends.
        tolerance_percent: default u32 = "25", 10..=1_000;
    }
    later []

    /// Pressure is the fullest of: global_inflight_limit, the limits of each upstream (of its backends together, or what adaptive_admission has found; who waits counts too), and memory_soft_limit. While there is a brownout, requests of other routes are answered 503, and count as pressure in proportion.
    Brownout of "process" {
        /// Names of the routes that are served in any case.
        core_routes: required Vec<Located<Name>>;
        /// It begins at this pressure, in percent.
        enter: default u32 = "90", 1..=1_000;
        /// Once there has been as much for so long.
        enter_after: default Duration = "2s", 0..=3_600_000;
        /// It ends below this pressure, in percent.
        leave: default u32 = "70", 1..=1_000;
        /// Once there has been less for so long.
        leave_after: default Duration = "10s", 0..=3_600_000;
    }
    later []

    /// Requests wait for a unit of per_upstream_inflight_limit and for a backend with one of per_backend_inflight_limit, in the queue of their route. Clients take turns there, and each is served in the order of its requests. Who waits is in flight for global_inflight_limit and max_inflight_per_address. A queue that is full, and a wait that is too long, are answered 503.
    RouteQueue of "process" {
        /// Requests of one route that may wait at once, or "off": none waits. A route that splits has a queue for each upstream; workers share it evenly.
        max_length: default OrOff<u32> = "off", 1..=1_000_000;
        /// Requests of one client that may wait at once for one upstream, by the same address as max_inflight_per_address. Left out: a quarter of the route's queue.
        max_length_per_address: optional u32, 1..=1_000_000;
        /// How long a request waits at most.
        max_wait: default Duration = "1s", 1..=60_000;
    }
    later []
}
