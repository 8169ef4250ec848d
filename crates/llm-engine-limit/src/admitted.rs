use crate::cost::Amounts;
use crate::{Subject, Time};

/// A request that was admitted and has not been settled.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Admitted {
    /// Grows with each request.
    pub(crate) id: u64,
    pub(crate) subject: Subject,
    pub(crate) amounts: Amounts,
    pub(crate) at: Time,
    /// The groups in which its key had no row of its own, by their bits.
    pub(crate) shared: u64,
    /// The groups that only observe and would have refused it.
    pub(crate) passed: u64,
}

/// All of them, by the keys of their reservations.
///
/// What the crate `slab` is for; but that checks an entry three times and copies it once before it is written, which is much
/// of a decision.
#[derive(Debug, Default)]
pub(crate) struct AllAdmitted {
    entries: Vec<Admitted>,
    /// Keys that no reservation has.
    free: Vec<usize>,
}

impl AllAdmitted {
    #[inline(always)]
    pub(crate) fn add(&mut self, admitted: Admitted) -> (usize, &mut Admitted) {
        let key = match self.free.pop() {
            Some(key) => key,
            None => self.new_key(),
        };
        let entry = &mut self.entries[key];
        *entry = admitted;
        (key, entry)
    }

    #[cold]
    #[inline(never)]
    fn new_key(&mut self) -> usize {
        self.entries.push(Admitted::default());
        self.entries.len() - 1
    }

    #[inline]
    pub(crate) fn get(&self, key: usize) -> &Admitted {
        &self.entries[key]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: usize) -> &mut Admitted {
        &mut self.entries[key]
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: usize) {
        self.free.push(key);
    }
}
