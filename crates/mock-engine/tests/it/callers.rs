use std::num::NonZeroU32;

use llm_engine_overload::{CallerLoad, Limit, quantile, simulate};
use mock_engine::{Change, Load, MockEngine, Scenario};

/// Half of what the engine can take, from two callers, with nothing in front of it.
fn unlimited() -> Scenario {
    let limit = Limit::Fixed(NonZeroU32::new(1_000).unwrap());
    let mut scenario = Scenario::new(limit, vec![CallerLoad::usual(2.2); 2]);
    scenario.engine.base_seconds = 0.1;
    scenario.warm_up = 0.0;
    scenario.lasts = 10.0;
    scenario
}

async fn measure(scenario: &Scenario) -> mock_engine::Measured {
    let engine = MockEngine::start(scenario.engine);
    let load = Load {
        server: engine.url().to_owned(),
        model: "m".to_owned(),
        api_keys: vec!["a".to_owned(), "b".to_owned()],
    };
    load.run(scenario, &engine).await
}

#[tokio::test]
async fn requests_and_what_comes_of_them_are_those_of_the_simulation() {
    let scenario = unlimited();
    let measured = measure(&scenario).await;
    let simulated = simulate(&scenario);
    assert!(measured.errors.is_empty(), "{:?}", measured.errors);
    let (measured, simulated) = (measured.outcome, simulated);
    assert_eq!(measured.offered, simulated.offered);
    assert_eq!(measured.refused + measured.hung_up, 0);
    // Those that end with the scenario may be a little late.
    assert!(
        measured.good.abs_diff(simulated.good) <= 2,
        "{} {}",
        measured.good,
        simulated.good
    );
    for part in [0.5, 0.95] {
        let measured = quantile(&measured.first_tokens, part);
        let simulated = quantile(&simulated.first_tokens, part);
        assert!((measured - simulated).abs() < 0.05, "{measured} {simulated}");
    }
}

#[tokio::test]
async fn an_engine_that_becomes_slower_is_so_on_the_wire() {
    let mut scenario = unlimited();
    scenario.lasts = 4.0;
    scenario.changes = vec![(0.0, Change::Slower(20.0))];
    let measured = measure(&scenario).await;
    // A quarter of a second for each token.
    assert_eq!(measured.outcome.good, 0);
    assert!(!measured.outcome.first_tokens.is_empty());
}
