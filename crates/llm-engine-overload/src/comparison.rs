use llm_engine_admission::Limit;

use crate::{Outcome, Scenario, simulate};

/// A mean over seeds, and how far it is from the true one at most in 95 of 100 cases.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half of the interval.
    pub within: f64,
}

/// The scenario with each of the seeds. Requests are the same for the same seed whatever else differs.
#[must_use]
pub fn simulate_seeds(scenario: &Scenario, seeds: impl IntoIterator<Item = u64>) -> Vec<Outcome> {
    let with = |seed| {
        simulate(&Scenario {
            seed,
            ..scenario.clone()
        })
    };
    seeds.into_iter().map(with).collect()
}

/// What one number comes to over all outcomes.
#[must_use]
pub fn estimate(values: impl IntoIterator<Item = f64>) -> Estimate {
    let values: Vec<f64> = values.into_iter().collect();
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    Estimate {
        mean,
        // Student's quantile of few values is a little above the normal one.
        within: (1.96 + 2.4 / (count - 1.0).max(1.0)) * deviation / count.max(1.0).sqrt(),
    }
}

/// The fixed limit of the largest goodput over some seeds, of those about a tenth apart. To be compared on other seeds: of
/// many limits that are about as good, the one that was best on some is lucky on these.
#[must_use]
pub fn best_fixed(
    scenario: &Scenario,
    limits: &[u32],
    seeds: impl IntoIterator<Item = u64> + Clone,
) -> Option<Limit> {
    let goodput = |limit: u32| {
        let limit = Limit::Fixed(limit.try_into().ok()?);
        let mut scenario = scenario.clone();
        scenario.admission.limit = limit;
        let outcomes = simulate_seeds(&scenario, seeds.clone());
        Some((estimate(outcomes.iter().map(Outcome::goodput)).mean, limit))
    };
    let all = limits.iter().filter_map(|limit| goodput(*limit));
    all.max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, limit)| limit)
}

/// How equal some amounts are, by Jain's index: 1 if they are the same, one divided by their number if one has all.
#[must_use]
pub fn equality(amounts: impl IntoIterator<Item = f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for amount in amounts {
        count += 1.0;
        sum += amount;
        squares += amount * amount;
    }
    if squares > 0.0 {
        sum * sum / (count * squares)
    } else {
        1.0
    }
}

/// A quantile of sorted numbers; 0 if there are none.
#[must_use]
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    let place = (sorted.len() as f64 * part) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}
