//! What was reserved and not used comes back, as far as that mints nothing.

use proptest::prelude::*;

use crate::shapes::{ANYONE, config, only, quota_policies, some_quota, subjects};
use crate::trace::{Allow, Outcome, Pause, Run, Step, Used, pause, steps, used, want};
use llm_engine_limit::{Cost, Unit};

proptest! {
    #![proptest_config(config(192))]

    /// The same history twice, with nothing open at its end. Then a request that reserves too much and gives the rest
    /// back at once, or later, and one that knew; what comes then can't tell them apart.
    #[test]
    fn a_lone_reservation_that_is_settled_with_less_counts_as_if_it_had_reserved_that(
        policies in quota_policies(),
        before in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 40),
        want in want(),
        used in used(false),
        running in pause(),
        after in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 40),
    ) {
        let mut bold = Run::play(&policies, &before);
        let mut knowing = Run::play(&policies, &before);
        bold.settle_all(Used::All);
        knowing.settle_all(Used::All);
        let cost = bold.cost(want);
        let usage = used.of(cost);
        prop_assume!(matches!(bold.ask(ANYONE, cost), Outcome::Admitted));
        prop_assert!(matches!(knowing.ask(ANYONE, usage), Outcome::Admitted));
        for run in [&mut bold, &mut knowing] {
            run.step(&Step::Pass(running));
            run.settle(0, usage);
        }
        assert_same_future(&mut bold, &mut knowing, &after)?;
    }

    /// Whatever is open meanwhile.
    #[test]
    fn releasing_at_once_leaves_every_level_as_it_was(
        policies in quota_policies(),
        before in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 60),
        want in want(),
    ) {
        let mut run = Run::play(&policies, &before);
        let levels: Vec<_> = subjects().map(|subject| run.levels(subject)).collect();
        let cost = run.cost(want);
        prop_assume!(matches!(run.ask(ANYONE, cost), Outcome::Admitted));
        run.settle(run.open.len() - 1, Cost::NOTHING);
        let now: Vec<_> = subjects().map(|subject| run.levels(subject)).collect();
        prop_assert_eq!(levels, now);
    }

    #[test]
    fn settling_with_all_that_was_reserved_changes_no_level(
        policies in quota_policies(),
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 60),
    ) {
        let mut run = Run::play(&policies, &steps);
        let levels: Vec<_> = subjects().map(|subject| run.levels(subject)).collect();
        run.settle_all(Used::All);
        let now: Vec<_> = subjects().map(|subject| run.levels(subject)).collect();
        prop_assert_eq!(levels, now);
    }

    #[test]
    fn settling_with_less_never_lowers_a_level_and_with_more_never_raises_one(
        quota in some_quota(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 120),
    ) {
        let mut run = Run::new(&only(Unit::OutputTokens, quota));
        for step in &steps {
            // Whatever the clock says, the limiter's own does not go back.
            let before = run.limiter.levels(run.latest.max(run.clock), ANYONE).remove(0);
            if let Outcome::Settled = run.step(step) {
                let after = run.limiter.levels(run.latest, ANYONE).remove(0);
                let (reserved, used) = last_settled(&run);
                prop_assert!(after.remaining <= quota.burst());
                if used <= reserved {
                    prop_assert!(after.remaining >= before.remaining && after.full_in <= before.full_in);
                    prop_assert!(after.remaining - before.remaining <= reserved - used + 1);
                } else {
                    prop_assert!(after.remaining <= before.remaining && after.full_in >= before.full_in);
                }
            }
        }
    }

    /// The more a request has used, the less is left.
    #[test]
    fn levels_fall_with_usage(
        quota in some_quota(),
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 80),
        usages in [0..=2_000_u64, 0..=2_000_u64],
    ) {
        let [less, more] = [usages[0].min(usages[1]), usages[0].max(usages[1])].map(|per_mille| {
            let mut run = Run::play(&only(Unit::OutputTokens, quota), &steps);
            if let Some((request, _)) = run.open.first() {
                let usage = Used::PerMille([per_mille; 4]).of(run.requests[*request].cost);
                run.settle(0, usage);
            }
            run.levels(ANYONE).remove(0)
        });
        prop_assert!(less.remaining >= more.remaining && less.full_in <= more.full_in);
    }

    /// While the bucket would not have been full again even if the true costs had been known from the beginning, all
    /// that was not used comes back, in whichever order the requests end.
    #[test]
    fn overlapping_reservations_of_a_busy_bucket_give_back_all_that_they_did_not_use(
        quota in some_quota().prop_filter("room for several", |quota| quota.burst() >= 8),
        reserved in prop::collection::vec((0..=250_u64, 0..=1_000_u64), 1..=50),
        order in any::<prop::sample::Index>(),
        youngest_first in any::<bool>(),
    ) {
        let policies = only(Unit::OutputTokens, quota);
        let mut run = Run::new(&policies);
        let mut knowing = Run::new(&policies);
        for (reserved, used) in reserved {
            let cost = Cost { output_tokens: quota.burst() * reserved / 1_000, ..Cost::NOTHING };
            if let Outcome::Admitted = run.ask(ANYONE, cost) {
                let usage = Used::PerMille([used; 4]).of(cost);
                prop_assert!(matches!(knowing.ask(ANYONE, usage), Outcome::Admitted));
            }
        }
        let mut open = run.open.len();
        while open > 0 {
            let position = if youngest_first { open - 1 } else { order.index(open) };
            let (request, _) = run.open[position];
            let usage = knowing.requests[request].cost;
            run.settle(position, usage);
            open -= 1;
        }
        prop_assert_eq!(run.levels(ANYONE), knowing.levels(ANYONE));
    }
}

fn last_settled(run: &Run) -> (u64, u64) {
    let last = run.events.last().expect("one was settled");
    let crate::trace::Event::Settled { request, .. } = last else {
        panic!("the last was {last:?}")
    };
    let request = &run.requests[*request];
    (
        request.cost.output_tokens,
        request.usage.expect("it was settled").output_tokens,
    )
}

fn assert_same_future(one: &mut Run, other: &mut Run, steps: &[Step]) -> Result<(), TestCaseError> {
    for step in std::iter::once(&Step::Pass(Pause::Nanos(0))).chain(steps) {
        let outcomes = [one.step(step), other.step(step)];
        prop_assert_eq!(format!("{:?}", outcomes[0]), format!("{:?}", outcomes[1]));
        for subject in subjects() {
            prop_assert_eq!(one.levels(subject), other.levels(subject));
        }
    }
    Ok(())
}
