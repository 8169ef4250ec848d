use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// SplitMix64: a small generator whose numbers are the same everywhere. It draws tokens; nothing secret rests on it.
#[derive(Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The same seed gives the same numbers.
    pub(super) fn seeded(seed: i64) -> Self {
        Self {
            state: u64::from_le_bytes(seed.to_le_bytes()),
        }
    }

    /// Different numbers each time.
    pub(super) fn unpredictable() -> Self {
        // The standard library seeds its hash maps from the system; an empty hash is such a seed.
        Self {
            state: RandomState::new().build_hasher().finish(),
        }
    }

    /// From 0, inclusive, to 1, exclusive.
    pub(super) fn fraction(&mut self) -> f64 {
        // 53 bits: all that the fraction has room for.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
