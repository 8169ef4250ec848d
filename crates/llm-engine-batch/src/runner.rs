//! Runs what is left of a batch: rows are begun as there are places, sent again as they fail, and written down as they end.

mod verdicts;

use std::fmt;
use std::fs::File;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::input::Reader;
use crate::journal::{Begun, Journal, JournalError, Open};
use crate::lane::Pending;
use crate::models::{Models, Waiting};
use crate::{Answer, Failed, Input, Request, RowError, Settings, Tally, Usage, Work};

/// Whether a run is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// It is.
    #[default]
    GoOn,
    /// No other row is sent; those on their way may arrive.
    Finish,
    /// It ends at once, and what is on its way is cancelled.
    End,
}

/// How a run ended that could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every row that was asked for has ended.
    Complete,
    /// It was told to.
    Stopped,
    /// Its time was over.
    Deadline,
    /// The next row could have taken more than all may.
    MostReached,
    /// Nothing was answered for as long as it is patient.
    Outage(RowError),
    /// The server won't answer any row.
    Hopeless(RowError),
}

impl End {
    /// One word for it, for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::Deadline => "deadline",
            Self::MostReached => "most_reached",
            Self::Outage(_) => "outage",
            Self::Hopeless(_) => "hopeless",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("every row has ended"),
            Self::Stopped => f.write_str("it was interrupted"),
            Self::Deadline => f.write_str("its time is over"),
            Self::MostReached => f.write_str("the next row could take more than all may take together"),
            Self::Outage(error) => write!(f, "nothing was answered: {}", error.message),
            Self::Hopeless(error) => write!(f, "the server won't answer any row: {}", error.message),
        }
    }
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal can't be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The input can't be read.
    #[error("the input can't be read: {0}")]
    Input(io::Error),
}

/// How often it is told how far it has come.
const TICK: Duration = Duration::from_millis(250);
/// How many of them are between two synchronisations with the disk.
const TICKS_PER_SYNC: u32 = 4;

/// Runs the rows of the input that have not ended.
///
/// `observe` is told how far it has come, four times a second and at the end.
///
/// # Errors
/// [`RunError`], if the journal can't be written or the input can't be read. What was done until then is not lost.
pub async fn run<W: Work>(
    work: &W,
    settings: &Settings,
    input: &Input,
    journal: &mut Journal,
    wish: watch::Receiver<Wish>,
    observe: impl FnMut(&Tally),
) -> Result<End, RunError> {
    let run = Run {
        work,
        settings,
        rows: Some(input.read().map_err(RunError::Input)?),
        models: Models::new(settings.senders),
        in_flight: FuturesUnordered::new(),
        tally: Tally::of(journal, settings),
        reserved: Usage::default(),
        in_vain: Usage::default(),
        syncing: None,
        end: None,
        journal,
    };
    run.drive(wish, observe).await
}

type Sent<'a> = BoxFuture<'a, (Pending, Result<Answer, Failed>)>;

struct Run<'a, W> {
    work: &'a W,
    settings: &'a Settings,
    journal: &'a mut Journal,
    /// `None` when all have been read.
    rows: Option<Reader>,
    models: Models,
    in_flight: FuturesUnordered<Sent<'a>>,
    tally: Tally,
    /// What the rows on their way may take.
    reserved: Usage,
    /// What answers took that would not do, of rows that have not ended.
    in_vain: Usage,
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// How it will end when the rows on their way have.
    end: Option<End>,
}

impl<W: Work> Run<'_, W> {
    async fn drive(
        mut self,
        mut wish: watch::Receiver<Wish>,
        mut observe: impl FnMut(&Tally),
    ) -> Result<End, RunError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let mut is_wish_known = false;
        loop {
            if self.is_late() {
                self.end = Some(End::Deadline);
                break;
            }
            self.begin_rows()?;
            if self.in_flight.is_empty() && (self.end.is_some() || self.is_done()) {
                break;
            }
            let wakes_at = self.models.wakes_at().filter(|_| self.end.is_none());
            let far = Instant::now() + Duration::from_secs(86_400);
            let mut timer = pin!(sleep_until(wakes_at.unwrap_or(far)));
            let mut deadline = pin!(sleep_until(self.settings.deadline.unwrap_or(far)));
            tokio::select! {
                biased;
                changed = wish.changed(), if !is_wish_known => {
                    is_wish_known = changed.is_err();
                    match *wish.borrow_and_update() {
                        Wish::GoOn => {}
                        Wish::Finish => self.end = self.end.take().or(Some(End::Stopped)),
                        Wish::End => {
                            self.end = Some(End::Stopped);
                            break;
                        }
                    }
                }
                Some((pending, result)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.arrived(pending, result)?;
                }
                () = &mut deadline, if self.settings.deadline.is_some() => {}
                () = &mut timer, if wakes_at.is_some() => {}
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(TICKS_PER_SYNC) {
                        self.synchronise().await?;
                    }
                    self.models.forget_idle();
                    observe(&self.tally);
                }
            }
        }
        drop(self.in_flight);
        if let Some(syncing) = self.syncing {
            synchronised(self.journal, syncing).await?;
        }
        self.journal.synchronise()?;
        self.tally.in_flight = 0;
        observe(&self.tally);
        Ok(self.end.unwrap_or(End::Complete))
    }

    fn is_late(&self) -> bool {
        let deadline = self.settings.deadline;
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn is_done(&self) -> bool {
        self.rows.is_none() && self.models.is_empty()
    }

    /// Sends what there are places for: first what has been sent before.
    fn begin_rows(&mut self) -> Result<(), RunError> {
        if self.end.is_some() {
            return Ok(());
        }
        self.read_rows()?;
        let now = Instant::now();
        while let Some(pending) = self.models.next_again(now) {
            self.send(pending)?;
        }
        while let Some((waiting, sender)) = self.models.next_new(self.settings.concurrency) {
            let bound = self.work.bound(&waiting.row);
            let mut after = self.tally.usage;
            after.add(&self.reserved);
            after.add(&bound);
            if !self.settings.most.allows(&after) {
                // Rows on their way may take less than what is reserved for them.
                if self.in_flight.is_empty() && self.models.wakes_at().is_none() {
                    self.end = Some(End::MostReached);
                }
                self.models.put_back(waiting);
                return Ok(());
            }
            let pending = self.begin(waiting, sender, bound);
            self.send(pending)?;
            self.read_rows()?;
        }
        Ok(())
    }

    fn begin(&mut self, waiting: Waiting, sender: u32, bound: Usage) -> Pending {
        let mut pending = waiting.pending(sender);
        pending.round = self.journal.known().first_round();
        if let Some(open) = self.journal.known().open(pending.row.number) {
            pending.round = open.begun.round;
            pending.unknown = open.times;
            self.tally.resent += 1;
        }
        pending.answers_seen = self.models.lane(&pending.row, sender).answers;
        pending.reserved = bound;
        self.reserved.add(&bound);
        pending
    }

    /// Reads somewhat ahead.
    fn read_rows(&mut self) -> Result<(), RunError> {
        while self.models.wants_rows() {
            let Some(rows) = &mut self.rows else { return Ok(()) };
            let Some(number) = rows.advance().map_err(RunError::Input)? else {
                self.rows = None;
                return Ok(());
            };
            if self.journal.known().has_ended(number) || !self.tally.is_asked_for(number) {
                continue;
            }
            match rows.row() {
                Ok(row) => {
                    let open = self.journal.known().open(number);
                    let sender = open.map(|open| open.begun.sender.min(self.settings.senders - 1));
                    self.models.add(Waiting { row, sender });
                }
                Err(bad) => self.bad_row_ends(number, bad)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, mut pending: Pending) -> Result<(), RunError> {
        let Pending { sender, round, .. } = pending;
        let row = pending.row.number;
        let begun = Begun { row, round, sender };
        let times = pending.unknown.saturating_add(1);
        let is_known = |open: Open| open.begun == begun && open.times >= times;
        if !self.journal.known().open(row).is_some_and(is_known) {
            self.journal.row_begins(begun)?;
        }
        pending.sent += 1;
        let request = Request {
            row: pending.row.clone(),
            key: self.journal.key(row, round),
            sender,
        };
        self.models.lane(&pending.row, sender).in_flight += 1;
        self.tally.in_flight += 1;
        let work = self.work;
        self.in_flight.push(Box::pin(async move {
            let result = work.send(request).await;
            (pending, result)
        }));
        Ok(())
    }

    /// Has another thread write to the disk, and learns how that ended the last time.
    async fn synchronise(&mut self) -> Result<(), RunError> {
        if let Some(syncing) = self.syncing.take_if(|syncing| syncing.is_finished()) {
            synchronised(self.journal, syncing).await?;
        }
        if self.syncing.is_some() {
            return Ok(());
        }
        if let Some(file) = self.journal.unsynchronised() {
            let file = file.map_err(|error| self.journal.wrong("writing it to the disk", error))?;
            self.syncing = Some(tokio::task::spawn_blocking(move || File::sync_data(&file)));
        }
        Ok(())
    }
}

async fn synchronised(journal: &Journal, syncing: JoinHandle<io::Result<()>>) -> Result<(), JournalError> {
    let ended = syncing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    ended.map_err(|error| journal.wrong("writing it to the disk", error))
}
