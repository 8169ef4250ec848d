//! Passes over the logits of the whole vocabulary, written so that the compiler can vectorise them.

/// Independent sums and maxima per pass; enough to keep vector units busy.
const LANES: usize = 16;

/// Tokens whose weights are added up as one; a multiple of [`LANES`].
const BLOCK: usize = 256;

/// How far below the largest logit the first search for candidates goes: their weights are at least e⁻⁴.
const FIRST_REACH: f32 = 4.0;

/// How far below it the last search goes that leaves tokens out.
const LAST_REACH: f32 = 30.0;

/// A token that survives top-k and top-p so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) index: usize,
    pub(super) logit: f32,
}

/// The largest logit; `None` if none is a number.
pub(super) fn largest(logits: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    let largest = lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |largest, &logit| largest.max(logit));
    largest.is_finite().then_some(largest)
}

/// e to the power of `x`, for `x` up to 0: a token's probability as a multiple of the likeliest token's. Within a
/// millionth for all that can be drawn, and several times faster than the standard library's, which works on one number
/// at a time.
pub(super) fn weight(x: f32) -> f32 {
    /// Adding it rounds to a whole number, whose low bits then are those of the sum.
    const ROUNDER: f32 = 12_582_912.0;
    /// The exponent of 1.0.
    const ONE: u32 = 127 << 23;
    // Also turns what isn't a number into next to nothing.
    let x = if x > -87.0 { x } else { -87.0 };
    let power_of_two = x * std::f32::consts::LOG2_E;
    let rounded = power_of_two + ROUNDER;
    let whole = f32::from_bits((rounded.to_bits() << 23).wrapping_add(ONE));
    let y = (power_of_two - (rounded - ROUNDER)) * std::f32::consts::LN_2;
    let series = 1.0
        + y * (1.0 + y * (1.0 / 2.0 + y * (1.0 / 6.0 + y * (1.0 / 24.0 + y * (1.0 / 120.0 + y / 720.0)))));
    whole * series
}

/// The sum of all weights at a temperature; leaves the sums of the blocks behind.
pub(super) fn total_weight(logits: &[f32], largest: f32, temperature: f32, blocks: &mut Vec<f64>) -> f64 {
    let sharpness = 1.0 / temperature;
    blocks.clear();
    blocks.extend(logits.chunks(BLOCK).map(|block| {
        let mut lanes = [0.0_f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &logit) in lanes.iter_mut().zip(chunk) {
                *lane += weight((logit - largest) * sharpness);
            }
        }
        let rest = rest.iter().map(|&logit| weight((logit - largest) * sharpness));
        lanes.into_iter().chain(rest).map(f64::from).sum::<f64>()
    }));
    blocks.iter().sum()
}

/// Draws from the whole vocabulary; `fraction` is the random number.
pub(super) fn draw_index(
    logits: &[f32],
    largest: f32,
    temperature: f32,
    fraction: f64,
    blocks: &mut Vec<f64>,
) -> Option<usize> {
    let mut left = total_weight(logits, largest, temperature, blocks) * fraction;
    let mut chosen = 0;
    for (index, &block) in blocks.iter().enumerate() {
        chosen = index;
        if left < block {
            break;
        }
        left -= block;
    }
    let start = chosen * BLOCK;
    let block = logits.get(start..)?.iter().take(BLOCK);
    let candidates = block.enumerate().map(|(offset, &logit)| Candidate {
        index: start + offset,
        logit,
    });
    draw_one(candidates, largest, temperature, left)
}

/// Draws from the candidates; `fraction` is the random number.
pub(super) fn draw_candidate(
    candidates: &[Candidate],
    largest: f32,
    temperature: f32,
    fraction: f64,
) -> Option<usize> {
    let weights = candidates
        .iter()
        .map(|candidate| f64::from(weight((candidate.logit - largest) / temperature)));
    let left = weights.sum::<f64>() * fraction;
    draw_one(candidates.iter().copied(), largest, temperature, left)
}

/// The candidate at which the weights add up to more than `left`; rounding may leave it to the likeliest.
fn draw_one(
    candidates: impl Iterator<Item = Candidate>,
    largest: f32,
    temperature: f32,
    mut left: f64,
) -> Option<usize> {
    let sharpness = 1.0 / temperature;
    let mut likeliest: Option<Candidate> = None;
    for candidate in candidates {
        let weight = f64::from(weight((candidate.logit - largest) * sharpness));
        if left < weight {
            return Some(candidate.index);
        }
        left -= weight;
        if likeliest.is_none_or(|likeliest| candidate.logit > likeliest.logit) {
            likeliest = Some(candidate);
        }
    }
    likeliest.map(|candidate| candidate.index)
}

/// Collects the likeliest tokens, in the order of the vocabulary, until there are `enough` of them or no more. Looks
/// further and further down, so that few tokens have to be sorted.
pub(super) fn collect_likeliest(
    logits: &[f32],
    largest: f32,
    found: &mut Vec<Candidate>,
    enough: impl Fn(&[Candidate]) -> bool,
) {
    let mut reach = FIRST_REACH;
    loop {
        collect_within(logits, largest - reach, found);
        if enough(found) || reach.is_infinite() {
            return;
        }
        reach = if reach < LAST_REACH {
            reach * 1.5
        } else {
            f32::INFINITY
        };
    }
}

/// Collects the tokens whose logits are not below `least`, in the order of the vocabulary.
pub(super) fn collect_within(logits: &[f32], least: f32, found: &mut Vec<Candidate>) {
    found.clear();
    // What is impossible is no candidate, however far one looks.
    let candidate = |(index, &logit): (usize, &f32)| {
        (logit >= least && logit > f32::NEG_INFINITY).then_some(Candidate { index, logit })
    };
    found.extend(logits.iter().enumerate().filter_map(candidate));
}

/// The likelier first; equals in the order of the vocabulary, so that the same seed gives the same token.
pub(super) fn likelier_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.index.cmp(&b.index))
}
