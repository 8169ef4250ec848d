//! Configurations with traces, whatever anybody may write and do: nothing overflows or panics, and every answer is one.
//!
//! In the normal run some seconds' worth of random input; the same target can be driven by a coverage-guided fuzzer, with
//! `cargo bolero test`.

use std::num::NonZeroU32;
use std::time::Duration;

use bolero::{TypeGenerator, check, produce};

use crate::shapes::limits_of;
use llm_engine_limit::{
    Budget, Calendar, Cost, Fingerprint, Limiter, LimiterOptions, Match, Mode, Per, Period, Policy, Quota,
    Refusal, Subject, Time, Unit, User,
};

/// A number of any magnitude.
#[derive(Debug, Clone, Copy, TypeGenerator)]
struct Number {
    bits: u64,
    shift: u8,
}

#[derive(Debug, Clone, TypeGenerator)]
struct AnyPolicy {
    flags: u16,
    ids: [u8; 3],
    #[generator(produce::<Vec<AnyQuota>>().with().len(0..=3_usize))]
    quotas: Vec<AnyQuota>,
    #[generator(produce::<Vec<AnyBudget>>().with().len(0..=1_usize))]
    budgets: Vec<AnyBudget>,
    concurrency: u8,
}

#[derive(Debug, Clone, Copy, TypeGenerator)]
struct AnyQuota {
    unit: u8,
    kind: u8,
    limit: Number,
    window: Number,
    is_in_seconds: bool,
    burst: Number,
    /// Whether it is one of those that anybody would write, instead.
    is_usual: bool,
}

#[derive(Debug, Clone, TypeGenerator)]
struct AnyBudget {
    unit: u8,
    limit: Number,
    first: u32,
    #[generator(produce::<Vec<Number>>().with().len(0..=6_usize))]
    turns: Vec<Number>,
}

#[derive(Debug, Clone, Copy, TypeGenerator)]
enum Event {
    Pass(Number),
    Back(Number),
    ToTheEnd(Number),
    Ask(u8, AnyCost),
    /// Many of one.
    AskAgain(AnyCost),
    Book(u8, AnyCost, u8),
    BookAgain(AnyCost, u8),
    /// The earliest of those who were promised a time comes at it.
    Return,
    Cancel(u8, u8),
    Settle(u8, AnyCost),
    Reload(u8),
    Restart(Number),
    Follow(u8, Number),
}

#[derive(Debug, Clone, Copy, TypeGenerator)]
struct AnyCost {
    requests: Number,
    input_tokens: Number,
    output_tokens: Number,
    nano_usd: Number,
    /// Whether it is cut down to what fits.
    fits: bool,
}

#[derive(Debug, Clone, TypeGenerator)]
struct Scenario {
    most_keys: u8,
    sets: [[AnyPolicy; 2]; 2],
    #[generator(produce::<Vec<Event>>().with().len(1..=120_usize))]
    events: Vec<Event>,
}

const UNITS: [Unit; 5] = [
    Unit::Requests,
    Unit::InputTokens,
    Unit::OutputTokens,
    Unit::Tokens,
    Unit::Usd,
];

impl Number {
    fn get(self) -> u64 {
        self.bits >> (self.shift % 64)
    }

    fn time(self) -> Time {
        Time::from_nanos(self.get())
    }
}

impl AnyQuota {
    /// None where it is refused: then that had a reason.
    fn get(self) -> Option<(Unit, Quota)> {
        let unit = UNITS[usize::from(self.unit) % UNITS.len()];
        if self.is_usual {
            let limit = self.limit.bits % 100 + 1;
            let window = Duration::from_secs(if self.is_in_seconds { 1 } else { 60 });
            return Some((
                unit,
                Quota::with_burst(limit, window, self.burst.bits % 10 + 1).ok()?,
            ));
        }
        let window = if self.is_in_seconds {
            Duration::from_secs(self.window.get() >> 32)
        } else {
            Duration::from_nanos(self.window.get())
        };
        let (limit, burst) = (self.limit.get(), self.burst.get());
        let quota = match self.kind % 3 {
            0 => Quota::new(limit, window),
            1 => Quota::with_burst(limit, window, burst),
            _ => Quota::strict(limit, window, burst),
        };
        Some((unit, quota.ok()?))
    }
}

impl AnyBudget {
    fn get(&self, zone: &str) -> Option<(Unit, Budget)> {
        let mut turns: Vec<Time> = self.turns.iter().map(|turn| turn.time()).collect();
        turns.sort_unstable();
        let calendar = Calendar::new(Period::Day, zone, self.first, turns);
        let budget = Budget::new(self.limit.get(), calendar).ok()?;
        Some((UNITS[usize::from(self.unit) % UNITS.len()], budget))
    }
}

impl AnyPolicy {
    fn get(&self, index: usize) -> Policy {
        let is = |bit: u32| self.flags & (1 << bit) != 0;
        let id = |bit: u32, id: u8| is(bit).then_some(u32::from(id % 4));
        let zone = format!("zone {index}");
        Policy {
            name: format!("policy {index}").into(),
            matches: Match {
                caller: id(0, self.ids[0]).filter(|_| is(1)),
                team: None,
                user: (is(2) && is(3)).then_some(user(self.ids[1])),
                model: id(4, self.ids[1]).filter(|_| is(5)),
                route: id(6, self.ids[2]).filter(|_| is(7)),
            },
            per: Per {
                caller: is(8),
                team: is(9),
                user: is(10),
                model: is(11),
                route: is(12),
                address: is(13),
            },
            mode: if is(14) && is(15) {
                Mode::Observe
            } else {
                Mode::Enforce
            },
            quotas: self
                .quotas
                .iter()
                .take(3)
                .filter_map(|quota| quota.get())
                .collect(),
            budgets: self
                .budgets
                .iter()
                .take(2)
                .filter_map(|budget| budget.get(&zone))
                .collect(),
            concurrency: NonZeroU32::new(u32::from(self.concurrency % 8)),
        }
    }
}

fn user(id: u8) -> User {
    User([u32::from(id % 3), 0, 0])
}

fn subject(who: u8) -> Subject {
    Subject {
        caller: u32::from(who % 4),
        team: u32::from(who % 4 / 2),
        model: u32::from(who / 4 % 3),
        route: u32::from(who / 16 % 2),
        address: u64::from(who / 8 % 8),
        user: user(who / 2),
    }
}

impl AnyCost {
    fn get(self, policies: &[Policy]) -> Cost {
        let fitting = |units: [Unit; 2], number: Number| {
            let limits = policies.iter().flat_map(limits_of);
            let smallest = limits.filter(|(unit, _)| units.contains(unit));
            let most = smallest.map(|(_, limit)| limit.burst()).min();
            match most {
                Some(most) if self.fits => number.get() % most.saturating_add(1),
                _ => number.get(),
            }
        };
        Cost {
            requests: fitting([Unit::Requests; 2], self.requests),
            input_tokens: fitting([Unit::InputTokens, Unit::Tokens], self.input_tokens),
            output_tokens: fitting([Unit::OutputTokens, Unit::Tokens], self.output_tokens),
            nano_usd: fitting([Unit::Usd; 2], self.nano_usd),
        }
    }
}

fn fingerprint(id: u8) -> Fingerprint {
    Fingerprint {
        digest: u64::from(id / 2 % 8),
        is_unique: id.is_multiple_of(2),
    }
}

fn play(scenario: &Scenario) {
    let sets = scenario.sets.each_ref().map(|set| {
        let policies = set.iter().enumerate();
        policies
            .map(|(index, policy)| policy.get(index))
            .collect::<Vec<_>>()
    });
    let options = LimiterOptions {
        most_keys: u32::from(scenario.most_keys % 6),
        hash_seed: 1,
    };
    let mut policies = &sets[0];
    let mut limiter = Limiter::with_options(policies.clone(), options);
    let mut now = Time::ZERO;
    let mut open = Vec::new();
    let mut promised: Vec<(Time, Subject, Cost, Fingerprint)> = Vec::new();
    for event in &scenario.events {
        let asked = match *event {
            Event::Pass(nanos) => {
                // Up to a second, mostly: then what is promised matters.
                let nanos = if nanos.shift < 200 {
                    nanos.bits >> 34
                } else {
                    nanos.get() >> 8
                };
                now = now + Duration::from_nanos(nanos);
                None
            }
            Event::Back(nanos) if nanos.shift < 250 => {
                now = Time::from_nanos(now.as_nanos().saturating_sub(nanos.bits >> 34));
                None
            }
            Event::Back(nanos) => {
                now = Time::from_nanos(now.as_nanos().saturating_sub(nanos.get()));
                None
            }
            Event::ToTheEnd(nanos) if nanos.shift > 250 => {
                now = Time::from_nanos(Time::END.as_nanos().saturating_sub(nanos.get()));
                None
            }
            Event::ToTheEnd(_) => None,
            Event::Ask(who, cost) => Some((subject(who), cost.get(policies), None)),
            Event::AskAgain(cost) => Some((subject(1), cost.get(policies), None)),
            Event::BookAgain(cost, id) => Some((subject(id % 4), cost.get(policies), Some(fingerprint(id)))),
            Event::Book(who, cost, id) => Some((subject(who), cost.get(policies), Some(fingerprint(id)))),
            Event::Return => {
                promised.sort_unstable_by_key(|(due, ..)| *due);
                let first = (!promised.is_empty()).then(|| promised.remove(0));
                first.map(|(due, subject, cost, fingerprint)| {
                    now = now.max(due);
                    (subject, cost, Some(fingerprint))
                })
            }
            Event::Cancel(who, id) => {
                limiter.cancel_booking(now, subject(who), fingerprint(id));
                None
            }
            Event::Settle(pick, usage) => {
                if !open.is_empty() {
                    let reservation = open.swap_remove(usize::from(pick) % open.len());
                    limiter.settle(now, reservation, usage.get(policies));
                }
                None
            }
            // Not so often that nothing has happened meanwhile.
            Event::Reload(set) if set < 200 => None,
            Event::Restart(age) if age.shift < 200 => None,
            Event::Reload(set) => {
                policies = &sets[usize::from(set % 2)];
                limiter.reload(now, policies);
                None
            }
            Event::Restart(age) => {
                let saved = limiter.save(now);
                let mut next = Limiter::with_options(policies.clone(), options);
                for saved in &saved {
                    next.restore(now, saved, Duration::from_nanos(age.get()));
                }
                // What was open is of the process that has ended.
                open.clear();
                promised.clear();
                limiter = next;
                None
            }
            Event::Follow(index, turn) => {
                let zone = format!("zone {}", index % 4);
                limiter.follow(
                    now,
                    &Calendar::new(Period::Day, &zone, u32::from(index), vec![turn.time()]),
                );
                None
            }
        };
        let Some((subject, cost, fingerprint)) = asked else {
            continue;
        };
        let answer = match fingerprint {
            Some(fingerprint) => limiter.admit_or_book(now, subject, cost, fingerprint),
            None => limiter.admit(now, subject, cost),
        };
        match answer {
            Ok(reservation) => {
                assert_eq!(
                    reservation.would_be_refused(),
                    !limiter.observed(&reservation).is_empty()
                );
                open.push(reservation);
            }
            Err(Refusal::NeverFits(never)) => assert!(never.asked > never.burst),
            Err(Refusal::NotNow(refusal)) => {
                assert!(!refusal.refused.is_empty(), "{refusal:?}");
                if refusal.booked
                    && let Some(fingerprint) = fingerprint
                {
                    promised.push((now + refusal.wait, subject, cost, fingerprint));
                }
            }
        }
        let bursts = policies
            .iter()
            .filter(|policy| policy.applies_to(subject))
            .flat_map(|policy| {
                let limits = limits_of(policy).map(|(_, limit)| limit.burst());
                limits.chain(policy.concurrency.map(|most| u64::from(most.get())))
            });
        let levels = limiter.levels(now, subject);
        assert!(
            levels
                .iter()
                .map(|level| level.remaining)
                .zip(bursts)
                .all(|(left, burst)| left <= burst)
        );
    }
    for reservation in open {
        limiter.settle(now, reservation, Cost::NOTHING);
    }
    for who in 0..=u8::MAX {
        // However it went, at last nothing runs.
        for level in limiter.levels(now, subject(who)) {
            let is_free = level.counted.unit().is_some() || level.remaining == level.limit;
            assert!(is_free, "{level:?} in {policies:?}");
        }
    }
}

#[test]
fn whatever_is_configured_and_done_has_an_answer() {
    check!()
        .with_type::<Scenario>()
        .with_max_len(16_384)
        .with_iterations(20_000)
        .with_test_time(Duration::from_secs(2))
        .for_each(play);
}
