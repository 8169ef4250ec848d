use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rustix::time::{ClockId, clock_gettime};

use super::*;

fn ended(outcome: &'static str) -> Ended {
    Ended {
        route: 2,
        outcome,
        status: 200,
        input_tokens: 3,
        output_tokens: 2,
        first_token_after: Some(Duration::from_millis(30)),
        after: Duration::from_millis(300),
    }
}

/// The processor time of this thread.
fn used() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it does not run backwards")
}

#[test]
fn a_request_costs_less_than_half_a_microsecond_of_counting() {
    const REQUESTS: u32 = 20_000;
    let metrics = Metrics::default();
    let model = metrics.of_model("m".into());
    let rounds = (0..5).map(|_| {
        let begun = used();
        for request in 0..REQUESTS {
            model.ended(ended(OUTCOMES[request as usize % OUTCOMES.len()]));
        }
        (used() - begun) / REQUESTS
    });
    let least = rounds.min().expect("there are some");
    assert!(least <= Duration::from_nanos(500), "{least:?} for each request");
}

#[test]
fn an_outcome_that_is_new_is_counted_too() {
    let metrics = Metrics::default();
    let model = metrics.of_model("m".into());
    model.ended(ended("unheard_of"));
    model.ended(ended("unheard_of"));
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("text can be written");
    let line = r#"llm_engine_requests_total{route="/v1/chat/completions",model="m",outcome="unheard_of",status="200"} 2"#;
    assert!(text.contains(line), "{text}");
}
