//! Policies that are broken on purpose: a rule that holds of those, too, says nothing.

use crate::invariants::{Rule, check};
use crate::stories::{Story, TROUBLES};
use crate::world::{ALGORITHMS, World};

/// How a policy is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A permit in flight does not come back if the client went away.
    PermitLeaked,
    /// Nor does a breaker's pass.
    PassLeaked,
    /// Breakers hear nothing of what went well, once one has opened.
    BreakerNeverCloses,
    /// Breakers hear nothing of what failed.
    BreakerNeverOpens,
    /// All backends weigh the same.
    WeightIgnored,
    /// A retry is made without a permit.
    BudgetIgnored,
    /// A retry may go to the backend that has just failed.
    TriedForgotten,
    /// Failures are held against the backend beside the one that failed.
    FailuresMisplaced,
    /// Control does not hear of failures.
    FailuresUnheard,
    /// Nor do workers of who is ejected.
    VerdictsUnheard,
    /// All ejections are as short as the first.
    EjectionsDoNotGrow,
    /// Time ends none.
    EjectionNeverEnds,
    /// Everybody may be ejected.
    EjectionShareIgnored,
    /// However few are left, health is regarded.
    PanicIgnored,
    /// Who comes back never gets more than the first part of its share.
    SlowStartNeverEnds,
}

/// The rule that is broken first, over a few hundred seeds.
fn first_broken(sabotage: Sabotage, algorithm: &'static str) -> Option<Rule> {
    (1..=300).find_map(|seed| {
        let story = Story::of(algorithm, TROUBLES[seed as usize % TROUBLES.len()], seed);
        check(&story, &World::run(&story, Some(sabotage), seed)).err().map(|(rule, _)| rule)
    })
}

#[test]
fn sabotage_each_broken_policy_breaks_its_rule() {
    for (sabotage, rule) in [
        (Sabotage::PermitLeaked, Rule::PermitsComeBack),
        (Sabotage::PassLeaked, Rule::BreakersClose),
        (Sabotage::BreakerNeverCloses, Rule::BreakersClose),
        (Sabotage::BreakerNeverOpens, Rule::OpenMeansOpen),
        (Sabotage::WeightIgnored, Rule::WeightsHold),
        (Sabotage::BudgetIgnored, Rule::BudgetHolds),
        (Sabotage::TriedForgotten, Rule::ErrorsAreAccounted),
        (Sabotage::FailuresMisplaced, Rule::NothingOscillates),
        (Sabotage::FailuresUnheard, Rule::FailuresEject),
        (Sabotage::VerdictsUnheard, Rule::EjectedMeansOut),
        (Sabotage::EjectionsDoNotGrow, Rule::EjectionsGrow),
        (Sabotage::EjectionNeverEnds, Rule::EjectionsEnd),
        (Sabotage::EjectionShareIgnored, Rule::ShareIsKept),
        (Sabotage::PanicIgnored, Rule::PanicAsksEverybody),
        (Sabotage::SlowStartNeverEnds, Rule::SharesReturn),
    ] {
        for algorithm in ["round-robin", "consistent-hash"] {
            let broken = first_broken(sabotage, algorithm);
            assert_eq!(broken, Some(rule), "{sabotage:?} with {algorithm}");
        }
    }
}

#[test]
fn sabotage_every_algorithm_that_forgets_weights_is_seen() {
    for algorithm in ALGORITHMS {
        let broken = first_broken(Sabotage::WeightIgnored, algorithm);
        assert_eq!(broken, Some(Rule::WeightsHold), "{algorithm}");
    }
}
