use std::time::Duration;

use crate::average::Average;

/// How long a deployment takes to the first token of an answer when it is not full, by the length of the prompt, and from
/// when on a first token is late.
///
/// What is usual is a low quantile of what has been seen, which forgets slowly: also of a deployment that is always full
/// some answers are seen that had not to wait. A provider whose times vary by themselves would look full by that. But who waits
/// in one queue waits about as long as who came just before, while times that vary by themselves differ from one request to
/// the next; so by this difference, the *jitter*, more is nothing unusual.
#[derive(Debug)]
pub(crate) struct Unloaded {
    /// By the binary logarithm of the prompt's length, in seconds.
    by_length: [Option<f64>; LENGTHS],
    /// Seconds by which two first tokens in a row differ, beyond what their lengths make.
    jitter: Average,
    /// By how much more than usual the last one took.
    last: Option<f64>,
}

/// From when on a first token is late.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) after: Duration,
    /// Seconds of it that the prompt's length makes.
    pub(crate) reading: f64,
}

/// Prompts of 2^20 tokens and more are alike.
const LENGTHS: usize = 21;
/// What is usual is above this part of what is seen: the less, the less does a full deployment pass for a slow one.
const USUAL: f64 = 0.03;
/// By what part of itself it moves with each time seen.
const STEP: f64 = 0.05;
/// The same in quiet moments: what is seen then is what is usual.
const QUIET_STEP: f64 = 1.0;
/// Of each new difference: some dozens are enough.
const JITTER_STEP: f64 = 0.02;
/// So many times the jitter is nothing unusual.
const UNUSUAL: f64 = 2.5;
/// A first token that takes so many times as long as usual, and the usual time on top, is late however times vary.
const MOST_SLACK: f64 = 2.0;
/// Nobody minds waiting for so long.
const LEAST_SLACK: f64 = 0.7;
/// Before anything is seen.
const UNKNOWN: Duration = Duration::from_secs(10);

impl Default for Unloaded {
    fn default() -> Self {
        Self {
            by_length: [None; LENGTHS],
            jitter: Average::starting(0.0, JITTER_STEP),
            last: None,
        }
    }
}

impl Unloaded {
    /// An answer's first token came after so long. Quiet moments are those in which a deployment is not full, whatever it
    /// looks like.
    pub(crate) fn learn(&mut self, input_tokens: u64, took: Duration, is_quiet: bool) {
        let took = took.as_secs_f64().max(0.001);
        let place = place(input_tokens);
        let Some(before) = self.by_length[place] else {
            self.by_length[place] = Some(took);
            return;
        };
        let step = if is_quiet { QUIET_STEP } else { STEP };
        // So many are below it when as much is gained as lost.
        let usual = if took < before {
            (before * (1.0 - step * (1.0 - USUAL))).max(took)
        } else {
            (before * (1.0 + step * USUAL)).min(took)
        };
        self.by_length[place] = Some(usual);
        let rise = usual - before;
        if is_quiet && rise > 0.0 {
            for (other, known) in self.by_length.iter_mut().enumerate() {
                if let Some(known) = known.as_mut().filter(|_| other != place) {
                    *known += rise;
                }
            }
        }
        let more = took - before;
        if let Some(last) = self.last.replace(more) {
            self.jitter.add((more - last).abs().min(before));
        }
    }

    /// From when on the first token of an answer to a prompt of this length is late.
    pub(crate) fn due(&self, input_tokens: u64) -> Due {
        let Some(usual) = self.usual(input_tokens) else {
            return Due {
                after: UNKNOWN,
                reading: 0.0,
            };
        };
        let slack = (self.jitter.value() * UNUSUAL)
            .min(MOST_SLACK * usual)
            .max(LEAST_SLACK);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let reading = self.seconds_per_token() * input_tokens as f64;
        Due {
            after: Duration::from_secs_f64((usual + slack).min(LONGEST)),
            reading: reading.min(usual),
        }
    }

    /// By how much longer long prompts take than the shortest: of what has been seen of each length, the least, since all that
    /// disturbs makes times longer.
    fn seconds_per_token(&self) -> f64 {
        let known = (0..).zip(self.by_length.iter());
        let known = known.filter_map(|(octave, usual)| Some((octave, (*usual)?)));
        let shortest = known
            .clone()
            .map(|(_, usual)| usual)
            .fold(f64::INFINITY, f64::min);
        let long = known.filter(|(octave, _)| *octave >= LONG);
        // In the middle of its octave.
        let slopes = long.map(|(octave, usual)| (usual - shortest) / (1.5 * 2_f64.powi(octave)));
        let slope = slopes.fold(f64::INFINITY, f64::min);
        if slope.is_finite() { slope } else { 0.0 }
    }

    /// Seconds. Where nothing was seen of this length: as for a longer prompt, or in proportion to a shorter one.
    fn usual(&self, input_tokens: u64) -> Option<f64> {
        let place = place(input_tokens);
        let (shorter, longer) = self.by_length.split_at(place);
        longer.iter().flatten().next().copied().or_else(|| {
            let mut octaves = (1..).zip(shorter.iter().rev());
            octaves.find_map(|(octaves, usual)| Some((*usual)? * 2_f64.powi(octaves)))
        })
    }
}

/// The binary logarithm of lengths from which on reading takes most of the time.
const LONG: i32 = 10;
/// Seconds; nothing is known of times beyond.
const LONGEST: f64 = 3600.0;

fn place(input_tokens: u64) -> usize {
    (input_tokens.max(1).ilog2() as usize).min(LENGTHS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(unloaded: &Unloaded, input_tokens: u64) -> f64 {
        unloaded.due(input_tokens).after.as_secs_f64()
    }

    fn learned(times: impl Iterator<Item = f64>, is_quiet: bool) -> Unloaded {
        let mut unloaded = Unloaded::default();
        times.for_each(|took| unloaded.learn(500, Duration::from_secs_f64(took), is_quiet));
        unloaded
    }

    #[test]
    fn a_first_token_is_late_some_time_after_it_usually_comes() {
        for usual in [0.1, 0.7, 2.0, 5.0] {
            let unloaded = learned(std::iter::repeat_n(usual, 100), false);
            assert!(
                (after(&unloaded, 500) - usual - LEAST_SLACK).abs() < 0.01,
                "{usual}"
            );
        }
        assert_eq!(Unloaded::default().due(500).after, UNKNOWN);
    }

    #[test]
    fn what_is_usual_is_learned_from_the_few_that_need_not_wait() {
        // Every fifth answer finds the engine free, the others wait for a second and more.
        let times = (0..1_000_u32).map(|n| if n % 5 == 0 { 0.3 } else { 1.0 + f64::from(n % 7) });
        let unloaded = learned(times, false);
        assert!(after(&unloaded, 500) < 1.2, "{}", after(&unloaded, 500));
    }

    #[test]
    fn times_that_vary_by_themselves_are_not_late() {
        let times = || {
            let random = |n: u32| f64::from(n.wrapping_mul(2_654_435_761).rotate_left(13) % 1_000);
            (0..1_000).map(move |n| 1.5 + random(n) / 500.0)
        };
        let unloaded = learned(times(), true);
        let late = times().filter(|took| *took > after(&unloaded, 500)).count();
        assert!(late < 30, "{late}");
        let at_most = learned((0..1_000_u32).map(|n| if n % 2 == 0 { 1.0 } else { 60.0 }), true);
        assert!(after(&at_most, 500) < 4.0);
    }

    #[test]
    fn a_deployment_that_has_become_slower_is_known_again_soon_once_it_is_quiet() {
        let mut unloaded = learned(std::iter::repeat_n(0.1, 1_000), false);
        let slower = Duration::from_secs_f64(0.7);
        for _ in 0..30 {
            unloaded.learn(500, slower, true);
        }
        assert!(after(&unloaded, 500) > 0.7, "{}", after(&unloaded, 500));
        // While it is full, on the other hand, it takes long to be believed.
        let mut unloaded = learned(std::iter::repeat_n(0.1, 1_000), false);
        for _ in 0..50 {
            unloaded.learn(500, slower, false);
        }
        assert!(after(&unloaded, 500) < 0.85, "{}", after(&unloaded, 500));
    }

    #[test]
    fn lengths_that_were_not_seen_are_guessed_on_the_long_side() {
        let mut unloaded = Unloaded::default();
        for _ in 0..100 {
            unloaded.learn(1_000, Duration::from_secs_f64(0.2), false);
            unloaded.learn(8_000, Duration::from_secs_f64(0.9), false);
        }
        let usual = |tokens| after(&unloaded, tokens) - LEAST_SLACK;
        assert!((usual(10) - 0.2).abs() < 0.01);
        assert!((usual(3_000) - 0.9).abs() < 0.01);
        assert!((usual(16_500) - 3.6).abs() < 0.01, "{}", usual(16_500));
        assert!((unloaded.due(8_000).reading - 0.7).abs() < 0.3);
    }
}
