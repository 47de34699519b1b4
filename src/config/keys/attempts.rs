//! The keys of attempts where an upstream or a route differs from `[resilience]`.

use std::time::Duration;

use crate::config::schema::{Located, choice, schema};
use crate::config::values::{Bytes, OrOff};
use crate::resilience::Condition;

schema! {
    /// Another attempt beside one that has no answer yet, on another backend: the first final head wins, and the other attempt is cancelled. Only for GET, HEAD and OPTIONS without body. Each takes its permit from the retry budget, counts among `attempts`, and holds a place of its backend. Written for an upstream or route, it stands in place of what was written above as a whole.
    Hedging of "process, upstream or route" {
        /// Switched off, nothing written above holds either.
        enabled: default bool = "true";
        /// How long a request may be without a final head before another attempt begins. This or `at` has to be written.
        delay: optional Duration, 1..=60_000;
        /// The same, measured: what 90, 95 or 99 of a hundred answers of the route do not take longer than. Each worker measures its own; before 100 answers there is no hedge.
        at: optional Percentile;
        /// Never sooner than this, with `at`.
        least_delay: default Duration = "5ms", 1..=60_000;
        /// Attempts that may begin beside the first, each after the delay.
        max: default u32 = "1", 1..=3;
    }
    later []

    /// Further attempts; what is left out is as the upstream says, or [resilience.retry].
    RetryOf of "upstream or route" {
        /// Attempts for one request at most, the first one included.
        attempts: optional u32, 1..=10;
        /// After what another attempt is made.
        on: optional Vec<Located<Condition>>;
        /// How long a backend may take to answer an idempotent request with a head before the next one is asked, or "off".
        per_try_timeout: optional OrOff<Duration>, 1..=86_400_000;
        /// The pause before the second attempt at most.
        backoff: optional Duration, 0..=60_000;
        /// No pause is longer.
        max_backoff: optional Duration, 0..=60_000;
        /// Bytes of an idempotent request's body that are kept to be sent again.
        replay_buffer: optional Bytes, 0..=1_048_576;
    }
    later []

    /// How many further attempts its requests may have together; what is left out is as [resilience.retry_budget] says.
    RetryBudgetOf of "upstream" {
        /// Retries for a hundred requests.
        percent: optional u32, 0..=1_000;
        /// Retries a second that are permitted however few requests there are.
        min_per_sec: optional u32, 0..=1_000_000;
        /// How long requests and retries count.
        window: optional Duration, 1_000..=600_000;
    }
    later []

    /// One breaker for each of its backends, in place of [resilience.circuit_breaker] as a whole.
    CircuitBreakerOf of "upstream" {
        /// Switched off, its backends are always asked.
        enabled: default bool = "true";
        /// Failures in a row that open it.
        failures: default u32 = "5", 1..=1_000_000;
        /// How long it stays open; then a few requests try.
        open_for: default Duration = "5s", 1..=3_600_000;
        /// How many try at once, and must succeed in a row for it to close.
        half_open_requests: default u32 = "1", 1..=1_000;
    }
    later []
}

choice! {
    /// A share of answers.
    Percentile {
        /// 90 of a hundred.
        P90 = "p90",
        /// 95 of a hundred.
        P95 = "p95",
        /// 99 of a hundred.
        P99 = "p99",
    }
    later []
}
