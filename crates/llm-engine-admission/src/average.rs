/// An exponential average. The first value counts fully.
#[derive(Debug)]
pub(crate) struct Average {
    value: Option<f64>,
    weight: f64,
}

impl Average {
    /// `weight`: of each new value.
    pub(crate) fn new(weight: f64) -> Self {
        Self { value: None, weight }
    }

    /// With a value before anything is known.
    pub(crate) fn starting(value: f64, weight: f64) -> Self {
        Self {
            value: Some(value),
            weight,
        }
    }

    pub(crate) fn add(&mut self, value: f64) {
        self.value = Some(match self.value {
            None => value,
            Some(average) => average + self.weight * (value - average),
        });
    }

    /// 0 before there is anything.
    pub(crate) fn value(&self) -> f64 {
        self.value.unwrap_or(0.0)
    }
}
