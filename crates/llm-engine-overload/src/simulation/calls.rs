//! What clients do, and what becomes of their calls.

use llm_engine_admission::{Arrival, Class, Place, Queued, Request, Saturated, Turn};
use llm_engine_limit::{Fingerprint, Subject, Time};

use super::{Event, Simulation, seconds};
use crate::Asked;

#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: usize,
    pub(super) input: u64,
    output: u64,
    pub(super) gateway: usize,
    request: u64,
    attempt: u32,
    sent: Time,
    pub(super) state: State,
    pub(super) first: Option<Time>,
    comes_as_told: bool,
}

#[derive(Debug)]
pub(super) enum State {
    New,
    Queued(Queued),
    OnItsWay(Place),
    InEngine(Place, usize),
    Gone,
}

impl Simulation<'_> {
    pub(super) fn arrive(&mut self, now: Time, caller: usize, asked: Asked) {
        if now > self.warm {
            self.outcome.offered += 1;
            self.outcome.callers[caller].offered += 1;
        }
        self.second(now).offered += 1;
        let request = self.calls.len() as u64;
        self.calls.push(Call {
            caller,
            input: asked.input,
            output: asked.output,
            gateway: asked.gateway,
            request,
            attempt: 0,
            sent: now,
            state: State::New,
            first: None,
            comes_as_told: false,
        });
        self.call(now, self.calls.len() - 1);
    }

    pub(super) fn call(&mut self, now: Time, index: usize) {
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
                let patience = self.scenario.clients.patience(self.engine.base_seconds());
                self.later(now + patience, Event::Patience(index));
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
        let base = self.engine.draw_base_seconds(&mut self.random);
        if base > 0.0 {
            self.later(now + seconds(base), Event::Reaches(index));
        } else {
            self.reach(index);
        }
    }

    pub(super) fn reach(&mut self, index: usize) {
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

    pub(super) fn turns(&mut self, now: Time, gateway: usize) {
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
        let Call {
            caller,
            input,
            output,
            gateway,
            request,
            attempt,
            ..
        } = self.calls[index];
        let wait = told.map(|told| told.wait);
        let Some(again) = self.scenario.clients.again(&mut self.random, attempt, wait) else {
            if now > self.warm {
                self.outcome.lost += 1;
            }
            return;
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
            comes_as_told: again.as_told && told.is_some_and(|told| told.booked),
        });
        self.later(now + again.wait, Event::Comes(self.calls.len() - 1));
    }

    pub(super) fn hang_up(&mut self, now: Time, index: usize) {
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

    pub(super) fn first_token(&mut self, now: Time, id: usize) {
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

    pub(super) fn ended(&mut self, now: Time, id: usize) {
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
        let (waited, others) = (first.since(sent), now.since(first));
        let base = self.engine.base_seconds();
        let is_good = self.scenario.clients.is_good(base, waited, others, output);
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
}

/// What a request allows at most.
const MOST_OUTPUT: u64 = 2_000;
