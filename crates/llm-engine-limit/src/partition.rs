use std::array;

use crate::{Per, Subject, User};

/// What tells the buckets of one subject from those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    // For each kind of id a mask, so that a key of one id is worked out without a branch: all ones where there are buckets for
    // each id of the kind, else zero.
    caller: u32,
    team: u32,
    model: u32,
    route: u32,
    address: bool,
    user: bool,
    kind: KeyKind,
}

/// How much a key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// One id, of which there are as many as were configured.
    Id,
    /// More than that.
    Words,
}

/// A key of as many words as its partition needs.
#[derive(Debug, Default)]
pub(crate) struct Key {
    words: [u32; MOST_WORDS],
    len: usize,
}

/// An owner, a model and a route, an address, and a user.
const MOST_WORDS: usize = 3 + 2 + 3;

impl Key {
    fn push(&mut self, word: u32) {
        self.words[self.len] = word;
        self.len += 1;
    }

    fn extend<const N: usize>(&mut self, words: [u32; N]) {
        for word in words {
            self.push(word);
        }
    }

    pub(crate) fn words(&self) -> &[u32] {
        &self.words[..self.len]
    }
}

impl Partition {
    pub(crate) fn of(per: Per) -> Self {
        let mask = |is_counted| if is_counted { u32::MAX } else { 0 };
        // A caller has one team, so the caller's id says the team as well.
        let owner = per.caller || per.team;
        let ids: usize = [owner, per.model, per.route].map(usize::from).iter().sum();
        let is_id = ids <= 1 && !per.address && !per.user;
        Self {
            caller: mask(per.caller),
            team: mask(per.team && !per.caller),
            model: mask(per.model),
            route: mask(per.route),
            address: per.address,
            user: per.user,
            kind: if is_id { KeyKind::Id } else { KeyKind::Words },
        }
    }

    #[inline]
    pub(crate) fn kind(self) -> KeyKind {
        self.kind
    }

    /// Whether all of the subject's ids that a key is made of are known.
    #[inline]
    pub(crate) fn includes(self, subject: &Subject) -> bool {
        !self.user || subject.user != User::UNKNOWN
    }

    /// Whether each row belongs to one caller alone.
    pub(crate) fn is_per_caller(self) -> bool {
        self.caller != 0
    }

    /// The subject's key if it is no more than one id.
    #[inline]
    pub(crate) fn single_id(self, subject: &Subject) -> u32 {
        self.owner(subject) | (subject.model & self.model) | (subject.route & self.route)
    }

    /// How many words its keys have.
    pub(crate) fn words(self) -> usize {
        self.key(&Subject::default()).len
    }

    /// The subject's key, whatever it is made of.
    pub(crate) fn key(self, subject: &Subject) -> Key {
        let mut key = Key::default();
        if self.caller | self.team != 0 {
            key.push(self.owner(subject));
        }
        if self.model != 0 {
            key.push(subject.model);
        }
        if self.route != 0 {
            key.push(subject.route);
        }
        if self.address {
            key.extend(halves(subject.address));
        }
        if self.user {
            let User(words) = subject.user;
            key.extend(words);
        }
        key
    }

    /// The subject whose key this is, with zeros for what the key does not say. A key of one id is the row's number.
    pub(crate) fn subject_of(self, row: u32, key: &[u32]) -> Subject {
        let mut words = key.iter().copied();
        let mut next = |is_counted| {
            if is_counted {
                words.next().unwrap_or(row)
            } else {
                0
            }
        };
        let owner = next(self.caller | self.team != 0);
        let (model, route) = (next(self.model != 0), next(self.route != 0));
        let [high, low] = array::from_fn(|_| next(self.address));
        Subject {
            caller: owner & self.caller,
            team: owner & self.team,
            model,
            route,
            address: u64::from(high) << 32 | u64::from(low),
            user: User(array::from_fn(|_| next(self.user))),
        }
    }

    #[inline]
    fn owner(self, subject: &Subject) -> u32 {
        (subject.caller & self.caller) | (subject.team & self.team)
    }
}

/// The two words of an address.
fn halves(address: u64) -> [u32; 2] {
    let low = u32::try_from(address & u64::from(u32::MAX)).expect("it is 32 bits");
    [(address >> 32) as u32, low]
}
