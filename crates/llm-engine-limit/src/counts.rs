/// How full the limiter is, and what became of the times that it has promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows of buckets that belong to a key now.
    pub rows: u64,
    /// Tables whose rows are all needed, so that new keys share one.
    pub shared_rows: u64,
    /// Times that are promised now.
    pub open_bookings: u64,
    /// Times that were ever promised.
    pub booked: u64,
    /// Those at which their callers came and were admitted.
    pub kept: u64,
    /// Those at which nobody came.
    pub lost: u64,
}
