use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use llm_engine_limit::{Fingerprint, Mode, Per, Period, Quota, Unit};

use super::{
    BookingCounts, Retry, SimulatedModel, SimulatedRequest, Simulation, SimulationReport, SimulationSetup,
    Tally, Tokens,
};
use crate::{ApiKeyDigest, BudgetSetup, CallerSetup, MatchSetup, PolicySetup, PriceSetup};

const START: &str = "2026-11-24T00:00:00Z";

fn start() -> Timestamp {
    START.parse().expect("a timestamp")
}

fn requests_per(limit: u64, window: Duration, burst: u64) -> PolicySetup {
    PolicySetup {
        name: "p".to_owned(),
        quotas: vec![(
            Unit::Requests,
            Quota::with_burst(limit, window, burst).expect("a quota"),
        )],
        ..PolicySetup::default()
    }
}

fn simulation(policies: Vec<PolicySetup>) -> Simulation {
    let caller = |name: &str| CallerSetup {
        name: name.to_owned(),
        team: Some("research".to_owned()),
        api_key: ApiKeyDigest::of(name),
        names_users: false,
        is_operator: false,
    };
    let setup = SimulationSetup {
        models: vec![SimulatedModel {
            name: "m".to_owned(),
            aliases: vec!["alias".to_owned()],
            // A dollar per million.
            price: PriceSetup {
                input: 1_000_000_000,
                output: 1_000_000_000,
            },
        }],
        callers: vec![caller("alice"), caller("bob")],
        policies,
        start: start(),
        seed: 1,
    };
    Simulation::new(setup).expect("a simulation")
}

const REQUEST: SimulatedRequest<'static> = SimulatedRequest {
    caller: "alice",
    model: "m",
    route: "/v1/chat/completions",
    asked: Tokens {
        input: 100,
        output: 100,
    },
    used: Some(Tokens {
        input: 100,
        output: 50,
    }),
    lasts: Duration::from_secs(1),
    fingerprint: Fingerprint {
        digest: 0,
        is_unique: false,
    },
    retry: Retry::Never,
    attempts: 6,
};

fn numbered(number: u64) -> SimulatedRequest<'static> {
    SimulatedRequest {
        fingerprint: Fingerprint {
            digest: number,
            is_unique: true,
        },
        ..REQUEST
    }
}

fn after(seconds: f64) -> Timestamp {
    start() + Duration::from_secs_f64(seconds)
}

/// So many at the same time.
fn at_once(count: u64, policies: Vec<PolicySetup>, retry: Retry) -> SimulationReport {
    let mut simulation = simulation(policies);
    for number in 0..count {
        simulation.offer(
            start(),
            &SimulatedRequest {
                retry,
                ..numbered(number)
            },
        );
    }
    simulation.finish()
}

#[test]
fn a_simulation_of_300_at_once_on_100_a_minute_admits_100() {
    let report = at_once(
        300,
        vec![requests_per(100, Duration::from_secs(60), 100)],
        Retry::Never,
    );
    let total = &report.total;
    assert_eq!((total.requests, total.calls, total.admitted), (300, 300, 100));
    assert_eq!((total.refused, total.lost), (200, 200));
    assert_eq!(total.settled.output_tokens, 100 * 50);
    assert_eq!(total.settled.nano_usd, 100 * 150 * 1_000);
    let quota = &report.policies[0].quotas[0];
    assert_eq!((quota.settled, quota.share, quota.peak), (Some(100), 1.0, 1.0));
    assert_eq!(report.callers.len(), 1);
    assert_eq!(report.callers[0].refused_by, [("p".into(), 200)]);
    let moments = report.timeline.moments();
    assert_eq!((moments[0].admitted, moments[0].refused), (100, 200));
    assert_eq!(moments[0].used, [1.0]);
}

#[test]
fn clients_that_come_when_they_are_told_need_at_most_two_calls() {
    let report = at_once(
        100,
        vec![requests_per(10, Duration::from_secs(1), 1)],
        Retry::Told,
    );
    let total = &report.total;
    assert_eq!((total.admitted, total.lost), (100, 0));
    assert!(total.calls_per_success().expect("some") <= 2.0, "{total:?}");
    assert_eq!(report.bookings.told, 99);
    assert_eq!((report.bookings.claimed, report.bookings.kept), (99, 99));
    let waits = &total.waits;
    assert!(waits.longest() >= Duration::from_secs_f64(9.9), "{waits:?}");
    assert!(waits.longest() < Duration::from_secs_f64(9.9 * 1.05), "{waits:?}");
    assert!(waits.mean().abs_diff(Duration::from_secs(5)) < Duration::from_millis(100));
    assert!(waits.quantile(0.95).abs_diff(Duration::from_secs_f64(9.4)) < Duration::from_millis(200));
    assert!(waits.quantile(0.5).abs_diff(Duration::from_secs(5)) < Duration::from_millis(200));
}

/// A strict quota with a burst of one request has no room for anybody who is up to 20 ms late. Whoever comes after that one
/// waits in the server for as long.
#[test]
fn on_a_strict_quota_clients_that_come_when_they_are_told_need_at_most_two_calls() {
    let strict = Quota::strict(101, Duration::from_secs(10), 1).expect("it is exact");
    let policies = vec![PolicySetup {
        quotas: vec![(Unit::Requests, strict)],
        ..requests_per(100, Duration::from_secs(10), 1)
    }];
    let report = at_once(200, policies, Retry::Told);
    let Tally {
        calls,
        admitted,
        held,
        ..
    } = report.total;
    assert_eq!((calls, admitted), (2 * 200 - 1, 200));
    assert!(held > 40, "else nobody was late: {held}");
    let BookingCounts { told, claimed, kept } = report.bookings;
    assert_eq!((told, claimed, kept), (199, 199, 199));
    let last = report.total.waits.longest();
    assert!(last < Duration::from_secs_f64(19.9 * 1.01), "{last:?}");
}

#[test]
fn clients_of_the_published_example_come_back_at_random_and_some_in_vain() {
    let quota = requests_per(10, Duration::from_secs(1), 1);
    let report = at_once(100, vec![quota], Retry::Tenacity);
    let total = &report.total;
    assert_eq!(total.admitted + total.lost, 100);
    assert!(total.calls_per_success().expect("some") > 2.0, "{total:?}");
}

#[test]
fn a_simulation_with_the_same_seed_is_the_same() {
    let run = || {
        at_once(
            100,
            vec![requests_per(10, Duration::from_secs(1), 1)],
            Retry::Tenacity,
        )
        .to_json()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_simulated_budget_is_there_again_with_the_next_calendar_day() {
    let budget = BudgetSetup {
        unit: Unit::Requests,
        limit: 10,
        period: Period::Day,
        zone: TimeZone::get("Europe/Berlin").expect("a zone"),
    };
    let policy = PolicySetup {
        name: "day".to_owned(),
        budgets: vec![budget],
        hold: Duration::from_secs(60),
        ..PolicySetup::default()
    };
    let mut simulation = simulation(vec![policy]);
    let mut offer = |hours: f64| {
        simulation.offer(
            after(hours * 3600.0),
            &SimulatedRequest {
                retry: Retry::Told,
                ..REQUEST
            },
        );
    };
    // Midnight in Berlin is at 23:00.
    for _ in 0..15 {
        offer(22.9);
    }
    for _ in 0..15 {
        offer(23.0);
    }
    // Far beyond the days that a calendar knows of at its beginning.
    for day in 2..402 {
        offer(f64::from(day) * 24.0);
    }
    let report = simulation.finish();
    let total = &report.total;
    assert_eq!(
        (total.admitted, total.refused, total.lost, total.held),
        (420, 10, 10, 0)
    );
    let quota = &report.policies[0].quotas[0];
    assert_eq!(quota.settled, Some(420));
    // From the 24th of November on, 402 days have begun.
    assert!((quota.share - 420.0 / 4020.0).abs() < 0.001, "{quota:?}");
}

#[test]
fn what_is_only_observed_refuses_nothing_in_a_simulation() {
    let observed = PolicySetup {
        name: "observed".to_owned(),
        mode: Mode::Observe,
        ..requests_per(100, Duration::from_secs(60), 100)
    };
    let report = at_once(
        300,
        vec![observed, requests_per(250, Duration::from_secs(60), 250)],
        Retry::Never,
    );
    let total = &report.total;
    assert_eq!(
        (total.admitted, total.refused, total.would_refuse),
        (250, 50, 150)
    );
    let [observed, enforced] = &report.policies[..] else {
        panic!("two policies")
    };
    assert_eq!((observed.tally.refused, observed.tally.would_refuse), (0, 150));
    assert_eq!((enforced.tally.refused, enforced.tally.would_refuse), (50, 0));
    assert_eq!(
        observed.quotas[0].settled,
        Some(100),
        "it counts what it would admit"
    );
    assert_eq!(enforced.quotas[0].settled, Some(250));
}

#[test]
fn a_simulated_request_is_held_until_its_time_if_that_is_near_enough() {
    let held = PolicySetup {
        hold: Duration::from_secs(5),
        ..requests_per(10, Duration::from_secs(1), 10)
    };
    let report = at_once(100, vec![held], Retry::Never);
    let total = &report.total;
    // Ten at once and ten in each of five seconds.
    assert_eq!((total.admitted, total.held, total.refused), (60, 50, 40));
    assert_eq!(total.calls, 100, "a held request makes no further call");
    assert_eq!((report.bookings.claimed, report.bookings.kept), (50, 50));
    assert_eq!(total.waits.longest(), Duration::from_secs(5));
    assert_eq!(report.timeline.moments()[0].held, 50);
}

#[test]
fn a_simulated_request_is_held_no_longer_than_every_refusing_policy_says() {
    let held = PolicySetup {
        hold: Duration::from_secs(5),
        ..requests_per(10, Duration::from_secs(1), 10)
    };
    let not_held = PolicySetup {
        name: "not-held".to_owned(),
        ..requests_per(10, Duration::from_secs(1), 10)
    };
    let report = at_once(20, vec![held, not_held], Retry::Never);
    assert_eq!((report.total.admitted, report.total.held), (10, 0));
}

#[test]
fn simulated_requests_run_as_long_as_they_last() {
    let policy = PolicySetup {
        name: "two".to_owned(),
        concurrency: NonZeroU32::new(2),
        per: Per {
            caller: true,
            ..Per::default()
        },
        ..PolicySetup::default()
    };
    let mut simulation = simulation(vec![policy]);
    for tenth in 0..40 {
        simulation.offer(after(f64::from(tenth) / 10.0), &REQUEST);
    }
    let report = simulation.finish();
    assert_eq!(report.total.admitted, 8, "two in each second");
    let quota = &report.policies[0].quotas[0];
    assert_eq!((quota.settled, quota.peak), (None, 1.0));
}

#[test]
fn a_simulation_gives_back_what_was_reserved_and_not_used() {
    let quota = Quota::with_burst(200, Duration::from_secs(3600), 200).expect("a quota");
    let policy = PolicySetup {
        name: "tokens".to_owned(),
        quotas: vec![(Unit::Tokens, quota)],
        ..PolicySetup::default()
    };
    let mut simulation = simulation(vec![policy]);
    let small = SimulatedRequest {
        asked: Tokens {
            input: 25,
            output: 25,
        },
        used: Some(Tokens { input: 5, output: 5 }),
        ..REQUEST
    };
    simulation.offer(start(), &REQUEST);
    simulation.offer(after(0.5), &small);
    // Of the 200 are back 50, then 40.
    simulation.offer(after(1.5), &small);
    let without_model = SimulatedRequest {
        asked: Tokens {
            input: 20,
            output: 20,
        },
        used: None,
        ..REQUEST
    };
    simulation.offer(after(3.0), &without_model);
    simulation.offer(after(4.5), &without_model);
    let report = simulation.finish();
    assert_eq!((report.total.admitted, report.total.refused), (4, 1));
    assert_eq!(report.total.settled.requests, 2);
    assert_eq!(report.policies[0].quotas[0].settled, Some(160));
}

#[test]
fn simulated_callers_and_models_that_are_not_known_are_named() {
    let research = PolicySetup {
        matches: MatchSetup {
            team: Some("research".to_owned()),
            model: Some("alias".to_owned()),
            ..MatchSetup::default()
        },
        ..requests_per(1, Duration::from_secs(60), 1)
    };
    let mut simulation = simulation(vec![research]);
    for (caller, model) in [
        ("bob", "m"),
        ("carol", "m"),
        ("alice", "alias"),
        ("carol", "gpt"),
        ("bob", "gpt"),
    ] {
        simulation.offer(
            start(),
            &SimulatedRequest {
                caller,
                model,
                ..REQUEST
            },
        );
    }
    let report = simulation.finish();
    let callers = report
        .callers
        .iter()
        .map(|caller| (caller.name.as_str(), caller.is_known, caller.tally.refused));
    let callers: Vec<_> = callers.collect();
    assert_eq!(
        callers,
        [("alice", true, 1), ("bob", true, 0), ("carol", false, 0)]
    );
    assert_eq!(report.unknown_models, [("gpt".to_owned(), 2)]);
    assert_eq!(report.policies[0].tally.requests, 2);
    assert_eq!(
        report.total.settled.nano_usd,
        2 * 150_000,
        "what is not known costs nothing"
    );
}

#[test]
fn a_simulation_remembers_no_request_that_has_ended() {
    let mut simulation = simulation(vec![requests_per(100, Duration::from_secs(1), 100)]);
    for number in 0..100_000_u32 {
        simulation.offer(after(f64::from(number) / 200.0), &numbered(number.into()));
        assert!(
            simulation.events.len() <= 200,
            "what runs or waits: {}",
            simulation.events.len()
        );
    }
    let report = simulation.finish();
    assert!(report.timeline.moments().len() <= 240);
    let share = report.policies[0].quotas[0].share;
    assert!(share > 0.99 && share <= 1.0, "{share}");
}
