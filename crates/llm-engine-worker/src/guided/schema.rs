//! A bound on schemas that `llguidance`'s own limits don't give.
//!
//! It merges what must hold at the same place by copying: of two lists of 180 alternatives beside an object, 32,400
//! copies of the object. A schema of 16 KiB came to 800 MiB and seven seconds before a limit was reached. So what would
//! be multiplied is counted first, as an upper bound.

use std::collections::HashMap;

use serde_json::Value;

/// The most copies, times the bytes of the schema.
const MAX_COPIED_BYTES: u64 = 64 * 1024 * 1024;

/// Refuses a schema that combines too many alternatives.
///
/// # Errors
/// What is wrong with it, for the caller.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    let bytes = u64::try_from(schema.to_string().len()).unwrap_or(u64::MAX);
    let mut count = Count {
        root: schema,
        most: MAX_COPIED_BYTES / bytes.max(1),
        targets: HashMap::new(),
    };
    count.alternatives(schema).map(|_| ())
}

struct Count<'a> {
    root: &'a Value,
    most: u64,
    /// The alternatives of what was referred to already; 1 while they are being counted, since a recursion is not
    /// unfolded.
    targets: HashMap<&'a str, u64>,
}

impl<'a> Count<'a> {
    /// How many alternatives there may be at one place of what this schema describes.
    fn alternatives(&mut self, schema: &'a Value) -> Result<u64, String> {
        let Some(fields) = schema.as_object() else {
            return Ok(1);
        };
        let mut together = Vec::new();
        let mut below = 1;
        for (keyword, value) in fields {
            match (keyword.as_str(), value) {
                ("allOf", Value::Array(schemas)) => {
                    for schema in schemas {
                        together.push(self.alternatives(schema)?);
                    }
                }
                ("anyOf" | "oneOf", Value::Array(schemas)) => {
                    let mut sum: u64 = 0;
                    for schema in schemas {
                        sum = sum.saturating_add(self.alternatives(schema)?);
                    }
                    together.push(sum);
                }
                ("enum" | "type", Value::Array(values)) => {
                    together.push(u64::try_from(values.len()).unwrap_or(u64::MAX));
                }
                ("$ref", Value::String(reference)) => together.push(self.target(reference)?),
                ("properties" | "patternProperties", Value::Object(schemas)) => {
                    for schema in schemas.values() {
                        below = below.max(self.alternatives(schema)?);
                    }
                }
                ("prefixItems" | "items", Value::Array(schemas)) => {
                    for schema in schemas {
                        below = below.max(self.alternatives(schema)?);
                    }
                }
                ("items" | "additionalItems" | "additionalProperties", schema) => {
                    below = below.max(self.alternatives(schema)?);
                }
                _ => {}
            }
        }
        together.push(below);
        let product = together
            .iter()
            .fold(1, |product: u64, &factor| product.saturating_mul(factor.max(1)));
        let combines =
            together.iter().filter(|&&factor| factor > 1).count() > 1 || (together.len() > 2 && product > 1);
        if combines && product > self.most {
            return Err("it combines too many alternatives that must hold at the same time".to_owned());
        }
        Ok(product)
    }

    /// The alternatives of what a reference within the schema points at.
    fn target(&mut self, reference: &'a str) -> Result<u64, String> {
        if let Some(&known) = self.targets.get(reference) {
            return Ok(known);
        }
        self.targets.insert(reference, 1);
        // What is not found is refused when it is compiled.
        let target = reference
            .strip_prefix('#')
            .and_then(|pointer| self.root.pointer(pointer));
        let alternatives = match target {
            Some(schema) => self.alternatives(schema)?,
            None => 1,
        };
        self.targets.insert(reference, alternatives);
        Ok(alternatives)
    }
}

#[cfg(test)]
mod tests;
