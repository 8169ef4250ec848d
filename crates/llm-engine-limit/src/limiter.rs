use crate::cost::Amounts;
use crate::policy_group::PolicyGroup;
use crate::{Cost, Level, NotNow, Policy, Refusal, Subject, Time};

/// Decides about requests under a set of policies.
///
/// The keys of its tables are ids that its owner gave out, so the hash needs no protection against chosen keys, and their
/// number is bounded by what was configured.
#[derive(Debug)]
pub struct Limiter {
    groups: Vec<PolicyGroup>,
    /// The latest time seen: a clock that goes back is not followed.
    latest: Time,
    next_id: u64,
}

/// Proof that a request was admitted, to be handed back to [`Limiter::settle`] exactly once, also if nothing came of the
/// request. While it is open its whole cost counts as used, and it runs as far as `concurrency` is concerned.
#[derive(Debug)]
#[must_use = "a reservation counts against the quotas until it is settled"]
pub struct Reservation {
    pub(crate) id: u64,
    pub(crate) subject: Subject,
    pub(crate) cost: Cost,
    pub(crate) admitted: Time,
}

impl Limiter {
    /// A limiter under these policies, with every bucket full.
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        Self {
            groups: PolicyGroup::all_of(policies),
            latest: Time::ZERO,
            next_id: 0,
        }
    }

    /// Admits the request under every policy that applies to it and reserves its cost, or changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NeverFits`] if the cost is above a burst; else [`Refusal::NotNow`] naming every quota that refused.
    // Inlined down to the buckets, as is `settle`: a reservation that is returned through memory is copied in wider pieces
    // than it was written in, and such a copy waits for every cache miss before it, so that no two requests overlap. For
    // the same reason nothing on this way takes a `Subject` by reference, and what is rare is not inlined.
    #[inline(always)]
    pub fn admit(&mut self, now: Time, subject: Subject, cost: Cost) -> Result<Reservation, Refusal> {
        let given = now;
        let now = self.advance(now);
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        // Each bucket is visited once: that most requests are admitted is worth more than that a refused one must take
        // back what it has reserved so far.
        for index in 0..self.groups.len() {
            let group = &mut self.groups[index];
            if group.applies_to(subject) && !group.reserve(now, subject, cost, id) {
                let reservation = Reservation {
                    id,
                    subject,
                    cost,
                    admitted: now,
                };
                return Err(self.refuse(given, index, reservation));
            }
        }
        Ok(Reservation {
            id,
            subject,
            cost,
            admitted: now,
        })
    }

    /// Ends a reservation: what was reserved and not used is given back as far as that mints nothing; what was used
    /// beyond the reservation is charged, into debt if need be. [`Cost::NOTHING`] releases a request on which no model
    /// has worked.
    #[inline(always)]
    pub fn settle(&mut self, now: Time, reservation: Reservation, usage: Cost) {
        let now = self.advance(now);
        for group in &mut self.groups {
            if group.applies_to(reservation.subject) {
                group.settle(now, &reservation, usage);
            }
        }
    }

    /// How every quota that applies to the subject stands.
    #[must_use]
    pub fn levels(&self, now: Time, subject: Subject) -> Vec<Level> {
        let now = self.latest.max(now);
        let mut levels = Vec::new();
        for group in self.groups.iter().filter(|group| group.applies_to(subject)) {
            group.levels(now, subject, &mut levels);
        }
        levels
    }

    /// Undoes what was reserved under the first groups, and says why the request does not fit. Waits count from `given`.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, given: Time, groups: usize, reservation: Reservation) -> Refusal {
        for group in &mut self.groups[..groups] {
            if group.applies_to(reservation.subject) {
                group.take_back(&reservation);
            }
        }
        let Reservation {
            subject,
            cost,
            admitted,
            ..
        } = reservation;
        let cost = Amounts::from(cost);
        let mut refused = Vec::new();
        for group in self.groups.iter().filter(|group| group.applies_to(subject)) {
            if let Err(never_fits) = group.check(given, admitted, subject, &cost, &mut refused) {
                return never_fits;
            }
        }
        Refusal::NotNow(NotNow::new(refused))
    }

    #[inline]
    fn advance(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        self.latest
    }
}
