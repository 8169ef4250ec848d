use crate::{Per, Subject, User};

/// What tells the buckets of one subject from those of another: [`Per`] as masks, so that a key is worked out without a
/// branch. A mask is all ones where there are buckets for each id of the kind, else zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    caller: u32,
    team: u32,
    model: u32,
    route: u32,
    address: u64,
    user: u64,
    kind: KeyKind,
}

/// How much a key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// One id, of which there are as many as were configured.
    Id,
    /// 64 bits.
    Word,
    /// Everything that a subject has.
    Wide,
}

/// A key of several ids, in as many words as its partition needs.
pub(crate) type WideKey = [u64; 5];

impl Partition {
    pub(crate) fn of(per: Per) -> Self {
        let mask = |is_counted| if is_counted { u32::MAX } else { 0 };
        // A caller has one team, so the caller's id says the team as well.
        let owner = per.caller || per.team;
        let ids = [owner, per.model, per.route].map(usize::from).iter().sum();
        let kind = match (ids, per.address, per.user) {
            (0 | 1, false, false) => KeyKind::Id,
            (2, false, false) | (0, true, false) => KeyKind::Word,
            _ => KeyKind::Wide,
        };
        Self {
            caller: mask(per.caller),
            team: mask(per.team && !per.caller),
            model: mask(per.model),
            route: mask(per.route),
            address: if per.address { u64::MAX } else { 0 },
            user: if per.user { u64::MAX } else { 0 },
            kind,
        }
    }

    #[inline]
    pub(crate) fn kind(self) -> KeyKind {
        self.kind
    }

    /// Whether all of the subject's ids that a key is made of are known.
    #[inline]
    pub(crate) fn includes(self, subject: Subject) -> bool {
        self.user == 0 || subject.user != User::UNKNOWN
    }

    /// Whether each row belongs to one caller alone.
    pub(crate) fn is_per_caller(self) -> bool {
        self.caller != 0
    }

    /// The subject's key if it is no more than one id.
    #[inline]
    pub(crate) fn single_id(self, subject: Subject) -> u32 {
        self.owner(subject) | (subject.model & self.model) | (subject.route & self.route)
    }

    /// The subject's key if it is 64 bits: an address, or two ids.
    pub(crate) fn word(self, subject: Subject) -> u64 {
        let (high, low) = if self.model == 0 {
            (self.owner(subject), subject.route & self.route)
        } else {
            (
                self.owner(subject) | (subject.route & self.route),
                subject.model & self.model,
            )
        };
        (subject.address & self.address) | u64::from(high) << 32 | u64::from(low)
    }

    /// The subject's key, whatever it is made of.
    pub(crate) fn wide(self, subject: Subject) -> WideKey {
        let User(user) = subject.user;
        [
            u64::from(self.owner(subject)) << 32 | u64::from(subject.model & self.model),
            (subject.route & self.route).into(),
            subject.address & self.address,
            user[0] & self.user,
            user[1] & self.user,
        ]
    }

    /// The subject whose key this is, with zeros for what the key does not say.
    pub(crate) fn subject_of(self, row: u32, key: &[u64]) -> Subject {
        let ids = |owner: u32, model: u32, route: u32| Subject {
            caller: owner & self.caller,
            team: owner & self.team,
            model: model & self.model,
            route: route & self.route,
            ..Subject::default()
        };
        match *key {
            [word] if self.address != 0 => Subject {
                address: word,
                ..Subject::default()
            },
            [word] => {
                let (high, low) = halves(word);
                if self.model == 0 {
                    ids(high, 0, low)
                } else {
                    ids(high, low, high)
                }
            }
            [owner_and_model, route, address, user_high, user_low] => {
                let (owner, model) = halves(owner_and_model);
                Subject {
                    address,
                    user: User([user_high, user_low]),
                    ..ids(owner, model, halves(route).1)
                }
            }
            _ => ids(row, row, row),
        }
    }

    #[inline]
    fn owner(self, subject: Subject) -> u32 {
        (subject.caller & self.caller) | (subject.team & self.team)
    }
}

/// The two numbers that a word was made of.
fn halves(word: u64) -> (u32, u32) {
    let low = u32::try_from(word & u64::from(u32::MAX)).expect("it is 32 bits");
    ((word >> 32) as u32, low)
}
