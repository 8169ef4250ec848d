use fastrand::Rng;
use pyo3::pyfunction;

/// Numbers from a seed, or from anywhere.
pub(crate) fn generator(seed: Option<u64>) -> Rng {
    seed.map_or_else(Rng::new, Rng::with_seed)
}

/// Begins the calling thread's random numbers anew. A forked process has to, or it waits exactly as long as its parent.
#[pyfunction]
pub(crate) fn reseed(seed: u64) {
    fastrand::seed(seed);
}
