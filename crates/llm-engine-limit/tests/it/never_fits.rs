//! Never is not "not now": a cost above the burst is refused for good, a cost of the whole burst waits for a full bucket.

use std::time::Duration;

use proptest::prelude::*;

use crate::ledger::applies;
use crate::shapes::{ANYONE, any_policies, config, limits_of, only, some_quota};
use crate::trace::{Allow, Outcome, Run, Step, Used, steps};
use llm_engine_limit::{Cost, Counted, Limiter, NeverFits, Quota, Refusal, Time, Unit};

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn more_than_a_burst_never_fits_at_any_time_and_level(
        quota in some_quota(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 60),
        excess in prop_oneof![Just(1), 1..=1_000_u64, Just(u64::MAX)],
    ) {
        let mut run = Run::new(&only(Unit::OutputTokens, quota));
        let asked = quota.burst().saturating_add(excess);
        let too_much = Cost { output_tokens: asked, ..Cost::NOTHING };
        let counted = Counted::PerWindow { unit: Unit::OutputTokens, window: quota.window() };
        let expected = NeverFits { policy: "only".into(), counted, asked, burst: quota.burst() };
        for step in &steps {
            run.step(step);
            let answer = run.limiter.admit(run.clock, ANYONE, too_much).unwrap_err();
            prop_assert_eq!(answer, Refusal::NeverFits(expected.clone()));
        }
    }

    #[test]
    fn never_is_said_exactly_if_a_cost_is_above_a_burst_that_applies(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 80),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let Step::Ask(subject, want) = step else {
                run.step(step);
                continue;
            };
            let cost = run.cost(*want);
            let applying = policies.iter().filter(|policy| applies(policy, *subject));
            let above = applying.flat_map(limits_of).any(|(unit, limit)| unit.of(cost) > limit.burst());
            let never = matches!(run.step(step), Outcome::Refused(.., Refusal::NeverFits(_)));
            prop_assert_eq!(above, never);
        }
    }

    #[test]
    fn a_whole_burst_is_admitted_once_the_bucket_is_full_and_not_before(
        quota in some_quota(),
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 60),
    ) {
        let mut run = Run::play(&only(Unit::OutputTokens, quota), &steps);
        run.settle_all(Used::All);
        let full_in = run.levels(ANYONE).remove(0).full_in;
        let whole = Cost { output_tokens: quota.burst(), ..Cost::NOTHING };
        prop_assume!(full_in < Time::END.since(run.clock));
        if !full_in.is_zero() {
            run.clock = run.clock + (full_in - Duration::from_nanos(1));
            let early = run.ask(ANYONE, whole);
            prop_assert!(matches!(early, Outcome::Refused(.., Refusal::NotNow(_))), "{early:?}");
            run.clock = run.clock + Duration::from_nanos(1);
        }
        prop_assert!(matches!(run.ask(ANYONE, whole), Outcome::Admitted));
    }
}

#[test]
fn the_answer_names_the_policy_the_unit_and_both_amounts() {
    let quota = Quota::with_burst(3_000, Duration::from_secs(60), 500).unwrap();
    let mut limiter = Limiter::new(only(Unit::Tokens, quota));
    let cost = Cost {
        requests: 1,
        input_tokens: 400,
        output_tokens: 200,
        ..Cost::NOTHING
    };
    let refusal = limiter.admit(Time::ZERO, ANYONE, cost).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "policy only admits at most 500 tokens at once; the request may need 600"
    );
}
