use std::collections::{BTreeSet, HashMap};

use foldhash::fast::FixedState;
use llm_engine_limit::{Subject, Time};

use crate::Class;
use crate::backlog::Backlog;

/// Whose turn it is: of all callers with something in the queue the one that has been served least, by *virtual token
/// counters*.
///
/// A caller's counter is what it has been served: the input and twice the output of its requests, the output being
/// expected at first and corrected when it is known. Who comes back with a counter below those of the callers that have waited
/// meanwhile is lifted to the least of them less a *credit* of some seconds: nobody saves up turns by staying away, but one whose
/// requests come in bursts and that takes less than its share is served at once. A caller that is not known begins without
/// credit. So of two callers that both always have something in the queue, neither is ever further ahead than what runs at a time and
/// the credit.
///
/// Requests of a caller go in the order in which they came. All operations take logarithmic time.
#[derive(Debug)]
pub(crate) struct FairQueue {
    callers: HashMap<u32, Caller, FixedState>,
    /// By the counters of callers, for each class: those with something queued.
    turns: [BTreeSet<(i64, u32)>; Class::COUNT],
    /// Those of which nothing is queued and nothing runs, by their counters. Forgotten when all others have passed them.
    resting: BTreeSet<(i64, u32)>,
    /// The least counter of those that waited when a turn was last given.
    floor: i64,
    /// How far below that a caller may be who has taken less than its share.
    credit: i64,
    waiting: HashMap<u64, Waiting, FixedState>,
    next: u64,
    backlogs: [Backlog; Class::COUNT],
}

#[derive(Debug, Default)]
struct Caller {
    counter: i64,
    /// Those that come at a promised time before the others, and in the order in which they came.
    queued: [BTreeSet<(bool, u64)>; Class::COUNT],
    /// The charges of these.
    backlog: [u64; Class::COUNT],
    /// The charges of those that came at a promised time.
    promised: [u64; Class::COUNT],
    running: u32,
}

/// A request in the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) subject: Subject,
    pub(crate) class: Class,
    /// What it is expected to be served.
    pub(crate) charge: u64,
    pub(crate) input_tokens: u64,
    /// Whether it came at the time that was promised to it.
    pub(crate) is_promised: bool,
    /// When it is refused at the latest.
    pub(crate) until: Time,
}

impl FairQueue {
    pub(crate) fn new() -> Self {
        Self {
            callers: HashMap::default(),
            turns: [BTreeSet::new(), BTreeSet::new()],
            resting: BTreeSet::new(),
            floor: 0,
            credit: 0,
            waiting: HashMap::default(),
            next: 0,
            backlogs: [Backlog::new(), Backlog::new()],
        }
    }

    /// How much less than others that wait a caller may have got and still catch up. See [`FairQueue`].
    pub(crate) fn set_credit(&mut self, credit: u64) {
        self.credit = signed(credit);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Callers with something queued, this one included whatever it has.
    pub(crate) fn callers_with(&self, caller: u32) -> u64 {
        let queued: u64 = self.backlogs.iter().map(Backlog::callers).sum();
        let own = self.callers.get(&caller);
        queued + u64::from(own.is_none_or(|own| own.backlog == [0; Class::COUNT]))
    }

    /// What would be served before a request that this caller adds now.
    pub(crate) fn ahead(&self, caller: u32, class: Class, charge: u64, is_promised: bool) -> u64 {
        let place = class as usize;
        let known = self.callers.get(&caller);
        let (own, before) = known.map_or((0, 0), |known| {
            let own = known.backlog[place];
            (own, if is_promised { known.promised[place] } else { own })
        });
        let lead = known.map_or(0, |own| own.counter.max(self.floor - self.credit) - self.floor);
        // It has its turn when the others have got as much.
        let turn = signed(before.saturating_add(charge)).saturating_add(lead);
        let others = self.backlogs[place].others(own, u64::try_from(turn).unwrap_or(0));
        let higher: u64 = self.backlogs[..place].iter().map(Backlog::sum).sum();
        higher.saturating_add(before).saturating_add(others)
    }

    /// Adds a request at the end of its caller's.
    pub(crate) fn push(&mut self, request: Waiting) -> u64 {
        let key = self.next;
        self.next += 1;
        let Waiting {
            subject,
            class,
            charge,
            ..
        } = request;
        let id = subject.caller;
        self.wake(id);
        let place = class as usize;
        let caller = self.callers.entry(id).or_default();
        if caller.queued[place].is_empty() {
            self.turns[place].insert((caller.counter, id));
        }
        caller.queued[place].insert((!request.is_promised, key));
        let before = caller.backlog[place];
        caller.backlog[place] += charge;
        if request.is_promised {
            caller.promised[place] += charge;
        }
        self.backlogs[place].change(before, caller.backlog[place]);
        self.waiting.insert(key, request);
        key
    }

    /// The request whose turn it is, taken out and charged.
    pub(crate) fn pop(&mut self) -> Option<(u64, Waiting)> {
        let turns = self.turns.iter().find(|turns| !turns.is_empty())?;
        let (counter, id) = *turns.first()?;
        let place = self.turns.iter().position(|turns| !turns.is_empty())?;
        let (_, key) = *self.callers.get(&id)?.queued[place].first()?;
        self.floor = self.floor.max(counter);
        let request = self.take(key)?;
        self.begin(id, request.charge);
        self.forget_passed();
        Some((key, request))
    }

    /// Takes a request out that is not to be served.
    pub(crate) fn remove(&mut self, key: u64) -> Option<Waiting> {
        let request = self.take(key)?;
        self.rest(request.subject.caller);
        Some(request)
    }

    /// A request of this caller begins while nothing is queued. What a caller gets while nobody waits for it is not held
    /// against it later: everybody else who comes is lifted to where it was before.
    pub(crate) fn pass(&mut self, caller: u32, charge: u64) {
        self.wake(caller);
        let counter = self.callers.entry(caller).or_default().counter;
        self.floor = self.floor.max(counter);
        self.begin(caller, charge);
        self.forget_passed();
    }

    fn begin(&mut self, caller: u32, charge: u64) {
        self.resting
            .remove(&(self.callers.entry(caller).or_default().counter, caller));
        self.add(caller, signed(charge));
        self.callers.entry(caller).or_default().running += 1;
    }

    /// A request that was charged so much has ended and was served so much.
    pub(crate) fn end(&mut self, caller: u32, charge: u64, served: u64) {
        self.add(caller, signed(served) - signed(charge));
        if let Some(known) = self.callers.get_mut(&caller) {
            known.running -= 1;
        }
        self.rest(caller);
    }

    /// A caller that has nothing here gets a counter no lower than the others have come meanwhile.
    fn wake(&mut self, id: u32) {
        let least = self.turns.iter().filter_map(|turns| turns.first());
        let least = least.map(|(counter, _)| *counter).min();
        let floor = least.map_or(self.floor, |least| least.max(self.floor));
        let caller = self.callers.entry(id).or_insert_with(|| Caller {
            counter: floor,
            ..Caller::default()
        });
        self.resting.remove(&(caller.counter, id));
        if caller.queued.iter().all(BTreeSet::is_empty) {
            caller.counter = caller.counter.max(floor - self.credit);
        }
    }

    fn add(&mut self, id: u32, served: i64) {
        let caller = self.callers.entry(id).or_default();
        let before = caller.counter;
        caller.counter = before.saturating_add(served);
        for (turns, queued) in self.turns.iter_mut().zip(&caller.queued) {
            if !queued.is_empty() {
                turns.remove(&(before, id));
                turns.insert((caller.counter, id));
            }
        }
    }

    fn take(&mut self, key: u64) -> Option<Waiting> {
        let request = self.waiting.remove(&key)?;
        let place = request.class as usize;
        let caller = self.callers.get_mut(&request.subject.caller)?;
        caller.queued[place].remove(&(!request.is_promised, key));
        if caller.queued[place].is_empty() {
            self.turns[place].remove(&(caller.counter, request.subject.caller));
        }
        let before = caller.backlog[place];
        caller.backlog[place] -= request.charge;
        if request.is_promised {
            caller.promised[place] -= request.charge;
        }
        self.backlogs[place].change(before, caller.backlog[place]);
        Some(request)
    }

    /// Notes a caller of whom nothing is left here, to forget it in time.
    fn rest(&mut self, id: u32) {
        let Some(caller) = self.callers.get(&id) else {
            return;
        };
        if caller.running > 0 || caller.queued.iter().any(|queued| !queued.is_empty()) {
            return;
        }
        self.resting.insert((caller.counter, id));
        self.forget_passed();
    }

    fn forget_passed(&mut self) {
        while let Some((counter, id)) = self.resting.first().copied()
            && counter <= self.floor - self.credit
        {
            self.resting.remove(&(counter, id));
            self.callers.remove(&id);
        }
    }
}

/// Charges are far below the end of the range.
fn signed(charge: u64) -> i64 {
    i64::try_from(charge).unwrap_or(i64::MAX / 2)
}
