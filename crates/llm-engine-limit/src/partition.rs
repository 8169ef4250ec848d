use crate::{Per, Subject};

/// What tells the buckets of one subject from those of another: [`Per`] as masks, so that a key is worked out without a
/// branch. A mask is all ones where there are buckets for each id of the kind, else zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    caller: u32,
    team: u32,
    model: u32,
    /// Keys are two ids.
    is_pair: bool,
}

impl Partition {
    pub(crate) fn of(per: Per) -> Self {
        let mask = |is_counted| if is_counted { u32::MAX } else { 0 };
        Self {
            caller: mask(per.caller),
            // A caller has one team, so the caller's id says the team as well.
            team: mask(per.team && !per.caller),
            model: mask(per.model),
            is_pair: (per.caller || per.team) && per.model,
        }
    }

    /// The subject's key if it is no more than one id.
    #[inline]
    pub(crate) fn single_id(self, subject: Subject) -> Option<u32> {
        let id = self.owner(subject) | (subject.model & self.model);
        (!self.is_pair).then_some(id)
    }

    /// The subject's key.
    #[inline]
    pub(crate) fn key(self, subject: Subject) -> u64 {
        u64::from(self.owner(subject)) << 32 | u64::from(subject.model & self.model)
    }

    #[inline]
    fn owner(self, subject: Subject) -> u32 {
        (subject.caller & self.caller) | (subject.team & self.team)
    }
}
