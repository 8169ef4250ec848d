//! Quotas and policies of many shapes.

use std::num::NonZeroU32;
use std::time::Duration;

use llm_engine_limit::{
    Budget, Calendar, Counted, Match, Per, Period, Policy, Quota, Subject, Time, Unit, User,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const DAY: u64 = 86_400;
const UNITS: [Unit; 5] = [
    Unit::Requests,
    Unit::InputTokens,
    Unit::OutputTokens,
    Unit::Tokens,
    Unit::Usd,
];
const CALLERS: u32 = 4;
const ALICE: User = User([1, 2, 3]);
/// Half of her digest is that of another.
const BOB: User = User([1, 2, 4]);
/// Model, route, address and user.
const ORIGINS: [(u32, u32, u64, User); 5] = [
    (0, 0, 0, User::UNKNOWN),
    (1, 0, 1, ALICE),
    (0, 1, 1, ALICE),
    (1, 1, 0, BOB),
    (0, 0, 0, ALICE),
];

/// As many cases as the environment asks for, else `cases`.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(cases)
    }
}

/// Buckets so small that every corner is met within a few events.
pub(crate) fn small_quota() -> impl Strategy<Value = Quota> {
    let window = select(vec![1, 7, 10, 1_000, 1_000_000]).prop_map(Duration::from_nanos);
    (1..=10_u64, window, 1..=12_u64, any::<bool>())
        .prop_filter_map("not exact", |(limit, window, burst, strict)| {
            quota(limit, window, burst, strict)
        })
}

/// Anything from one a month to a billion a minute.
pub(crate) fn any_quota() -> impl Strategy<Value = Quota> {
    (limits(), windows(), 1..=6_000_u64, any::<bool>()).prop_filter_map(
        "not exact",
        |(limit, window, burst_per_mille, strict)| {
            // Mostly at or below the limit, up to six times above it.
            let burst_per_mille = if burst_per_mille > 3_000 {
                1_000
            } else {
                burst_per_mille * 2
            };
            let burst = (limit * burst_per_mille / 1_000).max(1);
            quota(limit, window, burst, strict && burst < limit)
        },
    )
}

/// Half small ones, half anything.
pub(crate) fn some_quota() -> impl Strategy<Value = Quota> {
    prop_oneof![small_quota(), any_quota()]
}

fn quota(limit: u64, window: Duration, burst: u64, strict: bool) -> Option<Quota> {
    if strict {
        Quota::strict(limit, window, burst).ok()
    } else {
        Quota::with_burst(limit, window, burst).ok()
    }
}

fn limits() -> impl Strategy<Value = u64> {
    prop_oneof![
        1..=10_u64,
        1..=1_000_u64,
        select(vec![7, 13, 97, 101, 997, 7_919, 104_729, 999_983]),
        (0..=9_u32).prop_map(|zeros| 10_u64.pow(zeros)),
        (1..=999_u64, 3..=6_u32).prop_map(|(digits, zeros)| digits * 10_u64.pow(zeros)),
    ]
}

fn windows() -> impl Strategy<Value = Duration> {
    let round = select(vec![
        1,
        10,
        100,
        333,
        1_000,
        10_000,
        60_000,
        3_600_000,
        DAY * 1_000,
        7 * DAY * 1_000,
    ])
    .prop_map(Duration::from_millis);
    let odd = select(vec![999_999_937, 1_234_567_891]).prop_map(Duration::from_nanos);
    let month = Just(Duration::from_secs(30 * DAY));
    prop_oneof![4 => round, 1 => odd, 1 => month]
}

/// Up to a dozen windows, from nanoseconds to months, of different lengths.
fn calendar() -> impl Strategy<Value = Calendar> {
    let period = select(vec![Period::Day, Period::Week, Period::Month]);
    let length = prop_oneof![
        2 => select(vec![1, 7, 1_000]),
        3 => select(vec![1, 60, 3_600, DAY, 30 * DAY]).prop_map(|seconds| seconds * 1_000_000_000),
    ];
    let lengths = length.prop_flat_map(|length| vec((length.div_ceil(2))..=length, 0..=12));
    (period, 0..=30_000_u32, lengths).prop_map(|(period, first, lengths)| {
        let turns = lengths.into_iter().scan(0, |turn, length| {
            *turn += length;
            Some(Time::from_nanos(*turn))
        });
        Calendar::new(period, "UTC", first, turns.collect())
    })
}

fn in_zone(budget: &Budget, zone: &str) -> Budget {
    let calendar = budget.calendar();
    let turns = std::iter::successors(Some(calendar.next_turn(Time::ZERO)), |turn| {
        Some(calendar.next_turn(*turn))
    });
    let turns = turns.take_while(|turn| *turn < Time::END);
    let first = calendar.window_at(Time::ZERO);
    let calendar = Calendar::new(calendar.period(), zone, first, turns.collect());
    Budget::new(budget.limit(), calendar).expect("it was one before")
}

/// A debt of more than two of the largest limits would be seen beyond the turn.
const LARGE: u64 = Budget::MAX_LIMIT / 4;

/// Mostly small ones.
pub(crate) fn budget() -> impl Strategy<Value = Budget> {
    let limit = prop_oneof![4 => 1..=20_u64, 2 => limits(), 1 => Just(LARGE)];
    (limit, calendar())
        .prop_map(|(limit, calendar)| Budget::new(limit, calendar).expect("it is below the most"))
}

/// One to four policies, each with up to four quotas and budgets, whatever it matches and is counted per.
pub(crate) fn any_policies() -> impl Strategy<Value = Vec<Policy>> {
    policies_with(option::weighted(
        0.3,
        (1..=4_u32).prop_map(|most| NonZeroU32::new(most).expect("from 1")),
    ))
}

/// The same without `concurrency`.
pub(crate) fn quota_policies() -> impl Strategy<Value = Vec<Policy>> {
    policies_with(Just(None))
}

fn policies_with(
    concurrency: impl Strategy<Value = Option<NonZeroU32>>,
) -> impl Strategy<Value = Vec<Policy>> {
    let policy = (
        matches(),
        per(),
        subsequence(UNITS.to_vec(), 0..=3),
        vec(some_quota(), 4),
        subsequence(UNITS.to_vec(), 0..=1),
        budget(),
        concurrency,
    )
        .prop_map(
            |(matches, per, units, quotas, budget_units, budget, concurrency)| Policy {
                name: "".into(),
                matches,
                per,
                quotas: units.into_iter().zip(quotas).collect(),
                budgets: budget_units
                    .into_iter()
                    .map(|unit| (unit, budget.clone()))
                    .collect(),
                concurrency,
                ..Policy::default()
            },
        );
    vec(policy, 1..=4).prop_map(|mut policies| {
        for (index, policy) in policies.iter_mut().enumerate() {
            policy.name = format!("policy {index}").into();
            // There is one calendar of a period and a zone, whatever policy counts by it.
            for (_, budget) in &mut policy.budgets {
                *budget = in_zone(budget, &format!("zone {index}"));
            }
        }
        policies
    })
}

fn matches() -> impl Strategy<Value = Match> {
    (
        option::weighted(0.2, 0..CALLERS),
        option::weighted(0.2, 0..CALLERS / 2),
        option::weighted(0.1, select(vec![User::UNKNOWN, ALICE, BOB])),
        option::weighted(0.2, 0..2_u32),
        option::weighted(0.1, 0..2_u32),
    )
        .prop_map(|(caller, team, user, model, route)| Match {
            caller,
            team,
            user,
            model,
            route,
        })
}

fn per() -> impl Strategy<Value = Per> {
    let seldom = || proptest::bool::weighted(0.2);
    let often = any::<bool>;
    (often(), often(), seldom(), often(), seldom(), seldom()).prop_map(
        |(caller, team, user, model, route, address)| Per {
            caller,
            team,
            user,
            model,
            route,
            address,
        },
    )
}

pub(crate) fn subject() -> impl Strategy<Value = Subject> {
    (0..CALLERS, 0..ORIGINS.len()).prop_map(|(caller, origin)| subject_of(caller, origin))
}

/// Everybody that [`subject`] may give.
pub(crate) fn subjects() -> impl Iterator<Item = Subject> {
    (0..CALLERS).flat_map(|caller| (0..ORIGINS.len()).map(move |origin| subject_of(caller, origin)))
}

/// The callers 0 and 1 are one team, 2 and 3 the other.
fn subject_of(caller: u32, origin: usize) -> Subject {
    let (model, route, address, user) = ORIGINS[origin];
    Subject {
        caller,
        team: caller / 2,
        model,
        route,
        address,
        user,
    }
}

/// Where only one counts.
pub(crate) const ANYONE: Subject = Subject {
    caller: 0,
    team: 0,
    model: 0,
    route: 0,
    address: 0,
    user: User::UNKNOWN,
};

/// One policy for all with this one quota.
pub(crate) fn only(unit: Unit, quota: Quota) -> Vec<Policy> {
    vec![policy("only", Per::default(), vec![(unit, quota)])]
}

/// A policy that matches everything.
pub(crate) fn policy(name: &str, per: Per, quotas: Vec<(Unit, Quota)>) -> Policy {
    Policy {
        name: name.into(),
        matches: Match::default(),
        per,
        quotas,
        concurrency: None,
        ..Policy::default()
    }
}

/// One policy for all with this one budget.
pub(crate) fn only_budget(unit: Unit, budget: Budget) -> Vec<Policy> {
    let budgets = vec![(unit, budget)];
    vec![Policy {
        budgets,
        ..policy("only", Per::default(), vec![])
    }]
}

/// A quota or a budget.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Limit {
    Quota(Quota),
    Budget(Budget),
}

/// Those of a policy, in the order in which levels are told.
pub(crate) fn limits_of(policy: &Policy) -> impl Iterator<Item = (Unit, Limit)> {
    let quotas = policy
        .quotas
        .iter()
        .map(|(unit, quota)| (*unit, Limit::Quota(*quota)));
    let budgets = policy.budgets.iter();
    quotas.chain(budgets.map(|(unit, budget)| (*unit, Limit::Budget(budget.clone()))))
}

impl Limit {
    /// As configured.
    pub(crate) fn limit(&self) -> u64 {
        match self {
            Self::Quota(quota) => quota.limit(),
            Self::Budget(budget) => budget.limit(),
        }
    }

    /// The most at one instant.
    pub(crate) fn burst(&self) -> u64 {
        match self {
            Self::Quota(quota) => quota.burst(),
            Self::Budget(budget) => budget.limit(),
        }
    }

    pub(crate) fn counted(&self, unit: Unit) -> Counted {
        match self {
            Self::Quota(quota) => Counted::PerWindow {
                unit,
                window: quota.window(),
            },
            Self::Budget(budget) => Counted::PerPeriod {
                unit,
                period: budget.calendar().period(),
            },
        }
    }
}
