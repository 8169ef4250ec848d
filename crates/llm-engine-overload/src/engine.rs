use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::Change;
use crate::random::normal;

/// What an engine is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineSetup {
    /// The tokens of prompts and answers that fit in its memory.
    pub kv_tokens: u64,
    /// The most requests that run at a time.
    pub most_running: usize,
    /// The most tokens, read and written, of one step.
    pub step_tokens: u64,
    /// Seconds of a step that does nothing.
    pub step_seconds: f64,
    /// Seconds for each token written.
    pub write_seconds: f64,
    /// Seconds for each token read.
    pub read_seconds: f64,
    /// Seconds that each request takes before the engine has it, on the network and in what stands in front of it.
    pub base_seconds: f64,
    /// How much these vary: the standard deviation of their logarithm.
    pub base_spread: f64,
}

impl Default for EngineSetup {
    /// An engine for about 8.8 requests a second, each of 500 tokens read and 250 written.
    fn default() -> Self {
        Self {
            kv_tokens: 50_000,
            most_running: 256,
            step_tokens: 2_048,
            step_seconds: 0.012,
            write_seconds: 0.000_2,
            read_seconds: 0.000_04,
            base_seconds: 0.0,
            base_spread: 0.0,
        }
    }
}

/// A model server with continuous batching: every step writes a token of each running answer and reads a part of the
/// prompts that wait, in the order in which they came. A step takes longer the more it does. When the memory is full the
/// youngest answer is put back, and all of it is read again later.
#[derive(Debug)]
pub struct Engine {
    setup: EngineSetup,
    /// The memory that it has now.
    kv_tokens: u64,
    /// By how much every step is slower, and by how much reading and writing are.
    slowness: f64,
    work_slowness: f64,
    waiting: VecDeque<usize>,
    reading: VecDeque<(usize, u64)>,
    /// By when they began to write.
    writing: BTreeMap<u64, usize>,
    requests: Vec<Request>,
    free: Vec<usize>,
    used: u64,
    steps: u64,
    next: u64,
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    /// How often an answer was put back.
    pub preemptions: u64,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    input: u64,
    output: u64,
    written: u64,
    began: u64,
    /// Its key in `writing`.
    order: u64,
    state: State,
    had_first: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Reading,
    Writing,
    Gone,
}

/// What one step has done.
#[derive(Debug, Default)]
pub struct Step {
    /// How long it took. Zero if there was nothing to do.
    pub seconds: f64,
    /// Whose first token it has written.
    pub first: Vec<usize>,
    /// Whose last one.
    pub ended: Vec<usize>,
}

impl Engine {
    /// One with nothing to do.
    #[must_use]
    pub fn new(setup: EngineSetup) -> Self {
        Self {
            setup,
            kv_tokens: setup.kv_tokens,
            slowness: 1.0,
            work_slowness: 1.0,
            waiting: VecDeque::new(),
            reading: VecDeque::new(),
            writing: BTreeMap::new(),
            requests: Vec::new(),
            free: Vec::new(),
            used: 0,
            steps: 0,
            next: 0,
            ends: BinaryHeap::new(),
            preemptions: 0,
        }
    }

    /// Takes a request. It is known by the number until it ends or is aborted.
    pub fn submit(&mut self, input: u64, output: u64) -> usize {
        let request = Request {
            input,
            output,
            written: 0,
            began: 0,
            order: 0,
            state: State::Waiting,
            had_first: false,
        };
        let id = if let Some(id) = self.free.pop() {
            self.requests[id] = request;
            id
        } else {
            self.requests.push(request);
            self.requests.len() - 1
        };
        self.waiting.push_back(id);
        id
    }

    /// Nobody waits for it any more.
    pub fn abort(&mut self, id: usize) {
        let request = self.requests[id];
        match request.state {
            State::Waiting => self.waiting.retain(|other| *other != id),
            State::Reading => {
                self.reading.retain(|(other, _)| *other != id);
                self.used -= request.input + request.written;
            }
            State::Writing => {
                self.writing.remove(&request.order);
                self.used -= request.input + self.written(id);
            }
            State::Gone => return,
        }
        self.requests[id].state = State::Gone;
        self.free.push(id);
    }

    /// Tokens of its answer so far.
    #[must_use]
    pub fn written(&self, id: usize) -> u64 {
        let request = &self.requests[id];
        match request.state {
            State::Writing => request.written + self.steps - request.began,
            _ => request.written,
        }
    }

    /// Something happens to it.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Slower(times) => self.slowness = times,
            Change::Capacity(part) => {
                self.work_slowness = 1.0 / part;
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "thousands"
                )]
                let tokens = (self.setup.kv_tokens as f64 * part) as u64;
                self.kv_tokens = tokens;
            }
            Change::Base(base) => self.setup.base_seconds = base,
        }
    }

    /// Seconds that requests take before it has them, as they usually are.
    #[must_use]
    pub fn base_seconds(&self) -> f64 {
        self.setup.base_seconds
    }

    /// Those of one request.
    pub fn draw_base_seconds(&self, random: &mut fastrand::Rng) -> f64 {
        self.setup.base_seconds * (self.setup.base_spread * normal(random)).exp()
    }

    /// Requests that it has begun.
    #[must_use]
    pub fn running(&self) -> usize {
        self.reading.len() + self.writing.len()
    }

    /// One step.
    pub fn step(&mut self) -> Step {
        self.make_room();
        let writes = self.writing.len() as u64;
        let (read, begun) = self.read(self.setup.step_tokens.saturating_sub(writes));
        if writes == 0 && read == 0 {
            return Step::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let work = self.setup.write_seconds * writes as f64 + self.setup.read_seconds * read as f64;
        let seconds = (self.setup.step_seconds + work * self.work_slowness) * self.slowness;
        self.steps += 1;
        self.used += writes;
        let ended = self.end();
        let mut first = Vec::new();
        for id in begun {
            let order = self.next;
            self.next += 1;
            let request = &mut self.requests[id];
            if !std::mem::replace(&mut request.had_first, true) {
                first.push(id);
            }
            request.state = State::Writing;
            request.began = self.steps;
            request.order = order;
            let left = request.output.saturating_sub(request.written).max(1);
            self.writing.insert(order, id);
            self.ends.push(Reverse((self.steps + left, order)));
        }
        Step {
            seconds,
            first,
            ended,
        }
    }

    /// Puts back the youngest until every running answer has room for another token.
    fn make_room(&mut self) {
        while self.used + self.writing.len() as u64 > self.kv_tokens && self.running() > 1 {
            let id = if let Some((id, _)) = self.reading.pop_back() {
                id
            } else if let Some((_, id)) = self.writing.pop_last() {
                self.requests[id].written = self.written(id);
                id
            } else {
                return;
            };
            let request = &mut self.requests[id];
            request.state = State::Waiting;
            self.used -= request.input + request.written;
            self.waiting.push_front(id);
            self.preemptions += 1;
        }
    }

    /// Reads prompts: how many tokens, and which are read to their end.
    fn read(&mut self, mut budget: u64) -> (u64, Vec<usize>) {
        let mut read = 0;
        let mut begun = Vec::new();
        loop {
            while budget > 0
                && let Some((id, left)) = self.reading.front_mut()
            {
                let part = budget.min(*left);
                *left -= part;
                budget -= part;
                read += part;
                if *left == 0 {
                    begun.push(*id);
                    self.reading.pop_front();
                }
            }
            if budget == 0 {
                break;
            }
            let Some(id) = self.waiting.front().copied() else {
                break;
            };
            let request = &mut self.requests[id];
            let need = request.input + request.written;
            let running = self.reading.len() + self.writing.len();
            // A hundredth is kept free, as engines do.
            let is_full = (self.used + need) * 100 > self.kv_tokens * 99 && running > 0;
            if running + begun.len() >= self.setup.most_running || is_full {
                break;
            }
            self.waiting.pop_front();
            request.state = State::Reading;
            self.used += need;
            self.reading.push_back((id, need));
        }
        (read, begun)
    }

    fn end(&mut self) -> Vec<usize> {
        let mut ended = Vec::new();
        while let Some(Reverse((step, order))) = self.ends.peek().copied()
            && step <= self.steps
        {
            self.ends.pop();
            // Otherwise it was put back or aborted since.
            if let Some(id) = self.writing.remove(&order) {
                let request = &mut self.requests[id];
                self.used -= request.input + request.output;
                request.written = request.output;
                request.state = State::Gone;
                ended.push(id);
            }
        }
        ended
    }

    /// The number of a request that has ended may be used again.
    pub fn forget(&mut self, id: usize) {
        self.free.push(id);
    }
}
