use crate::{Cost, Subject, Time};

/// A request that was admitted and has not been settled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted {
    /// Grows with each request.
    pub(crate) id: u64,
    pub(crate) subject: Subject,
    pub(crate) cost: Cost,
    pub(crate) at: Time,
    /// The groups in which its key had no row of its own, by their bits.
    pub(crate) shared: u64,
    /// The groups that only observe and would have refused it.
    pub(crate) passed: u64,
}
