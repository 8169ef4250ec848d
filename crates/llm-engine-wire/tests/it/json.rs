//! Any JSON value, for properties.

use proptest::prelude::*;
use serde_json::{Map, Number, Value};

/// Values with the edges of each type in them, nested a little.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::sample::select(vec![-2_i64, -1, 0, 1, 2, 5, i64::MIN, i64::MAX]).prop_map(Value::from),
        any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
        prop::sample::select(vec![-0.0, 0.5, 1.0, 1.5, 2.5, f64::MAX, 5e-324]).prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any_text(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// Texts of any characters, and those that mean something when read as something else.
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,8}",
        "[-+]?[0-9_]{1,25}(\\.[0-9]{0,4})?(e[0-9]{1,3})?",
        prop::sample::select(vec![
            "", "true", "off", "nan", "inf", " 7 ", "7.0", "\u{a0}1", "null"
        ])
        .prop_map(str::to_owned),
    ]
}

/// An object with some of these fields, and now and then another one.
pub(crate) fn any_fields(names: &'static [&'static str]) -> impl Strategy<Value = Map<String, Value>> {
    let name = prop_oneof![
        9 => prop::sample::select(names.to_vec()).prop_map(str::to_owned),
        1 => any_text(),
    ];
    prop::collection::vec((name, any_value()), 0..names.len() + 3)
        .prop_map(|fields| fields.into_iter().collect())
}
