//! A day of mixed traffic: what is charged is what was served, to the token.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use jiff::tz::TimeZone;
use llm_engine_gateway::{
    AnswerBody, AnswerStream, Arrival, BudgetSetup, CallerSetup, CompleteError, Counted, Fingerprint,
    Gateway, Per, Period, PolicySetup, Quota, Unit,
};
use scripted_upstream::{Exchange, Upstream, freeze};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{advance, sleep};

use crate::harness::{api_key, arrival, counted, model, policy, remote, request, setup};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const STEP: Duration = Duration::from_secs(2);
const REQUESTS: u64 = 6_000;
const CALLERS: [&str; 3] = ["alice", "bob", "carol"];
const MODELS: [&str; 2] = ["m", "n"];
/// What a prompt of nine digits is taken for as long as the upstream has not said anything.
const ESTIMATED_PROMPT: u64 = 3;
const MOST_OUTPUT: u64 = 20;
/// Longer than an upstream may pause.
const STALL: Duration = Duration::from_secs(70);

/// How a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It is answered whole.
    Whole,
    /// It is streamed, and the usage comes at the end.
    Stream,
    /// The upstream generates more than was asked for.
    Overrun,
    /// The stream breaks off.
    Cut,
    /// The stream stands still for so long that it is given up.
    Stalls,
    /// The caller goes while it is streamed.
    Left,
    /// The caller goes when the upstream has the request and has said nothing.
    LeftEarly,
    /// The caller goes if the upstream does not have the request after a few seconds.
    Impatient,
    /// The upstream has an error of its own.
    Fails,
    /// The upstream is limited itself.
    Limited,
    /// The connection to the upstream breaks.
    Breaks,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    requests: u64,
    input: u64,
    output: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.input += other.input;
        self.output += other.output;
    }
}

/// Everything that is random about a request, from its number.
#[derive(Debug, Clone)]
struct Plan {
    number: u64,
    course: Course,
    caller: usize,
    model: usize,
    prompt: u64,
    output: u64,
    /// After how many tokens something happens to it.
    until: u64,
    /// How long the upstream takes for each token.
    pace: Duration,
    /// How long its caller would rather wait than be refused.
    wait: Duration,
    begins: Duration,
}

impl Plan {
    fn of(number: u64) -> Self {
        use Course::{
            Breaks, Cut, Fails, Impatient, Left, LeftEarly, Limited, Overrun, Stalls, Stream, Whole,
        };
        let mut rng = Rng::with_seed(number);
        let courses = [
            Whole, Whole, Stream, Stream, Stream, Overrun, Cut, Stalls, Left, Left, LeftEarly, Impatient,
            Impatient, Fails, Limited, Breaks,
        ];
        let course = courses[rng.usize(..courses.len())];
        let output = match course {
            Overrun => rng.u64(MOST_OUTPUT + 1..60),
            _ => rng.u64(1..=MOST_OUTPUT),
        };
        Self {
            number,
            course,
            caller: rng.usize(..CALLERS.len()),
            model: rng.usize(..MODELS.len()),
            prompt: rng.u64(1..100),
            output,
            until: rng.u64(1..=output.min(8)),
            pace: Duration::from_millis(rng.u64(..3_000)),
            wait: Duration::from_secs(if rng.bool() { 20 } else { 0 }),
            // Many come at the same time.
            begins: DAY.mul_f64(Rng::with_seed(number / 15).f64()),
        }
    }

    fn is_counted_as_it_goes(&self) -> bool {
        matches!(self.course, Course::Cut | Course::Stalls | Course::Left)
    }
}

/// What both ends of the day's requests know.
#[derive(Debug, Default)]
struct Day {
    /// What the upstream says that it has done, by request.
    served: Mutex<HashMap<u64, Tally>>,
    arrived: Notify,
    /// What the records of requests say that was charged, by request.
    charged: Mutex<HashMap<u64, Tally>>,
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    held: Mutex<u64>,
}

impl Day {
    fn has_arrived(&self, number: u64) -> bool {
        self.served.lock().unwrap().contains_key(&number)
    }

    async fn arrival_of(&self, number: u64) {
        loop {
            let arrived = self.arrived.notified();
            if self.has_arrived(number) {
                return;
            }
            arrived.await;
        }
    }

    fn serves(&self, number: u64, input: u64, output: u64) {
        let tally = Tally {
            requests: 1,
            input,
            output,
        };
        self.served.lock().unwrap().insert(number, tally);
        self.arrived.notify_waiters();
    }

    /// The upstream's side of a request.
    async fn serve(self: Arc<Self>, exchange: Exchange) {
        let number = exchange.body["prompt"].as_str().unwrap().parse().unwrap();
        let plan = Plan::of(number);
        let (prompt, output) = (plan.prompt, plan.output);
        self.serves(number, 0, 0);
        match plan.course {
            Course::Fails => return exchange.answer(500, &[], json!({ "error": { "message": "no" } })),
            Course::Limited => return exchange.answer(429, &[("retry-after", "1")], json!({})),
            Course::Breaks => return drop(exchange),
            Course::LeftEarly => {
                self.serves(number, ESTIMATED_PROMPT, 0);
                return exchange.stream().hung_up().await;
            }
            Course::Whole => {
                sleep(plan.pace * 5).await;
                self.serves(number, prompt, output);
                let usage = json!({
                    "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
                });
                let body = json!({
                    "id": "x", "object": "text_completion", "created": 1, "model": "up", "usage": usage,
                    "choices": [{ "index": 0, "text": "a", "finish_reason": "stop", "logprobs": null }],
                });
                return exchange.answer(200, &[], body);
            }
            _ => {}
        }
        let stream = exchange.stream();
        if plan.is_counted_as_it_goes() {
            for token in 1..=plan.until {
                sleep(plan.pace).await;
                self.serves(number, prompt, token);
                stream.event(&counted("a", prompt, token));
            }
            // What was said is on its way before anything else happens.
            sleep(STEP).await;
            return match plan.course {
                Course::Cut => stream.cut(),
                _ => stream.hung_up().await,
            };
        }
        for _ in 0..output {
            sleep(plan.pace / 4).await;
            stream.text("a");
        }
        self.serves(number, prompt, output);
        stream.finish("stop");
        stream.usage(prompt, output);
        stream.done();
    }

    /// The caller's side of a request: it comes back up to twice if it is refused.
    async fn call(self: Arc<Self>, gateway: Arc<Gateway>, plan: Plan) {
        sleep(plan.begins).await;
        for attempt in 0..3 {
            let id = format!("{}-{attempt}", plan.number);
            let again = self.attempt(&gateway, &plan, &id).await;
            let explanation = gateway.explain(&id).unwrap();
            *self
                .outcomes
                .lock()
                .unwrap()
                .entry(explanation.outcome)
                .or_default() += 1;
            *self.held.lock().unwrap() += u64::from(!explanation.held.is_zero());
            let charged = Tally {
                requests: explanation.charged.requests,
                input: explanation.charged.input_tokens,
                output: explanation.charged.output_tokens,
            };
            self.charged
                .lock()
                .unwrap()
                .entry(plan.number)
                .or_default()
                .add(charged);
            let Some(wait) = again else { return };
            sleep(wait).await;
        }
    }

    /// When to come again, if that makes sense.
    async fn attempt(&self, gateway: &Gateway, plan: &Plan, id: &str) -> Option<Duration> {
        let caller = gateway.authenticate(&api_key(CALLERS[plan.caller])).unwrap();
        let route = gateway.resolve(MODELS[plan.model]).unwrap();
        let request = request(json!({
            "prompt": format!("{:09}", plan.number), "model": MODELS[plan.model], "max_tokens": MOST_OUTPUT,
            "stream": plan.course != Course::Whole,
        }));
        let arrival = Arrival {
            wait: plan.wait,
            fingerprint: Fingerprint {
                digest: plan.number,
                is_unique: true,
            },
            ..arrival(id)
        };
        let leaves = async {
            match plan.course {
                Course::LeftEarly => self.arrival_of(plan.number).await,
                Course::Impatient => {
                    sleep(Duration::from_secs(3)).await;
                    if self.has_arrived(plan.number) {
                        std::future::pending::<()>().await;
                    }
                }
                _ => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            () = leaves => return None,
            answer = gateway.complete(&caller, route, &request, &arrival) => answer,
        };
        match answer {
            Ok(AnswerBody::Stream(answer)) => read(*answer, plan).await,
            Ok(AnswerBody::Whole(_)) | Err(CompleteError::Failed(_)) => {}
            Err(CompleteError::Refused(refusal)) => return refusal.retry_after,
        }
        None
    }
}

async fn read(mut answer: AnswerStream, plan: &Plan) {
    let mut events = 0;
    while plan.course != Course::Left || events < plan.until {
        let Some(Ok(_)) = answer.next().await else { return };
        events += 1;
    }
}

/// The policies of one part of the day: the one that counts all of it, and others that come and go.
fn policies(rng: &mut Rng) -> Vec<PolicySetup> {
    let units = [
        Unit::Requests,
        Unit::InputTokens,
        Unit::OutputTokens,
        Unit::Tokens,
    ];
    let per_caller = Per {
        caller: true,
        ..Per::default()
    };
    let all = PolicySetup {
        per: per_caller,
        budgets: units
            .map(|unit| BudgetSetup {
                unit,
                limit: ALL,
                period: Period::Month,
                zone: TimeZone::UTC,
            })
            .into(),
        ..policy("all", [])
    };
    let per_minute = |limit, burst| Quota::with_burst(limit, Duration::from_secs(60), burst).unwrap();
    let rate = PolicySetup {
        per: Per {
            model: true,
            ..per_caller
        },
        concurrency: NonZeroU32::new(rng.u32(2..6)),
        ..policy("rate", [(Unit::Requests, per_minute(rng.u64(10..60), 3))])
    };
    let together = PolicySetup {
        hold: Duration::from_secs(10),
        ..policy(
            "together",
            [(Unit::Tokens, per_minute(rng.u64(2_000..9_000), 400))],
        )
    };
    let mut policies = vec![all, rate, together];
    if rng.bool() {
        policies.pop();
    }
    rng.shuffle(&mut policies);
    policies
}

const ALL: u64 = 1_000_000_000;

/// What the caller has used up of the policy that counts all of it, and its sum of both kinds of tokens.
fn levels(gateway: &Gateway, name: &str) -> (Tally, u64) {
    let caller = gateway.authenticate(&api_key(name)).unwrap();
    let route = gateway.resolve("m").unwrap();
    let (mut tally, mut tokens) = (Tally::default(), 0);
    for level in gateway.levels(&caller, route, &arrival("x")) {
        let used = level.limit - level.remaining;
        match level.counted {
            Counted::PerPeriod { unit, .. } => match unit {
                Unit::Requests => tally.requests = used,
                Unit::InputTokens => tally.input = used,
                Unit::OutputTokens => tally.output = used,
                Unit::Tokens => tokens = used,
                Unit::Usd => {}
            },
            Counted::Concurrency => assert_eq!(used, 0, "nothing is running"),
            Counted::PerWindow { .. } => {}
        }
    }
    (tally, tokens)
}

/// Lets pass a moment, and happen what it brings.
async fn step() {
    advance(STEP).await;
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn over_a_day_of_everything_that_can_happen_what_is_charged_is_what_was_served_to_the_token() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let mut rng = Rng::with_seed(7);
    let mut setup = setup(upstream.url());
    let second = model("n", &remote(&mut setup).url);
    setup.models.push(second);
    for model in &mut setup.models {
        model.concurrency = NonZeroU32::new(6);
        model.queue_length = 8;
    }
    setup.policies = policies(&mut rng);
    let callers: Vec<CallerSetup> = setup.callers.clone();
    let gateway = Arc::new(Gateway::start(setup).unwrap());
    let day = Arc::new(Day::default());
    let answering = Arc::clone(&day);
    tokio::spawn(async move {
        loop {
            tokio::spawn(Arc::clone(&answering).serve(upstream.next().await));
        }
    });
    let calls: Vec<_> = (0..REQUESTS)
        .map(|number| tokio::spawn(Arc::clone(&day).call(Arc::clone(&gateway), Plan::of(number))))
        .collect();

    let steps = u32::try_from(DAY.as_secs() / STEP.as_secs()).unwrap();
    for number in 1..=steps {
        step().await;
        if number % 700 == 0 {
            gateway.reload(callers.clone(), policies(&mut rng)).unwrap();
        }
    }
    let mut extra = Duration::ZERO;
    while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
        assert!(extra < 10 * STALL, "some go on for ever");
        step().await;
        extra += STEP;
    }
    for call in calls {
        call.await.unwrap();
    }

    let (served, charged) = (day.served.lock().unwrap(), day.charged.lock().unwrap());
    let mut by_caller = [Tally::default(); CALLERS.len()];
    for number in 0..REQUESTS {
        let plan = Plan::of(number);
        let served = served.get(&number).copied().unwrap_or_default();
        assert_eq!(charged[&number], served, "{plan:?}");
        by_caller[plan.caller].add(served);
    }
    for (name, served) in CALLERS.into_iter().zip(by_caller) {
        let tokens = served.input + served.output;
        assert_eq!(levels(&gateway, name), (served, tokens), "{name}");
        assert!(
            served.requests > 1_000 && served.output > 5_000,
            "{name}: {served:?}"
        );
    }
    let outcomes = day.outcomes.lock().unwrap();
    // It was a day on which all of it happened.
    for outcome in [
        "completed",
        "abandoned",
        "rate_limited",
        "saturated",
        "upstream_failed",
        "upstream_limited",
        "upstream_timeout",
    ] {
        assert!(
            outcomes.get(outcome).is_some_and(|count| *count > 20),
            "{outcome}: {outcomes:?}"
        );
    }
    assert!(*day.held.lock().unwrap() > 100);
}
