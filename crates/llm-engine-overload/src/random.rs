use crate::Lengths;

pub(crate) fn length(random: &mut fastrand::Rng, lengths: Lengths) -> u64 {
    let mean = lengths.mean.ln() - lengths.spread * lengths.spread / 2.0;
    let length = (mean + lengths.spread * normal(random)).exp();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between bounds"
    )]
    let length = length.clamp(lengths.least, lengths.most) as u64;
    length.max(1)
}

/// Normally distributed around 0, with deviation 1.
pub(crate) fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// One of the sources of randomness that a seed stands for.
pub(crate) fn stream(seed: u64, number: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03),
    )
}
