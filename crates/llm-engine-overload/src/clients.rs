use std::time::Duration;

use fastrand::Rng;

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    /// How often they come again after the first call.
    pub retries: u32,
    /// How long they wait before that, unless they follow what they are told.
    pub backoff: Backoff,
    /// The share of them that come again when they are told to.
    pub obedient: f64,
    /// Seconds without a first token after which they give up, beyond the engine's base.
    pub patience: f64,
    /// An answer is good whose first token comes within so many seconds beyond the engine's base, ...
    pub good_first_token: f64,
    /// ... and each further one within so many.
    pub good_pace: f64,
}

/// How long clients wait before they come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// A second, more or less a tenth.
    Constant,
    /// 1, 2, 4 s and so on, more or less a half.
    Exponential,
}

/// When a client comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// After how long.
    pub wait: Duration,
    /// Whether that is what it was told.
    pub as_told: bool,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            retries: 0,
            backoff: Backoff::Constant,
            obedient: 0.0,
            patience: 10.0,
            good_first_token: 5.0,
            good_pace: 0.1,
        }
    }
}

impl Clients {
    /// When a client comes again whose call came to nothing, after so many retries; `told` is what it was told to wait. `None`: it gives up.
    pub fn again(&self, random: &mut Rng, retries: u32, told: Option<Duration>) -> Option<Again> {
        if retries >= self.retries {
            return None;
        }
        let told = told.filter(|_| random.f64() < self.obedient);
        let wait = match told {
            Some(told) => told + seconds(0.2 * random.f64()),
            None => seconds(match self.backoff {
                Backoff::Constant => 0.9 + 0.2 * random.f64(),
                Backoff::Exponential => f64::from(1_u32 << retries.min(20)) * (0.5 + random.f64()),
            }),
        };
        Some(Again {
            wait,
            as_told: told.is_some(),
        })
    }

    /// How long a client waits for a first token, where the engine's base is so many seconds.
    #[must_use]
    pub fn patience(&self, base: f64) -> Duration {
        seconds(self.patience + base)
    }

    /// Whether an answer of so many tokens is good whose first one took so long, and the others so long after it.
    #[must_use]
    pub fn is_good(&self, base: f64, first: Duration, others: Duration, tokens: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let pace = others.as_secs_f64() / tokens as f64;
        first.as_secs_f64() <= self.good_first_token + base && pace <= self.good_pace
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}
