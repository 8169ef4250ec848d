use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;
use llm_engine_limit::{Booking, Bookings, Cost, Fingerprint, HORIZON, Subject, Time, Turn};

use crate::backlog::Backlog;

/// The times that were promised to refused requests, and what they mean for others.
///
/// A refused request gets the time at which everything promised before it would have been served, if all callers get the
/// same. Those who come without a promise must leave room for the near ones of their caller, but only at the rate at which
/// promises are kept: not all come back.
#[derive(Debug)]
pub(crate) struct Promises {
    bookings: Bookings,
    /// Those that are not near yet, by when they will be.
    far: BTreeSet<(Time, u64)>,
    near: HashMap<u64, Booking, FixedState>,
    /// Times that are taken.
    times: BTreeSet<Time>,
    promised: Backlog,
    callers: HashMap<u32, Promised, FixedState>,
    /// The work of the near ones of all callers.
    all_near: u64,
    kept: f64,
    /// How many have found no time.
    unbooked: u32,
}

#[derive(Debug)]
struct Promised {
    bookings: u32,
    work: u64,
    near: u64,
    kept: f64,
    ended: f64,
}

/// A promise that a request may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) id: u64,
    pub(crate) is_due: bool,
}

/// An average forgets all but about the last so many.
const MEMORY: f64 = 50.0;
/// As many of a caller's own promises count as much as all that is known of all.
const PRIOR: f64 = 20.0;
/// Callers without promises that are remembered.
const CALLERS: usize = 1_000;

impl Promises {
    pub(crate) fn new() -> Self {
        Self {
            bookings: Bookings::default(),
            far: BTreeSet::new(),
            near: HashMap::default(),
            times: BTreeSet::new(),
            promised: Backlog::new(),
            callers: HashMap::default(),
            all_near: 0,
            kept: 1.0,
            unbooked: 0,
        }
    }

    /// What time alone brings about. Promises are near that are due before `near`.
    pub(crate) fn pass_time(&mut self, now: Time, nearness: Duration) {
        while let Some((turn, booking)) = self.bookings.turn(now) {
            if let Turn::Expired(id) = turn {
                self.forget(id, booking, Some(false));
            }
        }
        while let Some((due, id)) = self.far.first().copied()
            && due <= now + nearness
        {
            self.far.remove(&(due, id));
            let booking = self.bookings.get(id);
            self.near.insert(id, booking);
            self.all_near += work(booking.cost);
            if let Some(caller) = self.callers.get_mut(&booking.subject.caller) {
                caller.near += work(booking.cost);
            }
        }
    }

    /// The earliest promise that the request has.
    pub(crate) fn find(&self, now: Time, subject: Subject, fingerprint: Fingerprint) -> Option<Claim> {
        let id = self.bookings.find(subject, fingerprint)?;
        let due = self.bookings.get(id).due;
        Some(Claim {
            id,
            is_due: due <= now,
        })
    }

    /// What the near promises come to, as far as they are kept, for a caller that has no promise.
    pub(crate) fn held_back(&self, caller: u32) -> u64 {
        let Some(known) = self.callers.get(&caller) else {
            return times(self.all_near, self.kept);
        };
        let kept = (known.kept * known.ended + self.kept * PRIOR) / (known.ended + PRIOR);
        times(known.near, kept) + times(self.all_near - known.near, self.kept)
    }

    /// What is served before a promise that this caller gets now.
    pub(crate) fn ahead(&self, caller: u32, charge: u64) -> u64 {
        let own = self.callers.get(&caller).map_or(0, |caller| caller.work);
        own.saturating_add(self.promised.others(own, own.saturating_add(charge)))
    }

    /// Promises the first free time from `due` on.
    pub(crate) fn book(
        &mut self,
        now: Time,
        due: Time,
        subject: Subject,
        cost: Cost,
        fingerprint: Fingerprint,
    ) -> Option<Time> {
        if due.since(now) > HORIZON || !self.bookings.have_room(subject.caller) {
            return None;
        }
        let due = self.free(due);
        let id = self.bookings.add(now, due, subject, cost, fingerprint);
        self.far.insert((due, id));
        self.times.insert(due);
        if self.callers.len() > CALLERS {
            self.callers.retain(|_, caller| caller.bookings > 0);
        }
        let kept = self.kept;
        let caller = self.callers.entry(subject.caller).or_insert_with(|| Promised {
            bookings: 0,
            work: 0,
            near: 0,
            kept,
            ended: 0.0,
        });
        caller.bookings += 1;
        let before = caller.work;
        caller.work += work(cost);
        self.promised.change(before, caller.work);
        Some(due)
    }

    /// Which of its promises a request is told again that came early and was refused.
    pub(crate) fn tell(&mut self, now: Time, subject: Subject, fingerprint: Fingerprint) -> Option<Time> {
        let id = self.bookings.tell(subject, fingerprint, now)?;
        Some(self.bookings.get(id).due)
    }

    /// A promise gets another time, the first free one from `due` on.
    pub(crate) fn move_to(&mut self, id: u64, due: Time) -> Time {
        let due = self.free(due);
        let before = self.bookings.get(id);
        self.bookings.move_to(id, due);
        self.times.remove(&before.due);
        self.times.insert(due);
        self.far.remove(&(before.due, id));
        self.take_near(id);
        self.far.insert((due, id));
        due
    }

    /// A promise has ended: it was kept, or (`None`) nobody waits for it any more.
    pub(crate) fn end(&mut self, id: u64, was_kept: Option<bool>) {
        let booking = self.bookings.get(id);
        self.bookings.remove(id);
        self.forget(id, booking, was_kept);
    }

    /// How much later than others somebody is told to come who got no promise, at most so much: any few of them are far apart.
    pub(crate) fn spread(&mut self, most: Duration) -> Duration {
        self.unbooked = self.unbooked.wrapping_add(1);
        // The golden ratio in 2^32nds: its multiples are the most evenly spread.
        let part = self.unbooked.wrapping_mul(0x9e37_79b9);
        most.mul_f64(f64::from(part) / 2_f64.powi(32))
    }

    fn take_near(&mut self, id: u64) {
        let Some(booking) = self.near.remove(&id) else {
            return;
        };
        self.all_near -= work(booking.cost);
        if let Some(caller) = self.callers.get_mut(&booking.subject.caller) {
            caller.near -= work(booking.cost);
        }
    }

    fn free(&self, mut due: Time) -> Time {
        while self.times.contains(&due) {
            due = due + Duration::from_nanos(1);
        }
        due
    }

    fn forget(&mut self, id: u64, booking: Booking, was_kept: Option<bool>) {
        self.times.remove(&booking.due);
        self.far.remove(&(booking.due, id));
        self.take_near(id);
        if let Some(was_kept) = was_kept {
            self.kept = averaged(self.kept, was_kept);
        }
        let Some(caller) = self.callers.get_mut(&booking.subject.caller) else {
            return;
        };
        caller.bookings -= 1;
        let before = caller.work;
        caller.work -= work(booking.cost);
        self.promised.change(before, caller.work);
        if let Some(was_kept) = was_kept {
            caller.kept = averaged(caller.kept, was_kept);
            caller.ended = (caller.ended + 1.0).min(MEMORY);
        }
    }
}

fn work(cost: Cost) -> u64 {
    crate::arrival::charge(cost.input_tokens, cost.output_tokens)
}

fn averaged(rate: f64, was_kept: bool) -> f64 {
    rate + (f64::from(u8::from(was_kept)) - rate) / MEMORY
}

fn times(work: u64, rate: f64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of it, above 0"
    )]
    let part = (work as f64 * rate) as u64;
    part
}
