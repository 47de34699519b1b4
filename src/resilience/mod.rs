//! What becomes of attempts that fail: may another one be made, when, and which backends are left alone meanwhile.
//!
//! Owns the policies as pure state: [`retry`] (how often, after which [`condition`], after which pause), [`budget`] (how many for
//! all requests of an upstream together), [`breaker`] (a backend that only fails is not asked), [`hedge`] (when an attempt gets
//! company, by a [`quantile`] of what answers take). The time comes in with each call, randomness as a number. Each worker has its
//! own state: nothing is shared, and what one worker has learnt the others learn as fast.

pub mod breaker;
pub mod budget;
pub mod condition;
pub mod hedge;
pub mod quantile;
pub mod retry;

pub use breaker::{Breaker, BreakerPolicy, Change, Pass};
pub use budget::{Budget, BudgetPolicy};
pub use condition::{Condition, Conditions};
pub use hedge::{HedgeDelay, HedgePolicy};
pub use quantile::Quantile;
pub use retry::RetryPolicy;
