use std::collections::HashMap;
use std::fmt;

use foldhash::quality::RandomState;
use llm_engine_limit::Name;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::CallerSetup;
use crate::names::{Names, team_name};

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The configured name.
    pub name: Name,
    /// The number by which policies know the caller.
    pub(crate) id: u32,
    pub(crate) team: u32,
    pub(crate) names_users: bool,
    /// Whether it may see what concerns other callers.
    pub is_operator: bool,
}

/// No caller has this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API key is not known")]
pub struct Unauthenticated;

/// The SHA-256 digest of an API key: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKeyDigest([u8; 32]);

impl ApiKeyDigest {
    /// Of this key.
    #[must_use]
    pub fn of(api_key: &str) -> Self {
        Self(Sha256::digest(api_key.as_bytes()).into())
    }

    /// From its 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 32];
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(…)")
    }
}

/// The callers by the digests of their keys.
pub(crate) struct Callers(HashMap<[u8; 32], Caller, RandomState>);

impl fmt::Debug for Callers {
    /// Without the digests: of a weak key it can be tried out whether it has one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.values()).finish()
    }
}

impl Callers {
    /// Every caller and its team has a number already.
    pub(crate) fn new(callers: Vec<CallerSetup>, names: &Names) -> Self {
        let number = |number: Option<u32>| number.expect("all callers and teams have numbers");
        let caller = |setup: CallerSetup| {
            let team = team_name(&setup.name, setup.team.as_deref());
            let caller = Caller {
                id: number(names.callers.find(&setup.name)),
                team: number(names.teams.find(&team)),
                name: setup.name.into(),
                names_users: setup.names_users,
                is_operator: setup.is_operator,
            };
            (setup.api_key.0, caller)
        };
        Self(callers.into_iter().map(caller).collect())
    }

    pub(crate) fn authenticate(&self, api_key: &str) -> Result<Caller, Unauthenticated> {
        let digest = ApiKeyDigest::of(api_key).0;
        let (known, caller) = self.0.get_key_value(&digest).ok_or(Unauthenticated)?;
        // The look-up tells at most how much of a digest is shared with a known one, which says nothing about the key;
        // the decision itself takes the same time for every key.
        if bool::from(known.ct_eq(&digest)) {
            Ok(*caller)
        } else {
            Err(Unauthenticated)
        }
    }

    /// What the caller with this number is called.
    pub(crate) fn name(&self, id: u32) -> Option<Name> {
        let caller = self.0.values().find(|caller| caller.id == id)?;
        Some(caller.name)
    }

    pub(crate) fn named(&self, name: &str) -> Option<Caller> {
        self.0.values().find(|caller| &*caller.name == name).copied()
    }
}
