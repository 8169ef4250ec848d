mod calls;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use llm_engine_admission::{Admission, Queued};
use llm_engine_limit::Time;

use crate::engine::Engine;
use crate::random::stream;
use crate::{Arrivals, Asked, CallerOutcome, Outcome, Scenario, Second};
use calls::{Call, State};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize, Asked),
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
    arrivals: Vec<Arrivals>,
    random: fastrand::Rng,
    engine: Engine,
    gateways: Vec<Admission>,
    queued: Vec<HashMap<Queued, usize>>,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    number: u64,
    calls: Vec<Call>,
    in_engine: HashMap<usize, usize>,
    outcome: Outcome,
    warm: Time,
}

/// Runs a scenario.
#[must_use]
pub fn simulate(scenario: &Scenario) -> Outcome {
    let mut simulation = Simulation {
        scenario,
        arrivals: scenario.arrivals(),
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
        outcome: Outcome {
            callers: vec![CallerOutcome::default(); scenario.callers.len()],
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
            self.next_arrival(caller);
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
            Event::Arrives(caller, asked) => {
                self.next_arrival(caller);
                self.arrive(now, caller, asked);
            }
            Event::Comes(call) => self.call(now, call),
            Event::Reaches(call) => self.reach(call),
            Event::Patience(call) => self.hang_up(now, call),
            Event::Changes(index) => self.engine.change(self.scenario.changes[index].1),
            Event::Looks => {
                self.report_written();
                for gateway in 0..self.gateways.len() {
                    self.turns(now, gateway);
                }
                self.note(now);
                self.later(now + seconds(LOOKS), Event::Looks);
            }
        }
    }

    fn next_arrival(&mut self, caller: usize) {
        if let Some(asked) = self.arrivals[caller].next() {
            self.later(Time::ZERO + asked.at, Event::Arrives(caller, asked));
        }
    }

    /// Gateways count what streams through them.
    fn report_written(&mut self) {
        for (id, index) in &self.in_engine {
            let call = &self.calls[*index];
            if let (Some(_), State::InEngine(place, _)) = (call.first, &call.state) {
                self.gateways[call.gateway].wrote(place, self.engine.written(*id));
            }
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

const LOOKS: f64 = 0.1;

fn at(since_start: f64) -> Time {
    Time::ZERO + seconds(since_start)
}

fn seconds(seconds: f64) -> std::time::Duration {
    std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
}
