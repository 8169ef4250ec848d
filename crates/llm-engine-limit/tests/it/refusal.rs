//! A refusal changes nothing, in any policy; and many at once are as good as one by one.

use proptest::prelude::*;

use crate::shapes::{ANYONE, any_policies, config, quota_policies, subject, subjects};
use crate::trace::{Allow, Outcome, Run, Used, steps};
use llm_engine_limit::{Cost, Level};

const FORWARD: Allow = Allow {
    overruns: true,
    clock_back: false,
    bookings: false,
};

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn a_refusal_changes_no_level_and_no_count_of_any_policy(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 100),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            // The instant at which the limiter will decide.
            let now = run.latest.max(run.clock);
            let before: Vec<_> = subjects().map(|subject| run.limiter.levels(now, subject)).collect();
            if let Outcome::Refused(..) = run.step(step) {
                let after: Vec<_> = subjects().map(|subject| run.limiter.levels(now, subject)).collect();
                prop_assert_eq!(before, after);
            }
        }
    }

    /// The same history without its refusals has the same future.
    #[test]
    fn a_refusal_leaves_no_trace_in_what_follows(
        policies in any_policies(),
        steps in steps(FORWARD, 120),
    ) {
        let mut run = Run::new(&policies);
        let mut spared = Run::new(&policies);
        for step in &steps {
            match run.step(step) {
                Outcome::Refused(..) => {}
                outcome => {
                    let same = spared.step(step);
                    prop_assert_eq!(format!("{outcome:?}"), format!("{same:?}"));
                }
            }
            prop_assert_eq!(all_levels(&run), all_levels(&spared));
        }
    }

    #[test]
    fn many_units_at_once_are_as_good_as_one_by_one(
        policies in quota_policies(),
        steps in steps(FORWARD, 40),
        subject in subject(),
        count in 1..=40_u64,
        unit in 0..3_usize,
    ) {
        let cost = |units| match unit {
            0 => Cost { requests: units, ..Cost::NOTHING },
            1 => Cost { input_tokens: units, ..Cost::NOTHING },
            _ => Cost { output_tokens: units, ..Cost::NOTHING },
        };
        let mut at_once = Run::play(&policies, &steps);
        let mut singly = Run::play(&policies, &steps);
        let all = matches!(at_once.ask(subject, cost(count)), Outcome::Admitted);
        let admitted = (0..count).filter(|_| matches!(singly.ask(subject, cost(1)), Outcome::Admitted)).count();
        prop_assert_eq!(all, admitted == usize::try_from(count).unwrap());
        if all {
            prop_assert_eq!(all_levels(&at_once), all_levels(&singly));
            let open = at_once.open.len() - 1;
            at_once.settle(open, cost(count));
            for _ in 0..count {
                singly.settle(singly.open.len() - 1, cost(1));
            }
            prop_assert_eq!(all_levels(&at_once), all_levels(&singly));
        }
    }

    /// Also when all of it is given back.
    #[test]
    fn many_units_released_at_once_are_as_good_as_released_one_by_one(
        policies in quota_policies(),
        steps in steps(FORWARD, 40),
        count in 1..=40_u64,
    ) {
        let cost = |units| Cost { output_tokens: units, ..Cost::NOTHING };
        let mut run = Run::play(&policies, &steps);
        run.settle_all(Used::All);
        let before = all_levels(&run);
        for _ in 0..count {
            run.ask(ANYONE, cost(1));
        }
        run.settle_all(Used::Nothing);
        prop_assert_eq!(all_levels(&run), before);
    }
}

fn all_levels(run: &Run) -> Vec<Vec<Level>> {
    subjects().map(|subject| run.levels(subject)).collect()
}
