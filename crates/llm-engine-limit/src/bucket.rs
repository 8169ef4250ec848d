/// The live state of one quota for one partition key, in 64 bits.
///
/// The whole level is one number, GCRA's theoretical arrival time: the tick at which the bucket will be full again. A
/// bucket that was never touched, and one that is full again, behave alike, so a missing bucket is `tat = 0`. It is in the
/// upper 63 bits; the lowest one says that reservations are open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket(u64);

const OPEN: u64 = 1;
const LAST_TAT: u64 = u64::MAX >> 1;

impl Bucket {
    pub(crate) const FULL: Self = Self(0);

    /// A bucket that is full again at this tick, with no reservation open.
    pub(crate) fn full_at(tat: u64) -> Self {
        Self(tat << 1)
    }

    pub(crate) fn tat(self) -> u64 {
        self.0 >> 1
    }

    /// Whether any reservation is open.
    pub(crate) fn is_open(self) -> bool {
        self.0 & OPEN != 0
    }

    /// Ticks until the bucket is full: what has been taken and has not yet refilled.
    pub(crate) fn level(self, now: u64) -> u64 {
        self.tat().saturating_sub(now)
    }

    /// Takes `cost` ticks, whether or not they are there: past the burst the bucket is in debt.
    pub(crate) fn charge(&mut self, now: u64, cost: u64) {
        // A debt of 2^62 ticks is decades: more can't be told apart from never.
        let tat = (self.tat().max(now) + cost).min(LAST_TAT);
        self.0 = tat << 1 | (self.0 & OPEN);
    }

    /// Gives back ticks that were taken and not used. `refund` is at most what every level since then allows.
    pub(crate) fn refund(&mut self, refund: u64) {
        self.0 -= refund << 1;
    }

    /// A reservation was made: the bucket will be full again at `tat`.
    pub(crate) fn open(&mut self, tat: u64) {
        self.0 = tat << 1 | OPEN;
    }

    /// The last reservation has ended.
    pub(crate) fn close(&mut self) {
        // Not without asking: the compiler would then close several buckets of a row at a time, and a load that spans what
        // `open` has just written one by one waits for every cache miss before it.
        if self.is_open() {
            self.0 -= OPEN;
        }
    }
}
