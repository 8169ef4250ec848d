use llm_engine_wire::object::{Object, ObjectError, Texts, string};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::json::{any_text, any_value};

fn object(text: &str) -> Object {
    Object::parse(text.as_bytes()).unwrap()
}

proptest! {
    #[test]
    fn an_object_is_what_a_value_can_be_read_from_and_is_one(
        value in any_value(),
        at in any::<prop::sample::Index>(),
        byte in prop::option::of(any::<u8>()),
    ) {
        let mut text = value.to_string().into_bytes();
        if let Some(byte) = byte {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let expected = serde_json::from_slice::<Value>(&text);
        match (Object::parse(&text), expected) {
            (Ok(object), Ok(Value::Object(fields))) => {
                for (name, value) in &fields {
                    prop_assert_eq!(object.value(name), Some(value));
                }
                let written: Value = serde_json::from_str(&object.with(&[])).unwrap();
                prop_assert_eq!(written, Value::from(fields));
            }
            (Err(ObjectError::OtherType), Ok(other)) => prop_assert!(!other.is_object()),
            (Err(ObjectError::Json(_)), Err(_)) => {}
            (object, expected) => prop_assert!(false, "{:?} for {:?}", object, expected),
        }
    }

    #[test]
    fn fields_are_changed_where_they_stand_and_others_keep_their_place(
        fields in prop::collection::vec((any_text(), any_value()), 0..5),
        name in any_text(),
        new in any_value(),
    ) {
        let fields: Map<String, Value> = fields.into_iter().collect();
        let object = object(&Value::from(fields.clone()).to_string());
        let json = new.to_string();
        let mut expected = fields.clone();
        expected.insert(name.clone(), new);
        prop_assert_eq!(object.with(&[(&name, Some(&json))]), Value::from(expected).to_string());
        let mut expected = fields;
        expected.shift_remove(&name);
        prop_assert_eq!(object.with(&[(&name, None)]), Value::from(expected).to_string());
    }

    #[test]
    fn a_text_is_written_as_a_value_is(text in any_text()) {
        prop_assert_eq!(string(&text), Value::from(text).to_string());
    }
}

#[test]
fn what_stands_in_a_field_is_written_again_byte_for_byte() {
    let object = object("{ \"a\" : 1.50e+3 , \"b\":[ 1,\t2 ],\"c\":\"\\u00e4\\/\" }");
    assert_eq!(object.json("a"), Some("1.50e+3"));
    assert_eq!(
        object.with(&[("d", Some("null"))]),
        "{\"a\":1.50e+3,\"b\":[ 1,\t2 ],\"c\":\"\\u00e4\\/\",\"d\":null}"
    );
}

#[test]
fn of_two_fields_of_a_name_however_it_is_written_there_is_the_last() {
    let object = object(r#"{"max_tokens":1,"x":2,"max_tok\u0065ns":3}"#);
    assert_eq!(object.json("max_tokens"), Some("3"));
    assert_eq!(object.with(&[]), r#"{"max_tokens":3,"x":2}"#);
    assert_eq!(
        object.with(&[("max_tokens", Some("4"))]),
        r#"{"max_tokens":4,"x":2}"#
    );
}

#[test]
fn what_no_value_can_be_read_from_is_refused_wherever_it_is() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for text in [
        deep.as_str(),
        r#"{"a":1e999}"#,
        r#"{"a":["\ud800"]}"#,
        r#"{"a":{"\ud800":1}}"#,
        r#"{"a":1}x"#,
        r#"{"a":1"#,
    ] {
        assert!(
            matches!(Object::parse(text.as_bytes()), Err(ObjectError::Json(_))),
            "{text}"
        );
    }
    assert!(matches!(
        Object::parse(b"{\"a\":\"\xff\"}"),
        Err(ObjectError::Json(_))
    ));
}

#[test]
fn texts_and_numbers_are_counted_through_lists_and_objects_but_names_are_not() {
    let value = json!({ "a": [{ "role": "ab", "n": 1.5, "x": [null, true, -2, ["\u{e4}"]] }], "b": 3 });
    let object = object(&value.to_string());
    assert_eq!(object.texts("a"), Texts { bytes: 4, numbers: 2 });
    assert_eq!(object.texts("b"), Texts { bytes: 0, numbers: 1 });
    assert_eq!(object.texts("c"), Texts::default());
}

#[test]
fn a_name_that_the_reader_keeps_for_itself_is_no_way_to_make_it_panic() {
    let object = object(r#"{"user":{"$serde_json::private::RawValue":"x"}}"#);
    assert!(object.value("user").unwrap().is_string());
    assert_eq!(
        object.with(&[]),
        r#"{"user":{"$serde_json::private::RawValue":"x"}}"#
    );
}
