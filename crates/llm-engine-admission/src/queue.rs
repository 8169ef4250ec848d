use std::collections::{BTreeSet, HashMap};

use foldhash::fast::FixedState;
use llm_engine_limit::Time;

use crate::backlog::Backlog;
use crate::{Class, Request};

/// Whose turn it is: of all callers with something in the queue the one that has been served least, by *virtual token
/// counters*.
///
/// A caller's counter is what it has been served: the input and twice the output of its requests, the output being
/// expected at first and corrected when it is known. Who takes less than its share falls behind those that wait, by a *credit* of some
/// seconds at most, and is served at once until it has caught up. Who was away comes back with a part of the credit, and who is not known
/// begins without: nobody saves up turns by staying away. So of two callers that both always have something in the queue,
/// neither is ever further ahead than what runs at a time and the credit.
///
/// Requests that come at a promised time go before the others, also before those of another caller, unless that one is
/// *behind*: what was promised was its caller's share already.
///
/// Requests of a caller go in the order in which they came. All operations take logarithmic time.
#[derive(Debug)]
pub(crate) struct FairQueue {
    callers: HashMap<u32, Caller, FixedState>,
    /// By the counters of callers, for each lane: those with something queued.
    turns: [BTreeSet<(i64, u32)>; LANES],
    /// Those of which nothing is queued and nothing runs, by their counters. Forgotten when all others have passed them.
    resting: BTreeSet<(i64, u32)>,
    /// The least counter of those that waited when a turn was last given.
    floor: i64,
    /// How far below that a caller may be.
    credit: i64,
    waiting: HashMap<u64, Waiting, FixedState>,
    /// How many these are, by their class.
    of_class: [usize; Class::COUNT],
    next: u64,
    backlogs: [Backlog; LANES],
}

/// Of each class those that come at a promised time, and the others.
const LANES: usize = 2 * Class::COUNT;

fn lane(class: Class, is_promised: bool) -> usize {
    class as usize * 2 + usize::from(!is_promised)
}

#[derive(Debug, Default)]
struct Caller {
    counter: i64,
    /// In the order in which they came.
    queued: [BTreeSet<u64>; LANES],
    /// The charges of these.
    backlog: [u64; LANES],
    running: u32,
}

/// A request in the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    /// What it is expected to be served.
    pub(crate) charge: u64,
    /// Whether it came at the time that was promised to it.
    pub(crate) is_promised: bool,
    /// When it is refused at the latest.
    pub(crate) until: Time,
}

impl FairQueue {
    pub(crate) fn new() -> Self {
        Self {
            callers: HashMap::default(),
            turns: [const { BTreeSet::new() }; LANES],
            resting: BTreeSet::new(),
            floor: 0,
            credit: 0,
            waiting: HashMap::default(),
            of_class: [0; Class::COUNT],
            next: 0,
            backlogs: std::array::from_fn(|_| Backlog::new()),
        }
    }

    /// Which callers have something in the queue, and how much.
    pub(crate) fn by_caller(&self) -> impl Iterator<Item = (u32, usize)> {
        let waiting = self.callers.iter();
        waiting.filter_map(|(id, caller)| {
            let queued = caller.queued.iter().map(BTreeSet::len).sum();
            (queued > 0).then_some((*id, queued))
        })
    }

    /// How much less than others that wait a caller may have got and still catch up. See [`FairQueue`].
    pub(crate) fn set_credit(&mut self, credit: u64) {
        self.credit = signed(credit);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn of_class(&self, class: Class) -> usize {
        self.of_class[class as usize]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a caller has got so much less than others that wait that it goes before what was promised.
    pub(crate) fn is_behind(&self, caller: u32) -> bool {
        self.lead(caller) < -self.credit / BEHIND
    }

    /// Whether a caller has taken less than its share for so long that it can't be chance.
    pub(crate) fn is_modest(&self, caller: u32) -> bool {
        self.lead(caller) < -self.credit / MODEST
    }

    /// By how much more a caller has got than those that wait.
    fn lead(&self, caller: u32) -> i64 {
        let known = self.callers.get(&caller);
        known.map_or(0, |known| (known.counter - self.floor).max(-self.credit))
    }

    /// What would be served before a request that this caller adds now.
    pub(crate) fn ahead(&self, caller: u32, class: Class, charge: u64, is_promised: bool) -> u64 {
        let lane = lane(class, is_promised);
        let before = self.callers.get(&caller).map_or(0, |known| known.backlog[lane]);
        // It has its turn when the others have got as much.
        let lead = self.lead(caller);
        let turn = signed(before.saturating_add(charge)).saturating_add(lead);
        let others = self.backlogs[lane].others(before, u64::try_from(turn).unwrap_or(0));
        let higher = if self.is_behind(caller) {
            class as usize * 2
        } else {
            lane
        };
        let higher: u64 = self.backlogs[..higher].iter().map(Backlog::sum).sum();
        higher.saturating_add(before).saturating_add(others)
    }

    /// Adds a request at the end of its caller's.
    pub(crate) fn push(&mut self, request: Waiting) -> u64 {
        let key = self.next;
        self.next += 1;
        let Waiting {
            request: Request { subject, class, .. },
            charge,
            is_promised,
            ..
        } = request;
        let id = subject.caller;
        self.wake(id);
        let lane = lane(class, is_promised);
        let caller = self.callers.entry(id).or_default();
        if caller.queued[lane].is_empty() {
            self.turns[lane].insert((caller.counter, id));
        }
        caller.queued[lane].insert(key);
        let before = caller.backlog[lane];
        caller.backlog[lane] += charge;
        self.backlogs[lane].change(before, caller.backlog[lane]);
        self.waiting.insert(key, request);
        self.of_class[class as usize] += 1;
        key
    }

    /// The request whose turn it is.
    pub(crate) fn next(&self) -> Option<(u64, &Waiting)> {
        let (lane, id) = (0..Class::COUNT).find_map(|class| {
            let [promised, other] = [2 * class, 2 * class + 1].map(|lane| (lane, self.turns[lane].first()));
            match (promised, other) {
                ((_, Some((counter, _))), (lane, Some((least, id))))
                    if *least < counter - self.credit / BEHIND =>
                {
                    Some((lane, *id))
                }
                ((lane, Some((_, id))), _) | ((_, None), (lane, Some((_, id)))) => Some((lane, *id)),
                ((_, None), (_, None)) => None,
            }
        })?;
        let key = *self.callers.get(&id)?.queued[lane].first()?;
        Some((key, self.waiting.get(&key)?))
    }

    /// The request whose turn it is has it: it is taken out and charged.
    pub(crate) fn pop(&mut self) -> Option<(u64, Waiting)> {
        let (key, next) = self.next()?;
        let lanes = &self.turns[2 * next.request.class as usize..][..2];
        let least = lanes.iter().filter_map(|turns| turns.first()).min()?.0;
        self.floor = self.floor.max(least);
        let request = self.take(key)?;
        self.begin(request.request.subject.caller, request.charge);
        self.forget_passed();
        Some((key, request))
    }

    /// Takes a request out that is not to be served.
    pub(crate) fn remove(&mut self, key: u64) -> Option<Waiting> {
        let request = self.take(key)?;
        self.rest(request.request.subject.caller);
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
            let credit = if caller.running > 0 {
                self.credit
            } else {
                self.credit / AWAY
            };
            caller.counter = caller.counter.max(floor - credit);
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
        self.of_class[request.request.class as usize] -= 1;
        let lane = lane(request.request.class, request.is_promised);
        let id = request.request.subject.caller;
        let caller = self.callers.get_mut(&id)?;
        caller.queued[lane].remove(&key);
        if caller.queued[lane].is_empty() {
            self.turns[lane].remove(&(caller.counter, id));
        }
        let before = caller.backlog[lane];
        caller.backlog[lane] -= request.charge;
        self.backlogs[lane].change(before, caller.backlog[lane]);
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
            && counter <= self.floor - self.credit / AWAY
        {
            self.resting.remove(&(counter, id));
            self.callers.remove(&id);
        }
    }
}

/// Who was away has so many times less credit.
const AWAY: i64 = 5;
/// By this part of the credit is behind who goes before what was promised: more than a request or two.
const BEHIND: i64 = 10;
/// By this part of it, who takes less than its share always: of equal callers chance makes it seldom.
const MODEST: i64 = 4;

/// Charges are far below the end of the range.
fn signed(charge: u64) -> i64 {
    i64::try_from(charge).unwrap_or(i64::MAX / 2)
}
