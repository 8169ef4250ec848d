use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::{Cost, Counts, Subject, Time};

/// How far ahead times are booked. Clients don't follow longer waits anyway.
pub const HORIZON: Duration = Duration::from_secs(60);
/// How long after its time a booking is kept.
pub const GRACE: Duration = Duration::from_secs(3);
/// Who comes at its time comes within this, whatever the network does.
pub(crate) const PUNCTUAL: Duration = Duration::from_millis(300);
/// Bookings of one caller, and of all.
const MOST_OF_ONE: usize = 10_000;
const MOST: usize = 100_000;
/// Who comes again this soon after a time was told was not told it: nobody retries as fast.
const TOLD_ANEW: Duration = Duration::from_millis(300);

/// By what a request is recognised when it comes again.
///
/// Fingerprints are compared among those of one subject only: who makes two of its requests look alike mixes up its own
/// times and nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// A digest of the caller's idempotency key, or of the request.
    pub digest: u64,
    /// Whether it is of an idempotency key, so that no other request has it. Requests that are merely equal may be many,
    /// each with a time of its own.
    pub is_unique: bool,
}

/// A time that was promised to a request; or its claim (see `claims.rs`), if it must wait for longer than times are booked.
#[derive(Debug, Clone, Copy)]
pub struct Booking {
    /// When its time comes; or until when the claim is kept.
    pub due: Time,
    pub(crate) is_claim: bool,
    /// When the caller was told of it, the last time.
    told: Time,
    pub subject: Subject,
    pub cost: Cost,
    digest: u64,
}

/// All bookings, by whom they are for and by their time. What they mean for a bucket is in its
/// `Schedule`.
#[derive(Debug, Default)]
pub struct Bookings {
    by_id: HashMap<u64, Booking, FixedState>,
    next_id: u64,
    /// How many times were ever promised; claims are not.
    booked: u64,
    /// How many have ended by their callers coming.
    kept: u64,
    /// How many have ended by nobody coming.
    lost: u64,
    /// By whom they are for and digest.
    by_fingerprint: HashMap<(Subject, u64), Equal, FixedState>,
    by_caller: HashMap<u32, usize, FixedState>,
    upcoming: BTreeSet<(Time, u64)>,
    claims: BTreeSet<(Time, u64)>,
    /// Those whose time has come just now.
    due: BTreeSet<(Time, u64)>,
    /// Those whose callers are late.
    late: BTreeSet<(Time, u64)>,
}

/// The bookings of equal requests.
#[derive(Debug, Default)]
struct Equal {
    by_due: BTreeSet<(Time, u64)>,
    by_told: BTreeSet<(Time, u64)>,
}

/// Something that happens to a booking because time has passed.
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    /// Its time has come.
    Due(u64),
    /// Its caller has not come although it could have.
    Late(u64),
    /// Nobody has come.
    Expired(u64),
    /// Nobody has come again who had a claim.
    Lapsed(u64),
}

impl Bookings {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn get(&self, id: u64) -> Booking {
        self.by_id[&id]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, Booking)> {
        self.by_id.iter().map(|(id, booking)| (*id, *booking))
    }

    /// The subject's earliest booking of this fingerprint.
    pub fn find(&self, subject: Subject, fingerprint: Fingerprint) -> Option<u64> {
        let same = self.by_fingerprint.get(&(subject, fingerprint.digest))?;
        same.by_due.first().map(|(_, id)| *id)
    }

    /// The subject's latest booking of this fingerprint.
    pub fn find_last(&self, subject: Subject, fingerprint: Fingerprint) -> Option<u64> {
        let same = self.by_fingerprint.get(&(subject, fingerprint.digest))?;
        same.by_due.last().map(|(_, id)| *id)
    }

    /// Which of its bookings a request that is refused, and was early, is told of: one that it may have been told of
    /// before. `None` if it must be another request that is merely equal.
    pub fn tell(&mut self, subject: Subject, fingerprint: Fingerprint, now: Time) -> Option<u64> {
        let same = self.by_fingerprint.get_mut(&(subject, fingerprint.digest))?;
        let (told, id) = *same.by_told.first()?;
        if !fingerprint.is_unique && now.since(told) < TOLD_ANEW {
            return None;
        }
        same.by_told.remove(&(told, id));
        same.by_told.insert((now, id));
        self.by_id.get_mut(&id)?.told = now;
        Some(id)
    }

    /// Whether there is room for another one of the caller.
    pub fn have_room(&self, caller: u32) -> bool {
        let of_caller = self.by_caller.get(&caller).copied().unwrap_or(0);
        self.by_id.len() < MOST && of_caller < MOST_OF_ONE
    }

    /// Keeps a time, which is after `now`.
    pub fn add(
        &mut self,
        now: Time,
        due: Time,
        subject: Subject,
        cost: Cost,
        fingerprint: Fingerprint,
    ) -> u64 {
        self.insert(Booking {
            due,
            is_claim: false,
            told: now,
            subject,
            cost,
            digest: fingerprint.digest,
        })
    }

    /// Keeps a place of arrival until then.
    pub(crate) fn add_claim(
        &mut self,
        now: Time,
        until: Time,
        subject: Subject,
        cost: Cost,
        fingerprint: Fingerprint,
    ) -> u64 {
        self.insert(Booking {
            due: until,
            is_claim: true,
            told: now,
            subject,
            cost,
            digest: fingerprint.digest,
        })
    }

    fn insert(&mut self, booking: Booking) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let Booking {
            due,
            is_claim,
            told: now,
            subject,
            digest,
            ..
        } = booking;
        self.booked += u64::from(!is_claim);
        self.by_id.insert(id, booking);
        let same = self.by_fingerprint.entry((subject, digest)).or_default();
        same.by_due.insert((due, id));
        same.by_told.insert((now, id));
        *self.by_caller.entry(subject.caller).or_default() += 1;
        self.still_to_come(is_claim).insert((due, id));
        id
    }

    pub fn remove(&mut self, id: u64) {
        let Some(booking) = self.by_id.remove(&id) else {
            return;
        };
        let Booking {
            due,
            told,
            subject,
            digest,
            ..
        } = booking;
        self.take_out(due, id);
        let key = (subject, digest);
        if let Some(same) = self.by_fingerprint.get_mut(&key) {
            same.by_due.remove(&(due, id));
            same.by_told.remove(&(told, id));
            if same.by_due.is_empty() {
                self.by_fingerprint.remove(&key);
            }
        }
        if let Some(count) = self.by_caller.get_mut(&subject.caller) {
            *count -= 1;
            if *count == 0 {
                self.by_caller.remove(&subject.caller);
            }
        }
    }

    /// Its caller has come and was admitted.
    pub(crate) fn count_kept(&mut self) {
        self.kept += 1;
    }

    /// Those of bookings.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            open_bookings: self.by_id.values().filter(|booking| !booking.is_claim).count() as u64,
            booked: self.booked,
            kept: self.kept,
            lost: self.lost,
            ..Counts::default()
        }
    }

    fn still_to_come(&mut self, is_claim: bool) -> &mut BTreeSet<(Time, u64)> {
        if is_claim {
            &mut self.claims
        } else {
            &mut self.upcoming
        }
    }

    /// Gives a booking another time, which is after now; or keeps a claim for longer.
    pub fn move_to(&mut self, id: u64, due: Time) {
        let Some(booking) = self.by_id.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut booking.due, due);
        self.take_out(before, id);
        let Some(booking) = self.by_id.get(&id) else {
            return;
        };
        let (key, is_claim) = ((booking.subject, booking.digest), booking.is_claim);
        self.still_to_come(is_claim).insert((due, id));
        if let Some(same) = self.by_fingerprint.get_mut(&key) {
            same.by_due.remove(&(before, id));
            same.by_due.insert((due, id));
        }
    }

    /// Whether its time has come.
    pub(crate) fn is_due(&self, id: u64, now: Time) -> bool {
        self.by_id[&id].due <= now
    }

    /// When [`Self::turn`] has something to say.
    pub(crate) fn next_turn(&self) -> Time {
        let first = |bookings: &BTreeSet<(Time, u64)>, after: Duration| {
            bookings.first().map_or(Time::END, |(due, _)| *due + after)
        };
        let due = first(&self.upcoming, Duration::ZERO).min(first(&self.claims, PAST));
        due.min(first(&self.due, PUNCTUAL)).min(first(&self.late, KEPT))
    }

    /// What has come about by now, one thing at a time. Of what has expired nothing is left.
    pub fn turn(&mut self, now: Time) -> Option<(Turn, Booking)> {
        let passed = |bookings: &BTreeSet<(Time, u64)>, after: Duration| {
            let first = bookings.first().copied();
            first.filter(|(due, _)| *due + after <= now)
        };
        if let Some((due, id)) = passed(&self.upcoming, Duration::ZERO) {
            self.upcoming.remove(&(due, id));
            self.due.insert((due, id));
            return Some((Turn::Due(id), self.by_id[&id]));
        }
        if let Some((due, id)) = passed(&self.due, PUNCTUAL) {
            self.due.remove(&(due, id));
            self.late.insert((due, id));
            return Some((Turn::Late(id), self.by_id[&id]));
        }
        let lapsed = passed(&self.claims, PAST);
        let (turn, id) = match passed(&self.late, KEPT) {
            Some((_, id)) => (Turn::Expired(id), id),
            None => lapsed.map(|(_, id)| (Turn::Lapsed(id), id))?,
        };
        let booking = self.by_id[&id];
        self.remove(id);
        self.lost += u64::from(matches!(turn, Turn::Expired(_)));
        Some((turn, booking))
    }

    fn take_out(&mut self, due: Time, id: u64) {
        let mut sets = [
            &mut self.upcoming,
            &mut self.claims,
            &mut self.due,
            &mut self.late,
        ];
        let _ = sets.iter_mut().any(|set| set.remove(&(due, id)));
    }
}

/// At [`GRACE`] after its time, to the nanosecond, a booking is still kept.
const KEPT: Duration = GRACE.saturating_add(PAST);
/// So much later a time is over.
const PAST: Duration = Duration::from_nanos(1);
