use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// An amount of dollars, written as `20` or `0.15`, in nano-dollars.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NanoUsd(pub(super) u64);

impl From<NanoUsd> for u64 {
    fn from(NanoUsd(amount): NanoUsd) -> Self {
        amount
    }
}

impl JsonSchema for NanoUsd {
    fn schema_name() -> Cow<'static, str> {
        "Dollars".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0 })
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    /// Rounds to the nearest nano-dollar. A decimal fraction has no exact binary form, but up to eight million dollars
    /// there is one nearer to it than half a nano-dollar, so that what was written is what is counted.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        if !dollars.is_finite() || dollars < 0.0 {
            return Err(D::Error::custom(format!(
                "{dollars} is not an amount of dollars, such as 20 or 0.15"
            )));
        }
        // Unlike a multiplication, writing it out with nine digits rounds once, and correctly.
        let digits = format!("{:.9}", dollars.abs()).replace('.', "");
        let too_much = |_| D::Error::custom(format!("{dollars} dollars are more than can be counted"));
        digits.parse().map(Self).map_err(too_much)
    }
}
