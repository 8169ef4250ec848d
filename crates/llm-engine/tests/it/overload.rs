//! More than an engine can take, by the real clock: the admission of the server in front of an engine that batches, beside what is
//! simulated of the same requests.

use std::num::NonZeroU32;
use std::time::Duration;

use http_body_util::BodyExt as _;
use llm_engine_overload::{
    CallerLoad, EngineSetup, Estimate, Limit, Outcome, Scenario, estimate, quantile, simulate_seeds,
};
use mock_engine::{Abort, Load, Measured, MockEngine};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};

use crate::server::{Server, Turn};
use crate::until::until;

/// What the engine can take of the usual requests, a second.
const CAPACITY: f64 = 8.8;
const CALLERS: [&str; 2] = ["alice-key", "bob-key"];
const CHAT: &str = "/v1/chat/completions";

/// As far as can be told beforehand. Who has waited for half as long again is refused, so that nobody waits for more than
/// `LONGEST_WAIT` seconds.
const QUEUE_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: f64 = 1.5;

/// What the server has in front of its models; simulated is the same.
fn limit() -> Limit {
    Limit::Adaptive {
        most: NonZeroU32::new(400).unwrap(),
    }
}

/// Ten times what the engine can take, from two callers, with a base of so many seconds.
fn ten_times(base: f64) -> Scenario {
    let mut scenario = Scenario::new(limit(), vec![CallerLoad::usual(10.0 * CAPACITY / 2.0); 2]);
    scenario.engine.base_seconds = base;
    scenario.admission.wait = QUEUE_WAIT;
    (scenario.warm_up, scenario.lasts) = (60.0, 180.0);
    scenario
}

fn most(limit: Limit) -> NonZeroU32 {
    match limit {
        Limit::Fixed(most) | Limit::Adaptive { most } => most,
    }
}

/// A section for model `m` on an engine, with these further lines.
fn model(engine: &MockEngine, lines: &str) -> String {
    let url = engine.url();
    format!("[models.m]\ndeployments = [{{ url = '{url}/v1', model = 'mock' }}]\n{lines}\n")
}

fn caller(key: &str) -> String {
    let digest = Sha256::digest(key);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[callers.{key}]\napi_key_sha256 = '{digest}'\n")
}

/// What is simulated of a scenario, seed by seed, and what is measured with the first of them.
struct Compared {
    base: f64,
    simulated: Vec<Outcome>,
    measured: Measured,
    /// Seconds from when requests came to the engine to their first tokens, sorted.
    of_engine: Vec<f64>,
    /// By how much the engine was late at most.
    late: Duration,
}

async fn compare(scenario: &Scenario) -> Compared {
    let turn = Turn::take();
    let engine = MockEngine::start(scenario.engine);
    let lines = format!(
        "concurrency = {}\nqueue_wait = '{}ms'\nqueue_length = {}",
        most(scenario.admission.limit),
        scenario.admission.wait.as_millis(),
        scenario.admission.queue,
    );
    let callers = CALLERS.map(caller).concat();
    let server = Server::start(&turn, &format!("{}{callers}", model(&engine, &lines)));
    let load = Load {
        server: server.address.clone(),
        model: "m".to_owned(),
        api_keys: CALLERS.map(str::to_owned).to_vec(),
    };
    let warm = Instant::now() + Duration::from_secs_f64(scenario.warm_up);
    let measured = load.run(scenario, &engine).await;
    let seen = engine.seen();
    let first_tokens = seen.first_tokens.iter().filter(|first| first.at > warm);
    let mut of_engine: Vec<f64> = first_tokens.map(|first| first.after.as_secs_f64()).collect();
    of_engine.sort_by(f64::total_cmp);
    let compared = Compared {
        base: scenario.engine.base_seconds,
        simulated: simulate_seeds(scenario, scenario.seed..scenario.seed + SEEDS),
        measured,
        of_engine,
        late: seen.late,
    };
    compared.print();
    compared
}

impl Compared {
    /// The goodput as a part of the simulated one. It is that in tokens: the number of answers, of which some are a hundred times as
    /// long as others, varies by half as much again from seed to seed.
    fn part(&self) -> f64 {
        self.part_of(Outcome::good_tokens_per_second)
    }

    fn part_of(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        of(&self.measured.outcome) / self.estimate(&of).mean
    }

    fn estimate(&self, of: impl Fn(&Outcome) -> f64) -> Estimate {
        estimate(self.simulated.iter().map(of))
    }

    /// Checks what must hold however short it was, and that goodput is at least this part of the simulated one.
    fn check(&self, least: f64) {
        let Measured { outcome, errors } = &self.measured;
        assert!(errors.is_empty(), "{errors:?}");
        let (measured, of_engine) = (slowest(outcome), quantile(&self.of_engine, 0.99));
        assert!(
            measured <= of_engine + LONGEST_WAIT,
            "{measured} s to first tokens, of which the engine takes {of_engine} s"
        );
        let most = self.simulated.iter().map(slowest).fold(0.0, f64::max);
        assert!(
            measured <= most + ON_THE_WIRE,
            "{measured} s to first tokens, simulated at most {most} s"
        );
        let part = self.part();
        assert!(part >= least, "{part} of the simulated goodput");
    }

    fn print(&self) {
        let outcome = &self.measured.outcome;
        let row = |name: &str, of: &dyn Fn(&Outcome) -> f64| {
            let of_seeds = self.simulated.iter().map(of);
            let (least, most) = of_seeds.fold((f64::MAX, 0.0_f64), |(least, most), value| {
                (least.min(value), most.max(value))
            });
            let mean = self.estimate(of).mean;
            let (measured, part) = (of(outcome), self.part_of(of));
            print(&format!(
                "| {} s | {name} | {mean:.2} ({least:.2} to {most:.2}) | {measured:.2} | {part:.3} |",
                self.base
            ));
        };
        row("good answers a second", &Outcome::goodput);
        row("their tokens", &Outcome::good_tokens_per_second);
        row("first token, median", &|outcome| {
            quantile(&outcome.first_tokens, 0.5)
        });
        row("first token, p99", &slowest);
        print(&format!(
            "{} of {} calls refused, {} hung up, errors: {:?}; the engine: {:.2} s to the first token (p99), {} put back, {:?} late at most",
            outcome.refused,
            outcome.calls,
            outcome.hung_up,
            self.measured.errors,
            quantile(&self.of_engine, 0.99),
            outcome.preemptions,
            self.late,
        ));
    }
}

fn slowest(outcome: &Outcome) -> f64 {
    quantile(&outcome.first_tokens, 0.99)
}

/// Simulated.
const SEEDS: u64 = 40;
/// Seconds by which first tokens may be later than with any seed: what a simulation does not know takes time.
const ON_THE_WIRE: f64 = 0.5;

#[expect(
    clippy::print_stdout,
    reason = "the figures are for whoever runs this with --nocapture"
)]
fn print(line: &str) {
    println!("{line}");
}

#[tokio::test]
async fn at_ten_times_the_load_goodput_and_first_tokens_are_as_simulated() {
    let mut scenario = ten_times(0.7);
    (scenario.warm_up, scenario.lasts) = (8.0, 30.0);
    let compared = compare(&scenario).await;
    compared.check(0.8);
}

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn table_of_overload() {
    print("| base | | simulated | measured | |\n|---|---|---|---|---|");
    let mut compared = Vec::new();
    for base in [0.1, 0.7, 2.0, 5.0] {
        compared.push(compare(&ten_times(base)).await);
    }
    for compared in compared {
        compared.check(0.9);
        let part = compared.part();
        assert!(
            part <= 1.1,
            "{part} of the simulated goodput is not what was simulated"
        );
    }
}

/// When the engine hears that a client hung up at a moment.
async fn abort(engine: &MockEngine, hung_up: Instant) -> (Abort, Duration) {
    let (abort, _) = until("the engine hears of it", Duration::from_secs(5), async || {
        engine.seen().aborts.first().copied()
    })
    .await;
    (abort, abort.at.duration_since(hung_up))
}

fn endless() -> Value {
    json!({
        "model": "m",
        "messages": [{ "role": "user", "content": "Hello" }],
        "max_tokens": 2_000,
        "stream": true,
        "mock_output_tokens": 2_000,
    })
}

/// How soon the engine has to hear that nobody waits any more.
const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn the_engine_stops_at_once_when_a_client_hangs_up_before_the_first_token() {
    let turn = Turn::take();
    let engine = MockEngine::start(EngineSetup {
        base_seconds: 5.0,
        ..EngineSetup::default()
    });
    let server = Server::start(&turn, &model(&engine, ""));
    let body = endless();
    let asking = server.post(CHAT, &body);
    assert!(timeout(Duration::from_millis(500), asking).await.is_err());
    let (abort, took) = abort(&engine, Instant::now()).await;
    assert_eq!(engine.seen().requests, 1);
    assert_eq!(abort.written, None);
    assert!(took <= SOON, "{took:?}");
}

#[tokio::test]
async fn the_engine_stops_at_once_when_a_client_hangs_up_in_the_middle_of_an_answer() {
    let turn = Turn::take();
    let engine = MockEngine::start(EngineSetup::default());
    let server = Server::start(&turn, &model(&engine, ""));
    let mut answer = server.post(CHAT, &endless()).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(engine.seen().running, 1);
    let hung_up = Instant::now();
    drop(answer);
    let (abort, took) = abort(&engine, hung_up).await;
    assert!(abort.written.is_some(), "{abort:?}");
    assert!(took <= SOON, "{took:?}");
    assert_eq!(engine.seen().running, 0);
}
