//! What becomes of attempts that fail.

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::Resilience;
use crate::config::keys;
use crate::resilience::{BreakerPolicy, BudgetPolicy, RetryPolicy};

/// Compiles `[resilience]`, but for what requests may look like.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Resilience {
    let keys = &compiler.root.resilience.value;
    let (retry, budget) = (&keys.retry.value, &keys.retry_budget.value);
    contradictions(compiler, retry);
    Resilience {
        retry: RetryPolicy {
            attempts: retry.attempts.value,
            per_try_timeout: retry.per_try_timeout.as_ref().map(|written| written.value),
            backoff: retry.backoff.value,
            max_backoff: retry.max_backoff.value.max(retry.backoff.value),
            replay_buffer: retry.replay_buffer.value.to_u32() as usize,
        },
        retry_budget: BudgetPolicy {
            percent: budget.percent.value,
            min_per_sec: budget.min_per_sec.value,
            window: budget.window.value,
        },
        circuit_breaker: keys.circuit_breaker.as_ref().map(|written| {
            let breaker = &written.value;
            BreakerPolicy {
                failures: breaker.failures.value,
                open_for: breaker.open_for.value,
                trials: breaker.half_open_requests.value,
            }
        }),
    }
}

fn contradictions(compiler: &mut Compiler<'_>, retry: &keys::Retry) {
    let (backoff, most) = (&retry.backoff, &retry.max_backoff);
    if most.is_written() && most.value < backoff.value {
        let longer = Diagnostic::error("`max_backoff` is shorter than `backoff`").at(most.place, "");
        let longer = if backoff.is_written() { longer.at(backoff.place, "longer than that") } else { longer };
        compiler.report(longer.help("the first pause is at most `backoff`: lengthen one or shorten the other"));
    }
    let Some(one) = &retry.per_try_timeout else { return };
    let all = &compiler.root.performance.value.backend_timeout;
    if one.value >= all.value {
        let never = Diagnostic::error("`per_try_timeout` can never run out: `backend_timeout` ends the request before")
            .at(one.place, "not shorter than `backend_timeout`");
        let never = if all.is_written() { never.at(all.place, "this one") } else { never };
        compiler.report(never.help("shorten `per_try_timeout`, or lengthen `backend_timeout`"));
    }
    if retry.attempts.value == 1 {
        compiler.report(
            Diagnostic::warning("`per_try_timeout` does nothing where `attempts` is 1")
                .at(one.place, "")
                .at(retry.attempts.place, "no second attempt")
                .help("remove it, or allow more attempts"),
        );
    }
}
