mod booking;

use crate::admitted::{Admitted, AllAdmitted};
use crate::bookings::Bookings;
use crate::buckets::TableSize;
use crate::cost::Amounts;
use crate::policy_group::{PolicyGroup, Question, Refusing, Standing};
use crate::saved::Saved;
use crate::{Calendar, Cost, Counts, Fingerprint, Level, Policy, Refusal, Refused, Subject, Time};

/// Decides about requests under a set of policies.
///
/// The keys of its tables are ids that its owner gave out, so the hash needs no protection against chosen keys, and their
/// number is bounded by what was configured. The exceptions are addresses and users: their tables are bounded by
/// [`LimiterOptions::most_keys`] and hashed with [`LimiterOptions::hash_seed`].
#[derive(Debug)]
pub struct Limiter {
    groups: Vec<PolicyGroup>,
    /// By the key of the reservation.
    admitted: AllAdmitted,
    bookings: Bookings,
    /// The latest time seen: a clock that goes back is not followed.
    latest: Time,
    /// When something happens without a request: a calendar window begins, a booked time comes or is over.
    next_turn: Time,
    next_id: u64,
    options: LimiterOptions,
}

/// What a [`Limiter`] is made with.
#[derive(Debug, Clone, Copy)]
pub struct LimiterOptions {
    /// The most partition keys that each policy keeps at a time, where anybody may come up with new ones. Keys that come
    /// when so many are in use share one bucket.
    pub most_keys: u32,
    /// Makes it hard to find keys that hash alike, if it is a secret.
    pub hash_seed: u64,
}

impl Default for LimiterOptions {
    fn default() -> Self {
        Self {
            most_keys: 1_000_000,
            hash_seed: 0,
        }
    }
}

/// Proof that a request was admitted, to be handed back to [`Limiter::settle`] exactly once, also if nothing came of the
/// request. While it is open its whole cost counts as used, and it runs as far as `concurrency` is concerned. Only the
/// limiter that it is from can settle it.
#[derive(Debug)]
#[must_use = "a reservation counts against the quotas until it is settled"]
pub struct Reservation {
    /// Of its entry in [`Limiter::admitted`]. The entry is large: returned from a decision it would be copied in wider pieces
    /// than it was written in, and such a copy waits for every cache miss before it, so that no two requests overlap.
    key: usize,
    would_be_refused: bool,
    /// It came at a time that was kept for it.
    was_booked: bool,
}

impl Reservation {
    /// Whether some policy that is only observed would have refused the request.
    #[must_use]
    pub fn would_be_refused(&self) -> bool {
        self.would_be_refused
    }
}

impl Limiter {
    /// The most policies that one limiter can have.
    pub const MOST_POLICIES: usize = 64;

    /// A limiter under these policies, with every bucket full.
    ///
    /// # Panics
    /// If there are more than [`Self::MOST_POLICIES`].
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        Self::with_options(policies, LimiterOptions::default())
    }

    /// The same, with other options than the default.
    ///
    /// # Panics
    /// If there are more than [`Self::MOST_POLICIES`].
    #[must_use]
    pub fn with_options(policies: Vec<Policy>, options: LimiterOptions) -> Self {
        let mut limiter = Self {
            groups: Vec::new(),
            admitted: AllAdmitted::default(),
            bookings: Bookings::default(),
            latest: Time::ZERO,
            next_turn: Time::ZERO,
            next_id: 0,
            options,
        };
        limiter.reload(Time::ZERO, &policies);
        limiter
    }

    /// Says that a request of this subject comes in a moment, which changes nothing but how long that takes: called before
    /// the clock is read for it, what the request needs comes into the cache while it is read. Most of a decision is the
    /// wait for that, and processors read their clock only when all that was waited for before is there.
    #[inline(always)]
    pub fn prepare(&self, subject: &Subject) {
        for group in &self.groups {
            group.prepare(subject);
        }
    }

    /// Admits the request under every policy that applies to it and reserves its cost, or changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NeverFits`] if the cost is above a burst; else [`Refusal::NotNow`] naming every quota that refused.
    // Inlined down to the buckets, as is `settle`, and what is rare is not inlined.
    #[inline(always)]
    pub fn admit(&mut self, now: Time, subject: Subject, cost: Cost) -> Result<Reservation, Refusal> {
        self.decide(now, subject, cost, None)
    }

    /// The same; but a request that can't be admitted now, and could be soon, gets a time that is kept for it, if there is
    /// one. Whoever comes with the same fingerprint at that time or up to 3 s later is admitted before others.
    ///
    /// # Errors
    /// As [`Self::admit`].
    #[inline]
    pub fn admit_or_book(
        &mut self,
        now: Time,
        subject: Subject,
        cost: Cost,
        fingerprint: Fingerprint,
    ) -> Result<Reservation, Refusal> {
        self.decide(now, subject, cost, Some(fingerprint))
    }

    #[inline(always)]
    fn decide(
        &mut self,
        given: Time,
        subject: Subject,
        cost: Cost,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Reservation, Refusal> {
        let at = self.advance(given);
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let (key, admitted) = self.admitted.add(Admitted {
            id,
            subject,
            amounts: Amounts::from(cost),
            at,
            shared: 0,
            passed: 0,
        });
        if !self.bookings.is_empty() {
            return self.decide_among_bookings(given, key, fingerprint);
        }
        // Each bucket is visited once: that most requests are admitted is worth more than that a refused one must take
        // back what it has reserved so far.
        for group in &mut self.groups {
            if !group.applies_to(&admitted.subject) || group.reserve(admitted) {
                continue;
            }
            if !group.observes() {
                let bit = group.bit();
                return Err(self.take_back(given, bit, key, fingerprint));
            }
            admitted.passed |= group.bit();
        }
        Ok(Reservation {
            key,
            would_be_refused: admitted.passed != 0,
            was_booked: false,
        })
    }

    /// Ends a reservation: what was reserved and not used is given back as far as that mints nothing; what was used
    /// beyond the reservation is charged, into debt if need be. [`Cost::NOTHING`] releases a request on which no model
    /// has worked.
    #[inline(always)]
    pub fn settle(&mut self, now: Time, reservation: Reservation, usage: Cost) {
        let now = self.advance(now);
        let admitted = self.admitted.get(reservation.key);
        for group in &mut self.groups {
            if group.applies_to(&admitted.subject) && admitted.passed & group.bit() == 0 {
                group.settle(now, admitted, usage);
            }
        }
        self.admitted.remove(reservation.key);
    }

    /// Lets happen what time alone brings about, so that it shows in [`Self::levels`]: booked times come and go.
    pub fn pass_time(&mut self, now: Time) {
        self.advance(now);
    }

    /// How full the tables are, and what became of bookings.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.bookings.counts();
        for group in &self.groups {
            let (rows, is_shared) = group.table_use();
            counts.rows += rows;
            counts.shared_rows += u64::from(is_shared);
        }
        counts
    }

    /// How every quota that applies to the subject stands.
    #[must_use]
    pub fn levels(&self, now: Time, subject: Subject) -> Vec<Level> {
        self.levels_but(now, subject, None)
    }

    /// The same as a request with this fingerprint finds it: the room that is kept for itself is there.
    #[must_use]
    pub fn levels_for(&self, now: Time, subject: Subject, fingerprint: Fingerprint) -> Vec<Level> {
        let own = self.bookings.find(subject, fingerprint);
        self.levels_but(now, subject, own)
    }

    fn levels_but(&self, now: Time, subject: Subject, own: Option<u64>) -> Vec<Level> {
        let now = self.latest.max(now);
        let own = own.map(|id| (id, self.bookings.get(id)));
        // Seldom more, and then it grows once.
        let mut levels = Vec::with_capacity(8);
        for group in self.groups.iter().filter(|group| group.applies_to(&subject)) {
            group.levels(now, subject, own, &mut levels);
        }
        levels
    }

    /// Every quota of policies that only observe which would have refused the request just admitted.
    #[must_use]
    pub fn observed(&self, reservation: &Reservation) -> Vec<Refused> {
        let admitted = self.admitted.get(reservation.key);
        let question = Question {
            given: admitted.at,
            now: admitted.at,
            subject: admitted.subject,
            amounts: &admitted.amounts,
            standing: Standing::Fresh,
        };
        let mut refusing = Refusing::default();
        for group in self
            .groups
            .iter()
            .filter(|group| admitted.passed & group.bit() != 0)
        {
            if let Err(never) = group.check(0, question, &self.bookings, &mut refusing) {
                refusing.refused.push(never.into());
            }
        }
        refusing.refused
    }

    /// Replaces the policies. Those that stand side by side and are counted per the same go on as they are if none of them
    /// has changed. Of one that has, or whose neighbour has, but that has its name and is counted per the same, what is
    /// missing stays missing, up to the new burst; requests that are running are counted on, but give nothing back when
    /// they are settled. Nobody can take more than the new burst at once.
    ///
    /// # Panics
    /// If there are more than [`Self::MOST_POLICIES`].
    pub fn reload(&mut self, now: Time, policies: &[Policy]) {
        assert!(policies.len() <= Self::MOST_POLICIES, "too many policies");
        let now = self.advance(now);
        let size = TableSize {
            capacity: self.options.most_keys,
            seed: self.options.hash_seed,
        };
        let mut old = std::mem::take(&mut self.groups);
        let mut kept: Vec<Option<PolicyGroup>> = Vec::new();
        for chunk in PolicyGroup::chunks(policies) {
            let same = old.iter().position(|group| group.is_of(chunk));
            kept.push(same.map(|position| old.swap_remove(position)));
        }
        let bits = new_bits(policies, &kept, &old);
        for ((chunk, kept), bit) in PolicyGroup::chunks(policies).zip(kept).zip(bits) {
            let group = kept.unwrap_or_else(|| {
                let mut group = PolicyGroup::new(chunk, bit, self.next_id, size, now);
                group.inherit(now, &old);
                group.inherit_bookings(now, &self.bookings);
                group
            });
            self.groups.push(group);
        }
        for (_, budget) in policies.iter().flat_map(|policy| &policy.budgets) {
            for group in &mut self.groups {
                group.follow(budget.calendar());
            }
        }
        self.turn(now);
    }

    /// Takes over what a newer calendar knows of the windows to come.
    pub fn follow(&mut self, now: Time, calendar: &Calendar) {
        let now = self.advance(now);
        for group in &mut self.groups {
            group.follow(calendar);
        }
        self.turn(now);
    }

    /// What has changed since the last call and must outlive a restart of the process: calendar budgets, and levels that
    /// take more than a minute to be full again.
    pub fn save(&mut self, now: Time) -> Vec<Saved> {
        self.begin_saving();
        self.save_next(now, usize::MAX).unwrap_or_default()
    }

    /// Begins what [`Self::save`] does at once, for an owner behind whose lock others wait: [`Self::save_next`] is to be
    /// called until it has nothing more. What changes in the meantime is left to the next time.
    pub fn begin_saving(&mut self) {
        for group in &mut self.groups {
            group.begin_saving();
        }
    }

    /// What must be saved of the next up to `most` partition keys that have changed. `None`: that was all.
    pub fn save_next(&mut self, now: Time, most: usize) -> Option<Vec<Saved>> {
        let now = self.advance(now);
        let (mut saved, mut looked_at) = (Vec::new(), 0);
        for group in &mut self.groups {
            looked_at += group.save_next(now, most - looked_at, &mut saved);
        }
        (looked_at > 0).then_some(saved)
    }

    /// Takes from a bucket what [`Self::save`] said `age` ago. What no policy counts any more is left out.
    pub fn restore(&mut self, now: Time, saved: &Saved, age: std::time::Duration) {
        let now = self.advance(now);
        for group in &mut self.groups {
            group.restore(now, saved, age);
        }
    }

    /// Undoes what was reserved under the groups before the one with this bit, and says why the request does not fit.
    #[cold]
    #[inline(never)]
    fn take_back(
        &mut self,
        given: Time,
        refusing: u64,
        key: usize,
        fingerprint: Option<Fingerprint>,
    ) -> Refusal {
        let admitted = *self.admitted.get(key);
        self.admitted.remove(key);
        let groups = self.groups.iter_mut();
        for group in groups.take_while(|group| group.bit() != refusing) {
            if group.applies_to(&admitted.subject) && admitted.passed & group.bit() == 0 {
                group.take_back(&admitted);
            }
        }
        let (subject, cost) = (admitted.subject, admitted.amounts.cost());
        self.refuse(given, subject, cost, Standing::Fresh, fingerprint)
    }

    #[inline]
    fn advance(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        if self.latest >= self.next_turn {
            self.turn(self.latest);
        }
        self.latest
    }

    /// Lets happen what time alone brings about.
    #[cold]
    #[inline(never)]
    fn turn(&mut self, now: Time) {
        for group in &mut self.groups {
            group.turn(now);
        }
        self.turn_bookings(now);
        let turns = self.groups.iter().map(|group| group.next_turn(now));
        self.next_turn = turns.min().unwrap_or(Time::END).min(self.bookings.next_turn());
    }
}

/// The bits of the new groups. One in which requests of an old group run on gets that one's bit, by which their reservations
/// know it. The bits of other old groups are taken last: reservations may know them by these.
fn new_bits(policies: &[Policy], kept: &[Option<PolicyGroup>], old: &[PolicyGroup]) -> Vec<u64> {
    let mut used = kept.iter().flatten().fold(0, |used, group| used | group.bit());
    let mut bits: Vec<Option<u64>> = Vec::new();
    for (chunk, kept) in PolicyGroup::chunks(policies).zip(kept) {
        let running = old
            .iter()
            .find(|group| group.runs_on_in(chunk))
            .map(PolicyGroup::bit);
        let bit = match kept {
            Some(group) => Some(group.bit()),
            None => running.filter(|bit| used & bit == 0),
        };
        used |= bit.unwrap_or(0);
        bits.push(bit);
    }
    let of_old = old.iter().fold(0, |bits, group| bits | group.bit());
    let all = (0..u64::BITS).map(|bit| 1 << bit);
    let (last, first): (Vec<u64>, Vec<u64>) = all
        .filter(|bit| used & bit == 0)
        .partition(|bit| of_old & bit != 0);
    let mut free = first.into_iter().chain(last);
    let mut next = || free.next().expect("there are as many bits as policies");
    bits.into_iter()
        .map(|bit| bit.unwrap_or_else(&mut next))
        .collect()
}
