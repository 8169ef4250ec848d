use std::time::Duration;

use llm_engine_limit::Time;

/// What happened when: a bounded number of moments of equal width, which doubles when there would be too many.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    width: Duration,
    moments: Vec<Moment>,
    quotas: usize,
}

/// What happened in one stretch of time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moment {
    /// Requests admitted.
    pub admitted: u64,
    /// Calls refused.
    pub refused: u64,
    /// Requests that began to be held.
    pub held: u64,
    /// Of each quota, in the order of the policies, the highest share that was taken or booked of the bucket of any key.
    pub used: Vec<f64>,
}

const MOST_MOMENTS: usize = 240;

impl Timeline {
    pub(super) fn new(quotas: usize) -> Self {
        Self {
            width: Duration::from_secs(1),
            moments: Vec::new(),
            quotas,
        }
    }

    /// How long each moment is.
    #[must_use]
    pub fn width(&self) -> Duration {
        self.width
    }

    /// The moments, from the start on.
    #[must_use]
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// When the latest moment is over.
    pub(super) fn end(&self) -> Time {
        let count = u32::try_from(self.moments.len()).unwrap_or(u32::MAX);
        Time::ZERO + self.width.saturating_mul(count)
    }

    /// Begins the next moment, and says when that is.
    pub(super) fn begin_next(&mut self) -> Time {
        if self.moments.len() == MOST_MOMENTS {
            self.width *= 2;
            let pairs = self.moments.chunks(2).map(Moment::of_all);
            self.moments = pairs.collect();
        }
        let begin = self.end();
        self.moments.push(Moment {
            used: vec![0.0; self.quotas],
            ..Moment::default()
        });
        begin
    }

    /// The latest moment, of which there is always one once the clock has been set.
    pub(super) fn now(&mut self) -> &mut Moment {
        if self.moments.is_empty() {
            self.begin_next();
        }
        let last = self.moments.len() - 1;
        &mut self.moments[last]
    }

    pub(super) fn note_use(&mut self, quota: usize, used: f64) {
        let highest = &mut self.now().used[quota];
        *highest = highest.max(used);
    }
}

impl Moment {
    fn of_all(parts: &[Self]) -> Self {
        let mut all = Self::default();
        for Self {
            admitted,
            refused,
            held,
            used,
        } in parts
        {
            all.admitted += admitted;
            all.refused += refused;
            all.held += held;
            all.used.resize(used.len(), 0.0);
            for (highest, used) in all.used.iter_mut().zip(used) {
                *highest = highest.max(*used);
            }
        }
        all
    }
}
