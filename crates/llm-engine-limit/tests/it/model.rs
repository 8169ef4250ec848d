//! Every answer of the limiter, predicted by a model of a few lines: one textbook bucket, or one account, for each partition key.
//!
//! Nothing is refunded here, so the model is exact; what comes of refunds is the subject of `replay` and `refund`.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::ledger::{Key, applies, partition};
use crate::oracle::{Stock, counted};
use crate::shapes::{any_policies, config, limits_of, subjects};
use crate::trace::{Allow, Outcome, Run, Step, steps};
use llm_engine_limit::{Cost, Counted, Level, Policy, Refusal, Refused, Subject, Time};

/// What the limiter should know.
#[derive(Debug, Default)]
struct Model {
    /// By policy, quota and key.
    pools: HashMap<(usize, usize, Key), Stock>,
    running: HashMap<(usize, Key), u64>,
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn verdicts_waits_and_levels_are_those_of_one_bucket_for_each_key(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 100),
    ) {
        let mut run = Run::new(&policies);
        let mut model = Model::default();
        for step in &steps {
            if let Step::Settle(pick, used) = step {
                if !run.open.is_empty() {
                    let position = pick.index(run.open.len());
                    let (subject, cost) = of_open(&run, position);
                    let usage = at_least(used.of(cost), cost);
                    run.settle(position, usage);
                    model.settle(&policies, run.clock, subject, cost, usage);
                }
            } else {
                match run.step(step) {
                    Outcome::Admitted => {
                        let (subject, cost) = of_open(&run, run.open.len() - 1);
                        prop_assert_eq!(model.refuses(&policies, run.clock, subject, cost), vec![]);
                        prop_assert!(!model.never_fits(&policies, subject, cost));
                        model.admit(&policies, run.clock, subject, cost);
                    }
                    Outcome::Refused(subject, cost, Refusal::NeverFits(never)) => {
                        prop_assert!(model.never_fits(&policies, subject, cost), "{never:?}");
                        prop_assert!(never.asked > never.burst && Some(never.asked) == never.counted.unit().map(|unit| counted(unit, cost)));
                    }
                    Outcome::Refused(subject, cost, Refusal::NotNow(refusal)) => {
                        let expected = model.refuses(&policies, run.clock, subject, cost);
                        prop_assert_eq!(comparable(refusal.refused, run.clock), expected);
                        prop_assert!(!model.never_fits(&policies, subject, cost));
                    }
                    Outcome::Nothing | Outcome::Settled => {}
                }
            }
            for subject in subjects() {
                let levels = comparable_levels(run.levels(subject), run.clock);
                prop_assert_eq!(levels, model.levels(&policies, run.clock, subject));
            }
        }
    }
}

fn of_open(run: &Run, position: usize) -> (Subject, Cost) {
    let request = &run.requests[run.open[position].0];
    (request.subject, request.cost)
}

fn at_least(usage: Cost, cost: Cost) -> Cost {
    Cost {
        requests: usage.requests.max(cost.requests),
        input_tokens: usage.input_tokens.max(cost.input_tokens),
        output_tokens: usage.output_tokens.max(cost.output_tokens),
        nano_usd: usage.nano_usd.max(cost.nano_usd),
    }
}

/// Waits for running requests are guesses, and waits past the end of time are never over: neither is compared.
fn comparable(mut refused: Vec<Refused>, now: Time) -> Vec<Refused> {
    for refused in &mut refused {
        let guessed = refused.counted == Counted::Concurrency;
        refused.wait = if guessed {
            Duration::ZERO
        } else {
            capped(refused.wait, now)
        };
    }
    refused
}

fn comparable_levels(mut levels: Vec<Level>, now: Time) -> Vec<Level> {
    for level in &mut levels {
        level.full_in = capped(level.full_in, now);
    }
    levels
}

fn capped(wait: Duration, now: Time) -> Duration {
    wait.min(Time::END.since(now))
}

impl Model {
    fn pools<'a>(
        &'a mut self,
        policies: &'a [Policy],
        subject: Subject,
    ) -> Vec<(&'a Policy, Vec<Stock>, u64)> {
        let mut found = Vec::new();
        for (policy_index, policy) in policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| applies(policy, subject))
        {
            let key = partition(policy, subject);
            let pools = limits_of(policy).enumerate().map(|(index, (_, limit))| {
                let pool = self.pools.entry((policy_index, index, key));
                pool.or_insert_with(|| Stock::full(&limit)).clone()
            });
            let pools = pools.collect();
            found.push((
                policy,
                pools,
                *self.running.entry((policy_index, key)).or_default(),
            ));
        }
        found
    }

    fn never_fits(&self, policies: &[Policy], subject: Subject, cost: Cost) -> bool {
        let applying = policies.iter().filter(|policy| applies(policy, subject));
        let mut limits = applying.flat_map(limits_of);
        limits.any(|(unit, limit)| counted(unit, cost) > limit.burst())
    }

    fn refuses(&mut self, policies: &[Policy], now: Time, subject: Subject, cost: Cost) -> Vec<Refused> {
        let at = now.as_nanos();
        let mut refused = Vec::new();
        for (policy, pools, running) in self.pools(policies, subject) {
            let name = &policy.name;
            for ((unit, limit), mut pool) in limits_of(policy).zip(pools) {
                let asked = counted(unit, cost);
                let remaining = pool.remaining(at);
                if asked > remaining && asked > 0 {
                    let ready = pool.ready_at(at, asked).unwrap_or(u128::MAX);
                    refused.push(Refused {
                        policy: *name,
                        counted: limit.counted(unit),
                        limit: limit.limit(),
                        asked,
                        remaining,
                        wait: until(ready, now),
                    });
                }
            }
            if let Some(most) = policy.concurrency.map(|most| u64::from(most.get()))
                && running >= most
            {
                refused.push(Refused {
                    policy: *name,
                    counted: Counted::Concurrency,
                    limit: most,
                    asked: 1,
                    remaining: 0,
                    wait: Duration::ZERO,
                });
            }
        }
        refused
    }

    fn admit(&mut self, policies: &[Policy], now: Time, subject: Subject, cost: Cost) {
        for (index, policy) in policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| applies(policy, subject))
        {
            let key = partition(policy, subject);
            for (quota_index, (unit, _)) in limits_of(policy).enumerate() {
                let pool = self
                    .pools
                    .get_mut(&(index, quota_index, key))
                    .expect("it was looked at before");
                assert!(pool.take(now.as_nanos(), counted(unit, cost)));
            }
            *self.running.entry((index, key)).or_default() += 1;
        }
    }

    fn settle(&mut self, policies: &[Policy], now: Time, subject: Subject, cost: Cost, usage: Cost) {
        for (index, policy) in policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| applies(policy, subject))
        {
            let key = partition(policy, subject);
            for (quota_index, (unit, _)) in limits_of(policy).enumerate() {
                let pool = self
                    .pools
                    .get_mut(&(index, quota_index, key))
                    .expect("it was taken from before");
                pool.charge(now.as_nanos(), counted(unit, usage) - counted(unit, cost));
            }
            *self.running.entry((index, key)).or_default() -= 1;
        }
    }

    fn levels(&mut self, policies: &[Policy], now: Time, subject: Subject) -> Vec<Level> {
        let at = now.as_nanos();
        let mut levels = Vec::new();
        for (policy, pools, running) in self.pools(policies, subject) {
            let name = &policy.name;
            for ((unit, limit), mut pool) in limits_of(policy).zip(pools) {
                levels.push(Level {
                    policy: *name,
                    counted: limit.counted(unit),
                    limit: limit.limit(),
                    remaining: pool.remaining(at),
                    full_in: until(pool.full_at(at), now),
                });
            }
            if let Some(most) = policy.concurrency.map(|most| u64::from(most.get())) {
                levels.push(Level {
                    policy: *name,
                    counted: Counted::Concurrency,
                    limit: most,
                    remaining: most - running,
                    full_in: Duration::ZERO,
                });
            }
        }
        levels
    }
}

fn until(instant: u128, now: Time) -> Duration {
    let nanos = instant.saturating_sub(u128::from(now.as_nanos()));
    capped(
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
        now,
    )
}
