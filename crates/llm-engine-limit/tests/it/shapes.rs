//! Quotas and policies of many shapes.

use std::num::NonZeroU32;
use std::time::Duration;

use llm_engine_limit::{Match, Per, Policy, Quota, Subject, Unit, User};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const DAY: u64 = 86_400;
const UNITS: [Unit; 4] = [
    Unit::Requests,
    Unit::InputTokens,
    Unit::OutputTokens,
    Unit::Tokens,
];
const CALLERS: u32 = 4;
const MODELS: u32 = 2;

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

/// One to four policies, each with up to four quotas, whatever it matches and is counted per.
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
        concurrency,
    )
        .prop_map(|(matches, per, units, quotas, concurrency)| Policy {
            name: "".into(),
            matches,
            per,
            quotas: units.into_iter().zip(quotas).collect(),
            concurrency,
            ..Policy::default()
        });
    vec(policy, 1..=4).prop_map(|mut policies| {
        for (index, policy) in policies.iter_mut().enumerate() {
            policy.name = format!("policy {index}").into();
        }
        policies
    })
}

fn matches() -> impl Strategy<Value = Match> {
    let one = || option::weighted(0.2, 0..CALLERS);
    (
        one(),
        option::weighted(0.2, 0..CALLERS / 2),
        option::weighted(0.2, 0..MODELS),
    )
        .prop_map(|(caller, team, model)| Match {
            caller,
            team,
            model,
            ..Match::default()
        })
}

fn per() -> impl Strategy<Value = Per> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(caller, team, model)| Per {
        caller,
        team,
        model,
        ..Per::default()
    })
}

pub(crate) fn subject() -> impl Strategy<Value = Subject> {
    (0..CALLERS, 0..MODELS).prop_map(|(caller, model)| subject_of(caller, model))
}

/// Everybody that [`subject`] may give.
pub(crate) fn subjects() -> impl Iterator<Item = Subject> {
    (0..CALLERS).flat_map(|caller| (0..MODELS).map(move |model| subject_of(caller, model)))
}

/// The callers 0 and 1 are one team, 2 and 3 the other.
fn subject_of(caller: u32, model: u32) -> Subject {
    Subject {
        caller,
        team: caller / 2,
        model,
        ..Subject::default()
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
