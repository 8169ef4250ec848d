use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use llm_engine_admission::{Admission, Arrival, Class, Place, Queued, Request, Saturated, Turn};
use llm_engine_limit::{Fingerprint, Subject, Time};

use crate::engine::Engine;
use crate::random::{length, normal, stream};
use crate::{Backoff, Change, Outcome, Scenario, Second};

#[derive(Debug)]
struct Call {
    caller: usize,
    input: u64,
    output: u64,
    gateway: usize,
    request: u64,
    attempt: u32,
    sent: Time,
    state: State,
    first: Option<Time>,
    comes_as_told: bool,
}

#[derive(Debug)]
enum State {
    New,
    Queued(Queued),
    OnItsWay(Place),
    InEngine(Place, usize),
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    Comes(usize),
    Reaches(usize),
    Patience(usize),
    Changes(usize),
    Looks,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    /// Of each caller's requests, and of what clients and the way to the engine do: separate, so that the requests are
    /// the same whatever becomes of them.
    arrivals: Vec<fastrand::Rng>,
    random: fastrand::Rng,
    engine: Engine,
    gateways: Vec<Admission>,
    queued: Vec<HashMap<Queued, usize>>,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    number: u64,
    calls: Vec<Call>,
    in_engine: HashMap<usize, usize>,
    base: f64,
    kv: u64,
    outcome: Outcome,
    warm: Time,
}

/// Runs a scenario.
#[must_use]
pub fn simulate(scenario: &Scenario) -> Outcome {
    let mut simulation = Simulation {
        scenario,
        arrivals: (0..)
            .zip(&scenario.callers)
            .map(|(number, _)| stream(scenario.seed, number))
            .collect(),
        random: stream(scenario.seed, u64::MAX),
        engine: Engine::new(scenario.engine),
        gateways: scenario
            .gateways
            .iter()
            .map(|_| Admission::new(scenario.admission))
            .collect(),
        queued: scenario.gateways.iter().map(|_| HashMap::new()).collect(),
        events: BinaryHeap::new(),
        number: 0,
        calls: Vec::new(),
        in_engine: HashMap::new(),
        base: scenario.engine.base_seconds,
        kv: scenario.engine.kv_tokens,
        outcome: Outcome {
            callers: vec![crate::CallerOutcome::default(); scenario.callers.len()],
            by_gateway: vec![0; scenario.gateways.len()],
            lasted: scenario.lasts - scenario.warm_up,
            ..Outcome::default()
        },
        warm: at(scenario.warm_up),
    };
    simulation.run();
    simulation.outcome
}

impl Simulation<'_> {
    fn run(&mut self) {
        for caller in 0..self.scenario.callers.len() {
            self.next_arrival(Time::ZERO, caller);
        }
        for (index, (seconds, _)) in self.scenario.changes.iter().enumerate() {
            self.later(at(*seconds), Event::Changes(index));
        }
        self.later(at(LOOKS), Event::Looks);
        let end = at(self.scenario.lasts);
        let mut now = Time::ZERO;
        while now < end {
            let step = self.engine.step();
            let until = if step.seconds > 0.0 {
                now + seconds(step.seconds)
            } else {
                self.events.peek().map_or(end, |Reverse((time, ..))| *time)
            };
            while let Some(Reverse((time, _, _))) = self.events.peek()
                && *time <= until
            {
                if let Some(Reverse((time, _, event))) = self.events.pop() {
                    self.happen(time, event);
                }
            }
            now = until;
            for id in step.first {
                self.first_token(now, id);
            }
            for id in step.ended {
                self.ended(now, id);
            }
            for gateway in 0..self.gateways.len() {
                self.turns(now, gateway);
            }
        }
        self.outcome.preemptions = self.engine.preemptions;
        self.outcome.first_tokens.sort_by(f64::total_cmp);
        for caller in &mut self.outcome.callers {
            caller.first_tokens.sort_by(f64::total_cmp);
        }
    }

    fn later(&mut self, time: Time, event: Event) {
        self.number += 1;
        self.events.push(Reverse((time, self.number, event)));
    }

    fn happen(&mut self, now: Time, event: Event) {
        match event {
            Event::Arrives(caller) => {
                self.next_arrival(now, caller);
                self.arrive(now, caller);
            }
            Event::Comes(call) => self.call(now, call),
            Event::Reaches(call) => self.reach(call),
            Event::Patience(call) => self.hang_up(now, call),
            Event::Changes(index) => self.change(self.scenario.changes[index].1),
            Event::Looks => {
                for gateway in 0..self.gateways.len() {
                    self.turns(now, gateway);
                }
                self.note(now);
                self.later(now + seconds(LOOKS), Event::Looks);
            }
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Slower(times) => self.engine.slowness = times,
            Change::Capacity(part) => {
                self.engine.work_slowness = 1.0 / part;
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "thousands"
                )]
                self.engine.set_kv_tokens((self.kv as f64 * part) as u64);
            }
            Change::Base(base) => self.base = base,
        }
    }

    fn next_arrival(&mut self, now: Time, caller: usize) {
        let rate = self.scenario.callers[caller].rate;
        if rate > 0.0 {
            let pause = -(1.0 - self.arrivals[caller].f64()).ln() / rate;
            self.later(now + seconds(pause), Event::Arrives(caller));
        }
    }

    fn arrive(&mut self, now: Time, caller: usize) {
        let load = self.scenario.callers[caller];
        let random = &mut self.arrivals[caller];
        let input = length(random, load.input);
        let output = length(random, load.output);
        let mut pick = random.f64() * self.scenario.gateways.iter().sum::<f64>();
        let gateway = self.scenario.gateways.iter().position(|weight| {
            pick -= weight;
            pick < 0.0
        });
        if now > self.warm {
            self.outcome.offered += 1;
            self.outcome.callers[caller].offered += 1;
        }
        self.second(now).offered += 1;
        let request = self.calls.len() as u64;
        self.calls.push(Call {
            caller,
            input,
            output,
            gateway: gateway.unwrap_or(0),
            request,
            attempt: 0,
            sent: now,
            state: State::New,
            first: None,
            comes_as_told: false,
        });
        self.call(now, self.calls.len() - 1);
    }

    fn call(&mut self, now: Time, index: usize) {
        let call = &mut self.calls[index];
        call.sent = now;
        let gateway = call.gateway;
        let request = Request {
            subject: Subject {
                caller: u32::try_from(call.caller).unwrap_or(0),
                ..Subject::default()
            },
            class: Class::Interactive,
            input_tokens: call.input,
            most_output_tokens: MOST_OUTPUT,
            deadline: None,
            fingerprint: Some(Fingerprint {
                digest: call.request,
                is_unique: true,
            }),
        };
        let comes_as_told = call.comes_as_told;
        let arrival = self.gateways[gateway].arrive(now, &request);
        if now > self.warm {
            self.outcome.calls += 1;
            if comes_as_told {
                self.outcome.claimed += 1;
                self.outcome.kept += u64::from(arrival.is_ok());
            }
        }
        match arrival {
            Ok(arrival) => {
                self.later(
                    now + seconds(self.scenario.clients.patience + self.base),
                    Event::Patience(index),
                );
                match arrival {
                    Arrival::Place(place) => self.dispatch(now, index, place),
                    Arrival::Queued(queued) => {
                        self.queued[gateway].insert(queued, index);
                        self.calls[index].state = State::Queued(queued);
                    }
                }
            }
            Err(saturated) => self.refused(now, index, saturated),
        }
        self.turns(now, gateway);
    }

    fn dispatch(&mut self, now: Time, index: usize, place: Place) {
        let gateway = self.calls[index].gateway;
        self.gateways[gateway].sent(now, &place, 0);
        self.calls[index].state = State::OnItsWay(place);
        let base = self.base * (self.scenario.engine.base_spread * normal(&mut self.random)).exp();
        if base > 0.0 {
            self.later(now + seconds(base), Event::Reaches(index));
        } else {
            self.reach(index);
        }
    }

    fn reach(&mut self, index: usize) {
        let call = &mut self.calls[index];
        match std::mem::replace(&mut call.state, State::Gone) {
            State::OnItsWay(place) => {
                let id = self.engine.submit(call.input, call.output);
                call.state = State::InEngine(place, id);
                self.in_engine.insert(id, index);
            }
            state => call.state = state,
        }
    }

    fn turns(&mut self, now: Time, gateway: usize) {
        while let Some(turn) = self.gateways[gateway].turn(now) {
            match turn {
                Turn::Place(queued, place) => {
                    if let Some(index) = self.queued[gateway].remove(&queued) {
                        self.dispatch(now, index, place);
                    }
                }
                Turn::Refused(queued, saturated) => {
                    if let Some(index) = self.queued[gateway].remove(&queued) {
                        self.refused(now, index, saturated);
                    }
                }
            }
        }
    }

    fn refused(&mut self, now: Time, index: usize, saturated: Saturated) {
        if now > self.warm {
            self.outcome.refused += 1;
        }
        self.second(now).refused += 1;
        self.calls[index].state = State::Gone;
        self.again(now, index, Some(saturated));
    }

    fn again(&mut self, now: Time, index: usize, told: Option<Saturated>) {
        let clients = self.scenario.clients;
        let Call {
            caller,
            input,
            output,
            gateway,
            request,
            attempt,
            ..
        } = self.calls[index];
        if attempt >= clients.retries {
            if now > self.warm {
                self.outcome.lost += 1;
            }
            return;
        }
        let told = told.filter(|_| self.random.f64() < clients.obedient);
        let wait = match told {
            Some(saturated) => saturated.wait + seconds(0.2 * self.random.f64()),
            None => seconds(match clients.backoff {
                Backoff::Constant => 0.9 + 0.2 * self.random.f64(),
                Backoff::Exponential => f64::from(1_u32 << attempt.min(20)) * (0.5 + self.random.f64()),
            }),
        };
        self.calls.push(Call {
            caller,
            input,
            output,
            gateway,
            request,
            attempt: attempt + 1,
            sent: now,
            state: State::New,
            first: None,
            comes_as_told: told.is_some_and(|told| told.booked),
        });
        self.later(now + wait, Event::Comes(self.calls.len() - 1));
    }

    fn hang_up(&mut self, now: Time, index: usize) {
        let call = &mut self.calls[index];
        if call.first.is_some() {
            return;
        }
        let gateway = call.gateway;
        match std::mem::replace(&mut call.state, State::Gone) {
            State::Queued(queued) => {
                self.gateways[gateway].cancel(queued);
                self.queued[gateway].remove(&queued);
            }
            State::OnItsWay(place) => self.gateways[gateway].end(now, place, 0, 0),
            State::InEngine(place, id) => {
                self.engine.abort(id);
                self.in_engine.remove(&id);
                self.gateways[gateway].end(now, place, call.input, 0);
            }
            State::New | State::Gone => return,
        }
        if now > self.warm {
            self.outcome.hung_up += 1;
        }
        self.again(now, index, None);
    }

    fn first_token(&mut self, now: Time, id: usize) {
        // Its client may have hung up during the step.
        let Some(index) = self.in_engine.get(&id).copied() else {
            return;
        };
        let call = &mut self.calls[index];
        call.first = Some(now);
        let took = now.since(call.sent).as_secs_f64();
        if let State::InEngine(place, _) = &call.state {
            self.gateways[call.gateway].first_token(now, place);
        }
        if now > self.warm {
            self.outcome.first_tokens.push(took);
            self.outcome.callers[call.caller].first_tokens.push(took);
        }
    }

    fn ended(&mut self, now: Time, id: usize) {
        let Some(index) = self.in_engine.remove(&id) else {
            return;
        };
        self.engine.forget(id);
        let call = &mut self.calls[index];
        let Call {
            caller,
            input,
            output,
            gateway,
            sent,
            first,
            ..
        } = *call;
        if let State::InEngine(place, _) = std::mem::replace(&mut call.state, State::Gone) {
            self.gateways[gateway].end(now, place, input, output);
        }
        if now > self.warm {
            self.outcome.callers[caller].served += input + 2 * output;
        }
        let Some(first) = first else { return };
        let clients = self.scenario.clients;
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let pace = now.since(first).as_secs_f64() / output as f64;
        let is_good = first.since(sent).as_secs_f64() <= clients.good_first_token + self.base
            && pace <= clients.good_pace;
        if !is_good {
            return;
        }
        self.second(now).good_tokens += output;
        if now > self.warm {
            self.outcome.good += 1;
            self.outcome.good_tokens += output;
            self.outcome.callers[caller].good += 1;
            self.outcome.by_gateway[gateway] += 1;
        }
    }

    fn note(&mut self, now: Time) {
        let standings: Vec<_> = self.gateways.iter().map(Admission::standing).collect();
        let second = self.second(now);
        second.limit = standings.iter().map(|standing| standing.limit).sum();
        second.in_flight = standings.iter().map(|standing| standing.in_flight).sum();
        second.waiting = standings.iter().map(|standing| standing.waiting).sum();
        second.queued = standings.iter().map(|standing| standing.queued).sum();
        let mut served: Vec<u64> = self.outcome.callers.iter().map(|caller| caller.served).collect();
        for (id, index) in &self.in_engine {
            let call = &self.calls[*index];
            if call.first.is_some() {
                served[call.caller] += call.input + 2 * self.engine.written(*id);
            }
        }
        self.second(now).served = served;
    }

    fn second(&mut self, now: Time) -> &mut Second {
        let index = usize::try_from(now.as_nanos() / 1_000_000_000).unwrap_or(0);
        if self.outcome.seconds.len() <= index {
            self.outcome.seconds.resize(index + 1, Second::default());
        }
        &mut self.outcome.seconds[index]
    }
}

/// What a request allows at most.
const MOST_OUTPUT: u64 = 2_000;
const LOOKS: f64 = 0.1;

fn at(since_start: f64) -> Time {
    Time::ZERO + seconds(since_start)
}

fn seconds(seconds: f64) -> std::time::Duration {
    std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
}
