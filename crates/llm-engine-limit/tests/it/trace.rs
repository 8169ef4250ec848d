//! Random histories: requests that are asked for and settled at random while time passes, and what came of them.

use std::time::Duration;

use llm_engine_limit::{
    Budget, Cost, Fingerprint, Level, Limiter, Policy, Quota, Refusal, Reservation, Subject, Time, Unit,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::shapes::{limits_of, subject};

/// One thing that happens. Amounts are relative, because one trace runs under many quotas.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Pass(Pause),
    /// The clock goes back by so many thousandths of the quota's window.
    Back(Pick, u64),
    Ask(Subject, Want),
    /// With one of a few fingerprints.
    Book(Subject, Want, Fingerprint),
    /// Who was promised a time comes so long before or after it, or now if that is over.
    Return(Pick, Lateness),
    /// Who was promised a time does not want it any more.
    Cancel(Pick),
    Settle(Pick, Used),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pause {
    Nanos(u64),
    /// Eighths of the time in which one unit of the quota refills.
    Refills(Pick, u64),
    /// Thousandths of the quota's window.
    WindowPerMille(Pick, u64),
    /// To the next turn of a budget's calendar, or to the nanosecond before it.
    Turn(Pick, bool),
    Huge,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Lateness {
    Early(Duration),
    OnTime,
    Late(Duration),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    requests: Share,
    input_tokens: Share,
    output_tokens: Share,
    nano_usd: Share,
}

/// How much of what fits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Share {
    Units(u64),
    PerMille(u64),
    TooMuch,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Used {
    Nothing,
    All,
    /// Of each kind that many thousandths of what was reserved, rounded up: more than all above 1,000.
    PerMille([u64; 4]),
}

/// One of however many there will be.
pub(crate) type Pick = proptest::sample::Index;

/// What a trace may do besides asking, settling for at most what was reserved, and letting time pass.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allow {
    pub(crate) overruns: bool,
    pub(crate) clock_back: bool,
    /// Some requests book a time if they are refused, and some of them come for it.
    pub(crate) bookings: bool,
}

pub(crate) fn steps(allow: Allow, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let back_weight = u32::from(allow.clock_back);
    let bookings = u32::from(allow.bookings);
    let step = prop_oneof![
        4 => pause().prop_map(Step::Pass),
        back_weight => (any::<Pick>(), 1..=2_000_u64).prop_map(|(pick, share)| Step::Back(pick, share)),
        8 => (subject(), want()).prop_map(|(subject, want)| Step::Ask(subject, want)),
        8 * bookings => (subject(), want(), fingerprint()).prop_map(|(subject, want, fingerprint)| {
            Step::Book(subject, want, fingerprint)
        }),
        6 * bookings => (any::<Pick>(), lateness()).prop_map(|(pick, lateness)| Step::Return(pick, lateness)),
        bookings => any::<Pick>().prop_map(Step::Cancel),
        6 => (any::<Pick>(), used(allow.overruns)).prop_map(|(pick, used)| Step::Settle(pick, used)),
    ];
    vec(step, 1..=most)
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    (0..4_u64, any::<bool>()).prop_map(|(digest, is_unique)| Fingerprint { digest, is_unique })
}

fn lateness() -> impl Strategy<Value = Lateness> {
    let millis = || prop_oneof![0..=5_u64, 0..=3_100_u64, Just(3_000)].prop_map(Duration::from_millis);
    prop_oneof![
        1 => millis().prop_map(Lateness::Early),
        2 => Just(Lateness::OnTime),
        1 => millis().prop_map(Lateness::Late),
    ]
}

pub(crate) fn pause() -> impl Strategy<Value = Pause> {
    prop_oneof![
        3 => (0..=5_u64).prop_map(Pause::Nanos),
        12 => (any::<Pick>(), 0..=40_u64).prop_map(|(pick, eighths)| Pause::Refills(pick, eighths)),
        8 => (any::<Pick>(), 0..=1_500_u64).prop_map(|(pick, share)| Pause::WindowPerMille(pick, share)),
        2 => (any::<Pick>(), any::<bool>()).prop_map(|(pick, is_just_before)| Pause::Turn(pick, is_just_before)),
        1 => Just(Pause::Huge),
    ]
}

pub(crate) fn want() -> impl Strategy<Value = Want> {
    let share = || {
        prop_oneof![
            20 => (0..=3_u64).prop_map(Share::Units),
            20 => (0..=400_u64).prop_map(Share::PerMille),
            8 => (400..=1_000_u64).prop_map(Share::PerMille),
            1 => Just(Share::TooMuch),
        ]
    };
    let requests = prop_oneof![4 => Just(Share::Units(1)), 1 => share()];
    (requests, share(), share(), share()).prop_map(|(requests, input_tokens, output_tokens, nano_usd)| Want {
        requests,
        input_tokens,
        output_tokens,
        nano_usd,
    })
}

pub(crate) fn used(overruns: bool) -> impl Strategy<Value = Used> {
    let most = if overruns { 2_500 } else { 1_000_u64 };
    prop_oneof![
        2 => Just(Used::Nothing),
        2 => Just(Used::All),
        1 => [0..=1_000_u64, 0..=1_000, 0..=1_000, 0..=1_000].prop_map(Used::PerMille),
        4 => [0..=most, 0..=most, 0..=most, 0..=most].prop_map(Used::PerMille),
    ]
}

/// A request that was admitted.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) subject: Subject,
    pub(crate) cost: Cost,
    /// `None` while it is open.
    pub(crate) usage: Option<Cost>,
}

/// What happened to a request, at which nanosecond of a clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Admitted { request: usize, at: u64 },
    Settled { request: usize, at: u64 },
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// Time has passed, or there was nothing to settle.
    Nothing,
    Admitted,
    Refused(Subject, Cost, Refusal),
    Settled,
}

/// A time that somebody was told and has not come for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    pub(crate) subject: Subject,
    pub(crate) cost: Cost,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) due: Time,
}

/// A limiter, the clock of its callers, and everything that has happened.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) policies: Vec<Policy>,
    pub(crate) limiter: Limiter,
    pub(crate) clock: Time,
    /// The latest that the clock has ever been when the limiter was called.
    pub(crate) latest: Time,
    pub(crate) requests: Vec<Request>,
    pub(crate) open: Vec<(usize, Reservation)>,
    pub(crate) events: Vec<Event>,
    pub(crate) promises: Vec<Promise>,
}

impl Run {
    pub(crate) fn new(policies: &[Policy]) -> Self {
        Self {
            policies: policies.to_vec(),
            limiter: Limiter::new(policies.to_vec()),
            clock: Time::ZERO,
            latest: Time::ZERO,
            requests: Vec::new(),
            open: Vec::new(),
            events: Vec::new(),
            promises: Vec::new(),
        }
    }

    pub(crate) fn play(policies: &[Policy], steps: &[Step]) -> Self {
        let mut run = Self::new(policies);
        for step in steps {
            run.step(step);
        }
        run
    }

    pub(crate) fn step(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Pass(pause) => self.clock = Time::from_nanos(self.clock.as_nanos() + self.nanos(*pause)),
            Step::Back(pick, per_mille) => {
                let nanos = self.nanos(Pause::WindowPerMille(*pick, *per_mille));
                self.clock = Time::from_nanos(self.clock.as_nanos().saturating_sub(nanos));
            }
            Step::Ask(subject, want) => return self.ask(*subject, self.cost(*want)),
            Step::Book(subject, want, fingerprint) => {
                return self.ask_or_book(*subject, self.cost(*want), *fingerprint);
            }
            Step::Return(pick, lateness) if !self.promises.is_empty() => {
                let promise = self.promises.swap_remove(pick.index(self.promises.len()));
                let comes = match lateness {
                    Lateness::Early(early) => before(promise.due, *early),
                    Lateness::OnTime => promise.due,
                    Lateness::Late(late) => promise.due + *late,
                };
                self.clock = self.clock.max(comes);
                return self.ask_or_book(promise.subject, promise.cost, promise.fingerprint);
            }
            Step::Cancel(pick) if !self.promises.is_empty() => {
                let promise = self.promises.swap_remove(pick.index(self.promises.len()));
                self.latest = self.latest.max(self.clock);
                self.limiter
                    .cancel_booking(self.clock, promise.subject, promise.fingerprint);
            }
            Step::Settle(pick, used) if !self.open.is_empty() => {
                let position = pick.index(self.open.len());
                let usage = used.of(self.requests[self.open[position].0].cost);
                self.settle(position, usage);
                return Outcome::Settled;
            }
            Step::Return(..) | Step::Cancel(_) | Step::Settle(..) => {}
        }
        Outcome::Nothing
    }

    pub(crate) fn ask(&mut self, subject: Subject, cost: Cost) -> Outcome {
        self.latest = self.latest.max(self.clock);
        let answer = self.limiter.admit(self.clock, subject, cost);
        self.note(subject, cost, answer)
    }

    pub(crate) fn ask_or_book(&mut self, subject: Subject, cost: Cost, fingerprint: Fingerprint) -> Outcome {
        self.latest = self.latest.max(self.clock);
        let answer = self.limiter.admit_or_book(self.clock, subject, cost, fingerprint);
        if let Err(Refusal::NotNow(refusal)) = &answer
            && refusal.booked
        {
            self.promises.push(Promise {
                subject,
                cost,
                fingerprint,
                due: self.clock + refusal.wait,
            });
        }
        self.note(subject, cost, answer)
    }

    fn note(&mut self, subject: Subject, cost: Cost, answer: Result<Reservation, Refusal>) -> Outcome {
        match answer {
            Ok(reservation) => {
                let request = self.requests.len();
                self.requests.push(Request {
                    subject,
                    cost,
                    usage: None,
                });
                self.open.push((request, reservation));
                self.events.push(Event::Admitted {
                    request,
                    at: self.latest.as_nanos(),
                });
                Outcome::Admitted
            }
            Err(refusal) => Outcome::Refused(subject, cost, refusal),
        }
    }

    /// Settles the open request at this position.
    pub(crate) fn settle(&mut self, position: usize, usage: Cost) {
        self.latest = self.latest.max(self.clock);
        let (request, reservation) = self.open.swap_remove(position);
        self.limiter.settle(self.clock, reservation, usage);
        self.requests[request].usage = Some(usage);
        self.events.push(Event::Settled {
            request,
            at: self.latest.as_nanos(),
        });
    }

    /// Settles all that is open, the latest first.
    pub(crate) fn settle_all(&mut self, used: Used) {
        while let Some((request, _)) = self.open.last() {
            let usage = used.of(self.requests[*request].cost);
            self.settle(self.open.len() - 1, usage);
        }
    }

    pub(crate) fn levels(&self, subject: Subject) -> Vec<Level> {
        self.limiter.levels(self.clock, subject)
    }

    pub(crate) fn quotas(&self) -> impl Iterator<Item = &(Unit, Quota)> {
        self.policies.iter().flat_map(|policy| &policy.quotas)
    }

    fn budgets(&self) -> impl Iterator<Item = &Budget> {
        let budgets = self.policies.iter().flat_map(|policy| &policy.budgets);
        budgets.map(|(_, budget)| budget)
    }

    /// The amount in which every quota fits.
    pub(crate) fn cost(&self, want: Want) -> Cost {
        let smallest = |counting: &[Unit]| {
            let limits = self.policies.iter().flat_map(limits_of);
            let bursts = limits
                .filter(|(unit, _)| counting.contains(unit))
                .map(|(_, limit)| limit.burst());
            bursts.min().unwrap_or(1_000)
        };
        let tokens = smallest(&[Unit::Tokens]);
        Cost {
            requests: want.requests.of(smallest(&[Unit::Requests])),
            input_tokens: want
                .input_tokens
                .of(smallest(&[Unit::InputTokens]).min(tokens.div_ceil(2))),
            output_tokens: want
                .output_tokens
                .of(smallest(&[Unit::OutputTokens]).min(tokens.div_ceil(2))),
            nano_usd: want.nano_usd.of(smallest(&[Unit::Usd])),
        }
    }

    pub(crate) fn nanos(&self, pause: Pause) -> u64 {
        let quota = |pick: Pick| {
            let quotas: Vec<_> = self.quotas().map(|(_, quota)| *quota).collect();
            let window = |quota: &Quota| u64::try_from(quota.window().as_nanos()).expect("below 2^64 ns");
            if quotas.is_empty() {
                (1_000_000, 1_000)
            } else {
                let chosen = &quotas[pick.index(quotas.len())];
                (window(chosen), chosen.limit())
            }
        };
        match pause {
            Pause::Nanos(nanos) => nanos,
            Pause::Refills(pick, eighths) => {
                let (window, limit) = quota(pick);
                window / limit * eighths / 8
            }
            Pause::WindowPerMille(pick, per_mille) => quota(pick).0 / 1_000 * per_mille,
            Pause::Turn(pick, is_just_before) => {
                let budgets: Vec<_> = self.budgets().collect();
                if budgets.is_empty() {
                    return 0;
                }
                let next = budgets[pick.index(budgets.len())]
                    .calendar()
                    .next_turn(self.clock);
                if next == Time::END {
                    return 0;
                }
                next.as_nanos() - self.clock.as_nanos() - u64::from(is_just_before)
            }
            Pause::Huge => 1 << 57,
        }
    }
}

/// So much before an instant, or the epoch.
pub(crate) fn before(instant: Time, duration: Duration) -> Time {
    Time::after_epoch(instant.since(Time::ZERO).saturating_sub(duration))
}

impl Share {
    fn of(self, fitting: u64) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::PerMille(per_mille) => per_mille_of(fitting, per_mille),
            Self::TooMuch => fitting + 1,
        }
    }
}

impl Used {
    pub(crate) fn of(self, cost: Cost) -> Cost {
        match self {
            Self::Nothing => Cost::NOTHING,
            Self::All => cost,
            Self::PerMille([requests, input, output, nano_usd]) => Cost {
                requests: per_mille_of(cost.requests, requests),
                input_tokens: per_mille_of(cost.input_tokens, input),
                output_tokens: per_mille_of(cost.output_tokens, output),
                nano_usd: per_mille_of(cost.nano_usd, nano_usd),
            },
        }
    }
}

fn per_mille_of(units: u64, per_mille: u64) -> u64 {
    let product = (u128::from(units) * u128::from(per_mille)).div_ceil(1_000);
    u64::try_from(product).expect("a few times as much")
}
