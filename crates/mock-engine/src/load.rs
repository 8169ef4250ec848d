use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use llm_engine_overload::{Asked, Clients, Scenario};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::call::{Call, Ended};
use crate::prompt::{ROLE, content};
use crate::tally::Tally;
use crate::{Measured, MockEngine};

/// The callers of a scenario, in front of a server. They send the same requests at the same times as in a simulation, and do the
/// same when they get no answer.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server that they call; `http://127.0.0.1:5000`, for example.
    pub server: String,
    /// The model that they ask for.
    pub model: String,
    /// The API key of each caller.
    pub api_keys: Vec<String>,
}

/// What all calls share.
#[derive(Debug)]
struct Crowd {
    load: Load,
    client: Client<HttpConnector, Full<Bytes>>,
    clients: Clients,
    random: Mutex<fastrand::Rng>,
    tally: Tally,
}

impl Load {
    /// Sends the requests, and lets happen to the engine what happens to it in the scenario. What is under way at the end is dropped.
    ///
    /// # Panics
    /// If a caller has no API key.
    pub async fn run(&self, scenario: &Scenario, engine: &MockEngine) -> Measured {
        assert!(
            self.api_keys.len() >= scenario.callers.len(),
            "a key for each caller"
        );
        let begun = Instant::now();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let crowd = Arc::new(Crowd {
            load: self.clone(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            clients: scenario.clients,
            random: Mutex::new(fastrand::Rng::with_seed(scenario.seed)),
            tally: Tally::new(scenario, begun),
        });
        let requests = requests(scenario);
        let send = async {
            let mut under_way = JoinSet::new();
            for (number, (caller, asked)) in requests.into_iter().enumerate() {
                sleep_until(begun + asked.at).await;
                let (crowd, base) = (Arc::clone(&crowd), engine.base_seconds());
                under_way.spawn(async move { crowd.request(number, caller, asked, base).await });
                // What has ended takes no memory.
                while under_way.try_join_next().is_some() {}
            }
            sleep_until(begun + Duration::from_secs_f64(scenario.lasts)).await;
        };
        let changes = async {
            for (seconds, change) in &scenario.changes {
                sleep_until(begun + Duration::from_secs_f64(*seconds)).await;
                engine.change(*change);
            }
        };
        tokio::join!(send, changes);
        crowd.tally.measured(engine.seen().preemptions)
    }
}

/// All requests of a scenario, each with its caller, in the order in which they come.
fn requests(scenario: &Scenario) -> Vec<(usize, Asked)> {
    let lasts = Duration::from_secs_f64(scenario.lasts);
    let of_caller = |(caller, arrivals)| {
        Iterator::take_while(arrivals, move |asked: &Asked| asked.at < lasts)
            .map(move |asked| (caller, asked))
    };
    let arrivals = scenario.arrivals().into_iter().enumerate();
    let mut requests: Vec<(usize, Asked)> = arrivals.flat_map(of_caller).collect();
    requests.sort_by_key(|(_, asked)| asked.at);
    requests
}

impl Crowd {
    /// Sends a request as often as its client does.
    async fn request(&self, number: usize, caller: usize, asked: Asked, base: f64) {
        self.tally.offered(caller);
        let call = self.call(number, caller, asked);
        let patience = self.clients.patience(base);
        let mut is_claim = false;
        for retries in 0.. {
            self.tally.called();
            let ended = call
                .send(patience, |after| self.tally.first_token(caller, after))
                .await;
            let refused = match ended {
                Ended::Answered(answer) => {
                    self.claim(is_claim, true);
                    return self.tally.ended(caller, asked, base, answer);
                }
                Ended::Failed(error) => return self.tally.failed(error),
                Ended::HungUp => {
                    self.claim(is_claim, true);
                    self.tally.hung_up();
                    None
                }
                Ended::Refused(refused) => {
                    self.claim(is_claim, false);
                    self.tally.refused();
                    Some(refused)
                }
            };
            let again = {
                let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
                self.clients
                    .again(&mut random, retries, refused.map(|refused| refused.wait))
            };
            let Some(again) = again else {
                return self.tally.lost();
            };
            is_claim = again.as_told && refused.is_some_and(|refused| refused.is_booked);
            sleep(again.wait).await;
        }
    }

    fn claim(&self, is_claim: bool, is_kept: bool) {
        if is_claim {
            self.tally.claimed(is_kept);
        }
    }

    fn call(&self, number: usize, caller: usize, asked: Asked) -> Call {
        let body = json!({
            "model": self.load.model,
            "messages": [{ "role": ROLE, "content": content(asked.input) }],
            "max_tokens": MOST_OUTPUT,
            "stream": true,
            "stream_options": { "include_usage": true },
            "mock_output_tokens": asked.output,
            // No two requests are the same, but each is when it comes again.
            "mock_request": number,
        });
        Call {
            client: self.client.clone(),
            url: format!("{}/v1/chat/completions", self.load.server),
            api_key: self.load.api_keys[caller].clone(),
            body: body.to_string().into(),
            output: asked.output,
        }
    }
}

/// What a request allows at most, as in simulations.
const MOST_OUTPUT: u64 = 2_000;
