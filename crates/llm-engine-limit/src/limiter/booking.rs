use std::time::Duration;

use super::{Limiter, Reservation};
use crate::bookings::{GRACE, HORIZON, Turn};
use crate::cost::Amounts;
use crate::policy_group::{PolicyGroup, Question, Refusing, Standing};
use crate::{Cost, Counted, Fingerprint, NotNow, Refusal, Refused, Subject, Time};

/// Times that are promised and kept. A booked time counts against others as far as bookings are kept
/// (see `schedule.rs`); the bound of every bucket holds before all promises.
impl Limiter {
    /// Gives up the latest booking that the subject has for this fingerprint: nobody will come for it.
    pub fn cancel_booking(&mut self, now: Time, subject: Subject, fingerprint: Fingerprint) {
        self.advance(now);
        if let Some(id) = self.bookings.find_last(subject, fingerprint) {
            self.end_booking(id, None);
        }
    }

    /// Ends a reservation on which no model has worked, because the request was refused after all for another reason. If it
    /// had come at a time that was kept for it, it has another, `after` from now, when it is to come again: it has not had its
    /// turn.
    pub fn give_back(
        &mut self,
        now: Time,
        reservation: Reservation,
        fingerprint: Fingerprint,
        after: Duration,
    ) {
        let admitted = self.admitted.get(reservation.key);
        let (subject, cost) = (admitted.subject, admitted.amounts.cost());
        let was_booked = reservation.was_booked;
        self.settle(now, reservation, Cost::NOTHING);
        let soonest = self.latest + after.max(Duration::from_nanos(1));
        let is_near = after <= HORIZON && soonest + HORIZON < Time::END;
        if was_booked && is_near && self.bookings.have_room(subject.caller) {
            let due = self.free_time(subject, soonest);
            self.keep_time(due, subject, cost, fingerprint);
        }
    }

    /// The decision while there are bookings, about the request with this key. Two rounds: whether it fits everywhere, then
    /// taking it.
    #[inline(never)]
    pub(super) fn decide_among_bookings(
        &mut self,
        given: Time,
        key: usize,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Reservation, Refusal> {
        let admitted = self.admitted.get(key);
        let (now, subject, cost) = (admitted.at, admitted.subject, admitted.amounts.cost());
        let standing = self.standing(now, subject, cost, fingerprint);
        let Some(standing) = self.standing_to_admit(now, subject, cost, standing) else {
            self.admitted.remove(key);
            return Err(match (standing, fingerprint) {
                (Standing::Early { .. }, Some(fingerprint)) => {
                    self.refuse_early(given, subject, cost, fingerprint)
                }
                _ => self.refuse(given, subject, cost, standing, fingerprint),
            });
        };
        let own = standing.own();
        let was_booked = own.is_some_and(|own| !self.bookings.get(own).is_claim);
        if let Some(own) = own {
            let due = self.bookings.get(own).due;
            self.end_booking(own, Some(true));
            if let Standing::InPlaceOf { other, .. } = standing {
                self.move_booking(other, due);
            }
        }
        let admitted = self.admitted.get_mut(key);
        for group in self.groups.iter_mut().filter(|group| group.applies_to(&subject)) {
            let fresh = Standing::Fresh;
            if group.observes() && !group.fits(now, subject, &admitted.amounts, fresh, &self.bookings) {
                admitted.passed |= group.bit();
            } else {
                group.force(admitted);
            }
        }
        Ok(Reservation {
            key,
            would_be_refused: admitted.passed != 0,
            was_booked,
        })
    }

    /// What the subject's booking of this fingerprint is worth to the request: a time is kept for what it was booked for,
    /// and no more. One that the request outgrew ends.
    fn standing(
        &mut self,
        now: Time,
        subject: Subject,
        cost: Cost,
        fingerprint: Option<Fingerprint>,
    ) -> Standing {
        let own = fingerprint.and_then(|fingerprint| self.bookings.find(subject, fingerprint));
        let Some(own) = own else {
            return Standing::Fresh;
        };
        if !cost.is_within(self.bookings.get(own).cost) {
            self.end_booking(own, None);
            return Standing::Fresh;
        }
        if self.bookings.get(own).is_claim {
            Standing::Waiting { own }
        } else if self.bookings.is_due(own, now) {
            Standing::Due { own }
        } else {
            Standing::Early { own }
        }
    }

    /// The standing by which the request can be admitted, if there is one.
    fn standing_to_admit(
        &self,
        now: Time,
        subject: Subject,
        cost: Cost,
        standing: Standing,
    ) -> Option<Standing> {
        let amounts = Amounts::from(cost);
        let refusing = |standing| {
            let mut groups = self.enforcing(subject);
            groups.find(|group| !group.fits(now, subject, &amounts, standing, &self.bookings))
        };
        let Some(group) = refusing(standing) else {
            return Some(standing);
        };
        let Standing::Early { own } = standing else {
            return None;
        };
        let other = group.earliest_late(subject)?;
        // It takes no more than the place that it takes.
        if !cost.is_within(self.bookings.get(other).cost) {
            return None;
        }
        let in_place = Standing::InPlaceOf { own, other };
        refusing(in_place).is_none().then_some(in_place)
    }

    /// Says why the request is refused, and books a time for it if that is possible.
    pub(super) fn refuse(
        &mut self,
        given: Time,
        subject: Subject,
        cost: Cost,
        standing: Standing,
        fingerprint: Option<Fingerprint>,
    ) -> Refusal {
        let now = self.latest;
        let amounts = Amounts::from(cost);
        let question = Question {
            given,
            now,
            subject,
            amounts: &amounts,
            standing,
        };
        let mut refusing = Refusing {
            is_bookable: true,
            ..Refusing::default()
        };
        for (index, group) in self.groups.iter().enumerate() {
            if group.refuses_some_of(&subject)
                && let Err(never) = group.check(index, question, &self.bookings, &mut refusing)
            {
                return Refusal::NeverFits(never);
            }
        }
        for index in &refusing.full {
            self.groups[*index].tell_place(subject, now);
        }
        let due = match (standing, fingerprint) {
            (Standing::Due { own }, _) => self.book_anew(own, subject, &refusing),
            (Standing::Fresh | Standing::Waiting { .. }, Some(fingerprint)) => {
                self.book(subject, cost, fingerprint, standing, &refusing)
            }
            _ => None,
        };
        let mut not_now = NotNow::new(std::mem::take(&mut refusing.refused));
        match due {
            Some(due) => {
                not_now.booked = true;
                not_now.is_next = matches!(standing, Standing::Due { .. });
                not_now.wait = not_now.wait.max(due.since(given));
            }
            // It need not be kept from coming together with others: it has a place among them.
            None if self.claim(subject, cost, fingerprint, standing, &refusing) => {
                not_now.exact &= !refusing.is_booked_up;
            }
            None if refusing.is_booked_up && refusing.is_bookable => {
                not_now.exact = false;
                if fingerprint.is_some() {
                    not_now.wait += self.spread(subject, &refusing);
                }
            }
            None => {}
        }
        Refusal::NotNow(not_now)
    }

    /// A request that has a booking, comes before its time, and finds nothing: it is told its time again. If it was told
    /// just now, this is another request that is merely equal, and gets a time of its own. If by now a budget is spent as
    /// well, there is no use in its time; if too many run, nobody knows whether there is.
    fn refuse_early(
        &mut self,
        given: Time,
        subject: Subject,
        cost: Cost,
        fingerprint: Fingerprint,
    ) -> Refusal {
        let told = self.bookings.tell(subject, fingerprint, self.latest);
        let standing = told.map_or(Standing::Fresh, |own| Standing::Early { own });
        let refusal = self.refuse(given, subject, cost, standing, Some(fingerprint));
        let is_place = |refused: &Refused| refused.counted == Counted::Concurrency;
        match (told, refusal) {
            (Some(id), Refusal::NotNow(not_now)) if not_now.refused.iter().any(Refused::is_budget) => {
                self.end_booking(id, None);
                Refusal::NotNow(not_now)
            }
            (Some(id), Refusal::NotNow(mut not_now)) if !not_now.refused.iter().any(is_place) => {
                let wait = self.bookings.get(id).due.since(given);
                for refused in &mut not_now.refused {
                    refused.wait = refused.wait.min(wait);
                }
                Refusal::NotNow(NotNow {
                    wait,
                    exact: true,
                    booked: true,
                    ..not_now
                })
            }
            (_, refusal) => refusal,
        }
    }

    /// Books the time at which all of the refusing buckets can give what is asked for, if it is near. A claim that the
    /// request had has done its work then, unless others have booked times beside it.
    fn book(
        &mut self,
        subject: Subject,
        cost: Cost,
        fingerprint: Fingerprint,
        standing: Standing,
        refusing: &Refusing,
    ) -> Option<Time> {
        let now = self.latest;
        let amounts = Amounts::from(cost);
        let claim = standing.own_claim();
        let is_bookable = refusing.due > now && self.is_bookable(refusing);
        let needs_claim = claim.is_some() && refusing.is_booked_up;
        if !is_bookable || needs_claim || !self.bookings.have_room(subject.caller) {
            return None;
        }
        let groups = self.groups.iter_mut();
        let mut groups = groups.filter(|group| group.refuses_some_of(&subject));
        if !groups.all(|group| group.can_book(now, subject, &amounts, claim.is_some())) {
            return None;
        }
        if let Some(claim) = claim {
            self.end_booking(claim, None);
        }
        let due = self.free_time(subject, refusing.due);
        self.keep_time(due, subject, cost, fingerprint);
        self.note_turns(subject, refusing, false);
        Some(due)
    }

    fn keep_time(&mut self, due: Time, subject: Subject, cost: Cost, fingerprint: Fingerprint) {
        let now = self.latest;
        let id = self.bookings.add(now, due, subject, cost, fingerprint);
        let booking = self.bookings.get(id);
        self.in_groups(subject, |group| group.book(now, id, &booking));
        self.next_turn = self.next_turn.min(due);
    }

    /// A booking that could not be kept gets the first time at which it can be, before everybody who has a later one. If the
    /// request must wait for something of which nobody knows when it comes, the booking stays as long as it would have; if it
    /// must wait for longer than times are booked, it ends.
    fn book_anew(&mut self, id: u64, subject: Subject, refusing: &Refusing) -> Option<Time> {
        if !self.is_bookable(refusing) {
            if refusing.full.is_empty() {
                self.end_booking(id, None);
            }
            return None;
        }
        let soonest = self.latest + Duration::from_nanos(1);
        let due = self.free_time(subject, refusing.due.max(soonest));
        self.move_booking(id, due);
        self.note_turns(subject, refusing, true);
        Some(due)
    }

    /// Whether all that refuses refills within the horizon; where others have booked, whether it begins to do so for the
    /// request. Measured by its end, larger requests would find no room there where smaller ones have left some.
    fn is_bookable(&self, refusing: &Refusing) -> bool {
        let is_behind_others = refusing.is_booked_up && !refusing.is_long;
        let measured = if is_behind_others {
            refusing.begin
        } else {
            refusing.due
        };
        // At the end of time there are no moments left to choose from.
        let has_moments = refusing.due + 2 * HORIZON < Time::END;
        refusing.is_bookable && measured.since(self.latest) <= HORIZON && has_moments
    }

    /// Keeps the place of arrival of a request for which alone buckets must refill for longer than times are booked, or keeps it for longer, as
    /// far as its caller can be expected to come again. Returns whether it has one.
    fn claim(
        &mut self,
        subject: Subject,
        cost: Cost,
        fingerprint: Option<Fingerprint>,
        standing: Standing,
        refusing: &Refusing,
    ) -> bool {
        let now = self.latest;
        let wait = refusing.due.since(now);
        let until = now + wait.min(LONGEST_CLAIM) + GRACE;
        if let Standing::Waiting { own } = standing {
            if refusing.is_bookable || !refusing.full.is_empty() {
                self.bookings.move_to(own, until);
                self.next_turn = self.next_turn.min(until);
                return true;
            }
            self.end_booking(own, None);
        }
        let must_wait = refusing.is_long && wait > HORIZON;
        let (Standing::Fresh, Some(fingerprint), true) = (standing, fingerprint, must_wait) else {
            return false;
        };
        let groups = self.groups.iter_mut();
        let mut groups = groups.filter(|group| group.refuses_some_of(&subject));
        let has_room = refusing.is_bookable && self.bookings.have_room(subject.caller);
        if !has_room || until >= Time::END || !groups.all(|group| group.can_claim(now, subject)) {
            return false;
        }
        let id = self.bookings.add_claim(now, until, subject, cost, fingerprint);
        let booking = self.bookings.get(id);
        self.in_groups(subject, |group| group.claim(now, id, &booking));
        self.next_turn = self.next_turn.min(until);
        true
    }

    /// The first instant from `due` on that no booking has on any of the subject's rows.
    fn free_time(&self, subject: Subject, mut due: Time) -> Time {
        while due < Time::END && self.enforcing(subject).any(|group| group.has_time(subject, due)) {
            due = due + Duration::from_nanos(1);
        }
        due
    }

    /// The buckets that determined a time: the next one comes after it.
    fn note_turns(&mut self, subject: Subject, refusing: &Refusing, is_anew: bool) {
        for (index, place, tick, time) in &refusing.turns {
            if *time == refusing.due {
                self.groups[*index].set_end(subject, *place, *tick, is_anew);
            }
        }
    }

    /// How much later than the end of all bookings a request is told to come back that could book no time, so that not all
    /// of them come at the same time.
    fn spread(&mut self, subject: Subject, refusing: &Refusing) -> Duration {
        let mut longest = Duration::ZERO;
        for (index, place, _, time) in &refusing.turns {
            if *time == refusing.due {
                longest = longest.max(self.groups[*index].spread(subject, *place));
            }
        }
        longest
    }

    fn move_booking(&mut self, id: u64, due: Time) {
        let booking = self.bookings.get(id);
        self.in_groups(booking.subject, |group| group.move_booking(id, &booking, due));
        self.bookings.move_to(id, due);
        self.next_turn = self.next_turn.min(due);
    }

    fn end_booking(&mut self, id: u64, was_kept: Option<bool>) {
        let (booking, now) = (self.bookings.get(id), self.latest);
        self.bookings.remove(id);
        self.in_groups(booking.subject, |group| {
            if booking.is_claim {
                group.end_claim(now, id, &booking);
            } else {
                group.end_booking(id, &booking, was_kept);
            }
        });
    }

    pub(super) fn turn_bookings(&mut self, now: Time) {
        while let Some((turn, booking)) = self.bookings.turn(now) {
            self.in_groups(booking.subject, |group| match turn {
                Turn::Due(id) => group.become_due(id, &booking),
                Turn::Late(id) => group.become_late(id, &booking),
                Turn::Expired(id) => group.end_booking(id, &booking, Some(false)),
                Turn::Lapsed(id) => group.end_claim(now, id, &booking),
            });
        }
    }

    fn in_groups(&mut self, subject: Subject, mut change: impl FnMut(&mut PolicyGroup)) {
        let groups = self.groups.iter_mut();
        let enforcing = groups.filter(|group| group.refuses_some_of(&subject));
        enforcing.for_each(&mut change);
    }

    fn enforcing(&self, subject: Subject) -> impl Iterator<Item = &PolicyGroup> {
        let groups = self.groups.iter();
        groups.filter(move |group| group.refuses_some_of(&subject))
    }
}

/// Who must wait for longer has to ask at least so often to keep its place of arrival.
const LONGEST_CLAIM: Duration = Duration::from_secs(600);
