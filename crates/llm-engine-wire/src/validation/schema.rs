use serde_json::{Map, Value, json};

use super::form::MOST_STOPS;
use super::{Bound, Field, Form};

/// The JSON schema of a body with these fields, and with any others, which nobody reads. It asks for the plain form of each:
/// what is read laxly, such as `"7"` for a number, it does not offer.
#[must_use]
pub fn body_schema(fields: impl Iterator<Item = Field> + Clone) -> Value {
    let required: Vec<&str> = fields
        .clone()
        .filter(|field| field.is_required)
        .map(|field| field.name)
        .collect();
    let properties: Map<String, Value> = fields
        .map(|field| {
            let schema = field.form.schema();
            let schema = if field.is_required {
                schema
            } else {
                or_null(schema)
            };
            (field.name.to_owned(), schema)
        })
        .collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn or_null(mut schema: Value) -> Value {
    match schema.get_mut("type") {
        Some(kind) => *kind = json!([kind.take(), "null"]),
        None => {
            if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
                forms.push(json!({ "type": "null" }));
            }
        }
    }
    schema
}

impl Form {
    fn schema(self) -> Value {
        match self {
            Self::Boolean => json!({ "type": "boolean" }),
            // Others are taken for the nearest of these, or are no numbers to us at all.
            Self::Integer(bounds) => bounded(
                json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX }),
                bounds,
            ),
            Self::Number(bounds) => bounded(json!({ "type": "number" }), bounds),
            Self::Text => json!({ "type": "string" }),
            Self::Texts => texts(),
            Self::Dictionary => json!({ "type": "object" }),
            Self::Stop => {
                let mut several = texts();
                several["minItems"] = 1.into();
                several["maxItems"] = MOST_STOPS.into();
                json!({ "anyOf": [{ "type": "string" }, several] })
            }
            Self::Prompt => json!({ "anyOf": [{ "type": "string" }, { "type": "array" }] }),
            Self::Messages => json!({ "type": "array", "minItems": 1, "items": {
                "type": "object", "required": ["role"], "properties": { "role": { "type": "string" } },
            }}),
            Self::StreamOptions => {
                let option = json!({ "type": ["boolean", "null"] });
                json!({ "type": "object", "properties": {
                    "include_usage": option, "continuous_usage_stats": option,
                }})
            }
        }
    }
}

fn texts() -> Value {
    json!({ "type": "array", "items": { "type": "string" } })
}

fn bounded(mut schema: Value, bounds: &[Bound]) -> Value {
    for bound in bounds {
        let (keyword, limit) = match bound {
            Bound::AtLeast(limit) => ("minimum", limit),
            Bound::Above(limit) => ("exclusiveMinimum", limit),
            Bound::AtMost(limit) => ("maximum", limit),
        };
        schema[keyword] = (*limit).into();
    }
    schema
}
