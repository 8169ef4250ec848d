use std::time::Duration;

use crate::{Refusal, milliseconds_up};

/// What a client does when it is refused. None of them comes back where waiting does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It gives up.
    Never,
    /// It comes back when it is told to, up to 20 ms later.
    Told,
    /// The published example: random exponential between 1 and 60 seconds, whatever the answer says.
    Tenacity,
}

/// From the server to the client and back, at most.
const LATENCY: Duration = Duration::from_millis(20);

impl Retry {
    /// How long the client waits after so many calls; `None`: it gives up.
    pub(super) fn wait(
        self,
        refusal: &Refusal,
        calls: u32,
        attempts: u32,
        random: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let told = refusal.retry_after.filter(|_| calls < attempts)?;
        match self {
            Self::Never => None,
            Self::Told => {
                // The header `retry-after-ms` is rounded up.
                let latency = LATENCY.mul_f64(random.f64());
                Some(Duration::from_millis(milliseconds_up(told)).saturating_add(latency))
            }
            Self::Tenacity => {
                let most = f64::from(1_u32 << (calls.clamp(1, 7) - 1)).min(60.0);
                Some(Duration::from_secs_f64(1.0 + (most - 1.0) * random.f64()))
            }
        }
    }
}
