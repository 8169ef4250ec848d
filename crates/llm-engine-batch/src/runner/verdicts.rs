//! What follows from what became of a row.

use tokio::time::Instant;

use super::{End, Run, RunError};
use crate::journal::Ended;
use crate::lane::{Diagnosis, Pending};
use crate::{Answer, BadRow, Consequence, Failed, Outcome, RowError, Usage, Work};

impl<W: Work> Run<'_, W> {
    pub(super) fn arrived(
        &mut self,
        mut pending: Pending,
        result: Result<Answer, Failed>,
    ) -> Result<(), RunError> {
        self.tally.in_flight -= 1;
        let sender = pending.sender;
        let lane = self.models.lane(&pending.row, sender);
        lane.in_flight -= 1;
        let failed = match result {
            Ok(answer) => {
                lane.answered();
                self.tally.outage = None;
                return match self.work.check(&answer) {
                    Ok(()) => self.row_is_answered(&pending, answer),
                    Err(what) => self.will_not_do(pending, &answer, what),
                };
            }
            Err(failed) => failed,
        };
        pending.unknown += u32::from(failed.may_be_done);
        match failed.consequence {
            Consequence::EndRow => {
                lane.answered();
                self.tally.outage = None;
                self.row_has_failed(&pending, failed.error)
            }
            Consequence::EndRun => {
                self.end = self.end.take().or(Some(End::Hopeless(failed.error)));
                self.release(&pending);
                Ok(())
            }
            Consequence::TryAgain => self.try_again(pending, failed.error),
            Consequence::ComeAgain => {
                lane.answered();
                lane.retry_at_once(pending, Instant::now());
                Ok(())
            }
            Consequence::TryAnew => {
                lane.answered();
                pending.unknown += 1;
                self.try_anew(pending, failed.error)
            }
        }
    }

    fn try_again(&mut self, mut pending: Pending, error: RowError) -> Result<(), RunError> {
        let now = Instant::now();
        let sender = pending.sender;
        self.tally.failed_attempts += 1;
        let lane = self.models.lane(&pending.row.clone(), sender);
        match lane.diagnose(&mut pending, now) {
            Diagnosis::OfRow => {
                pending.attempts += 1;
                if pending.attempts >= self.settings.max_attempts {
                    return self.row_has_failed(&pending, error);
                }
                lane.retry(pending, now);
            }
            Diagnosis::Outage(lasts) => {
                lane.retry_at_once(pending, now);
                if lasts >= self.settings.patience {
                    self.end = self.end.take().or(Some(End::Outage(error)));
                } else {
                    self.tally.outage = Some((lasts, error.message));
                }
            }
        }
        Ok(())
    }

    fn will_not_do(&mut self, mut pending: Pending, answer: &Answer, what: String) -> Result<(), RunError> {
        pending.spent.add(&answer.usage);
        pending.unknown -= pending.unknown.min(u32::from(answer.was_replayed));
        self.in_vain.add(&answer.usage);
        self.tally.usage.add(&answer.usage);
        self.try_anew(pending, RowError::new("invalid_answer", what))
    }

    /// Another answer is asked for, under another name: under the old one the same would come.
    fn try_anew(&mut self, mut pending: Pending, error: RowError) -> Result<(), RunError> {
        pending.attempts += 1;
        pending.round += 1;
        self.tally.failed_attempts += 1;
        if pending.attempts >= self.settings.max_attempts {
            return self.row_has_failed(&pending, error);
        }
        let lane = self.models.lane(&pending.row.clone(), pending.sender);
        lane.retry_at_once(pending, Instant::now());
        Ok(())
    }

    fn row_is_answered(&mut self, pending: &Pending, answer: Answer) -> Result<(), RunError> {
        // A stored answer is what came of one of those times.
        let may_be_double = pending.unknown > u32::from(answer.was_replayed);
        let usage = answer.usage;
        self.row_ends(pending, may_be_double, usage, Ok(answer))
    }

    fn row_has_failed(&mut self, pending: &Pending, error: RowError) -> Result<(), RunError> {
        self.row_ends(pending, pending.unknown > 1, Usage::default(), Err(error))
    }

    fn row_ends(
        &mut self,
        pending: &Pending,
        may_be_double: bool,
        usage: Usage,
        result: Result<Answer, RowError>,
    ) -> Result<(), RunError> {
        self.release(pending);
        let mut all = usage;
        all.add(&pending.spent);
        let ended = Ended {
            row: pending.row.number,
            is_answered: result.is_ok(),
            may_be_double,
            usage: all,
        };
        let (answer, error) = match result {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error)),
        };
        let outcome = Outcome {
            id: pending.row.id.clone(),
            answer,
            error,
            attempts: pending.sent,
        };
        self.journal.row_ends(ended, &outcome)?;
        self.tally.ends(&ended);
        self.in_vain.subtract(&pending.spent);
        self.tally.usage = self.journal.known().usage();
        self.tally.usage.add(&self.in_vain);
        Ok(())
    }

    fn release(&mut self, pending: &Pending) {
        self.reserved.subtract(&pending.reserved);
    }

    pub(super) fn bad_row_ends(&mut self, number: u64, bad: BadRow) -> Result<(), RunError> {
        let outcome = Outcome {
            error: Some(RowError::new("invalid_row", bad.to_string())),
            id: bad.id,
            answer: None,
            attempts: 0,
        };
        let ended = Ended {
            row: number,
            is_answered: false,
            may_be_double: false,
            usage: Usage::default(),
        };
        self.journal.row_ends(ended, &outcome)?;
        self.tally.ends(&ended);
        Ok(())
    }
}
