use serde_json::{Value, json};

use super::check;

fn objects(count: usize) -> Vec<Value> {
    (0..count).map(|least| json!({"minProperties": least})).collect()
}

#[test]
fn what_would_be_copied_a_hundred_thousand_times_is_refused() {
    let names: Vec<String> = (0..1000).map(|number| format!("k{number}")).collect();
    let object = json!({"type": "object", "required": names});
    let blown_up = json!({"allOf": [object, {"anyOf": objects(180)}, {"anyOf": objects(180)}]});
    assert!(check(&blown_up).is_err());
    let nested = json!({"properties": {"a": blown_up}});
    assert!(check(&nested).is_err());
    let named = json!({"$ref": "#/$defs/a", "$defs": {"a": blown_up}});
    assert!(check(&named).is_err());
}

#[test]
fn alternatives_that_don_t_meet_are_not_multiplied() {
    let choice = json!({"enum": (0..50).collect::<Vec<_>>()});
    let properties: serde_json::Map<_, _> = (0..50).map(|n| (format!("p{n}"), choice.clone())).collect();
    assert_eq!(
        check(&json!({"type": "object", "properties": properties})),
        Ok(())
    );
    let deep = (0..8).fold(
        choice,
        |inner, _| json!({"anyOf": [inner, {"type": "null"}, {"type": "array", "items": inner}]}),
    );
    assert_eq!(check(&deep), Ok(()));
}

#[test]
fn schemas_as_they_are_written_pass() {
    let animal = json!({
        "$defs": {
            "base": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "dog": {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"size": {"enum": ["s", "m", "l"]}}}]},
            "cat": {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"friend": {"$ref": "#/$defs/animal"}}}]},
            "animal": {"anyOf": [{"$ref": "#/$defs/dog"}, {"$ref": "#/$defs/cat"}]},
        },
        "type": "array", "items": {"$ref": "#/$defs/animal"},
    });
    assert_eq!(check(&animal), Ok(()));
    assert_eq!(check(&json!(true)), Ok(()));
}

#[test]
fn recursions_and_missing_targets_end() {
    assert_eq!(check(&json!({"$ref": "#"})), Ok(()));
    assert_eq!(
        check(&json!({"allOf": [{"$ref": "#/x"}, {"$ref": "elsewhere"}]})),
        Ok(())
    );
}
