//! Replays what pydantic and FastAPI themselves said; `data/record_verdicts.py` wrote it down.

use llm_engine_wire::v1::{CompletionRequest, RequestError};
use llm_engine_wire::validation::{
    Body, Bound, Problem, boolean, dictionary, integer, number, string, strings,
};
use serde_json::{Value, json};

const VALUES: &str = include_str!("../data/pydantic-values.jsonl");
const BODIES: &str = include_str!("../data/fastapi-bodies.jsonl");

fn rows(lines: &str) -> impl Iterator<Item = Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// What our reader of that type says.
fn read(kind: &str, value: &Value) -> Result<Value, Vec<Problem>> {
    const FROM_0_TO_1: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(1.0)];
    const FROM_0_TO_2: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(2.0)];
    const ABOVE_0_TO_1: &[Bound] = &[Bound::Above(0.0), Bound::AtMost(1.0)];
    let float = |bounds| number(bounds)(value).map(in_json);
    match kind {
        "bool" => boolean(value).map(Value::from),
        "int" => integer(&[])(value).map(Value::from),
        "int from -1" => integer(&[Bound::AtLeast(-1.0)])(value).map(Value::from),
        "float" => float(&[]),
        "float 0 to 1" => float(FROM_0_TO_1),
        "float 0 to 2" => float(FROM_0_TO_2),
        "float above 0 to 1" => float(ABOVE_0_TO_1),
        "str" => string(value).map(Value::from),
        "list of str" => strings(value).map(Value::from),
        "dict" => dictionary(value).map(Value::from),
        kind => panic!("there is no type '{kind}'"),
    }
}

/// As the recording writes a float: JSON has no name for some.
fn in_json(float: f64) -> Value {
    if float.is_nan() {
        "nan".into()
    } else if float.is_infinite() {
        if float > 0.0 { "inf".into() } else { "-inf".into() }
    } else {
        float.into()
    }
}

/// The problem as an answer shows it, without what was sent.
fn shown(problem: &Problem) -> Value {
    let mut shown = serde_json::to_value(problem).unwrap();
    shown.as_object_mut().unwrap().shift_remove("input");
    shown
}

/// Every difference of the rows of these types.
fn differences(kinds: &[&str]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut replayed = 0;
    for row in rows(VALUES).filter(|row| kinds.contains(&row["type"].as_str().unwrap())) {
        replayed += 1;
        let found = match read(row["type"].as_str().unwrap(), &row["value"]) {
            // What is beyond 64 bits saturates; no field of a request can tell.
            Ok(value) if value == json!(i64::MAX) && row["ok"].as_u64() >= value.as_u64() => continue,
            Ok(value) => json!({ "ok": value }),
            Err(problems) => json!({ "problems": problems.iter().map(shown).collect::<Vec<_>>() }),
        };
        let expected = match row.get("problems") {
            Some(problems) => json!({ "problems": problems }),
            None => json!({ "ok": row["ok"] }),
        };
        if found != expected {
            differences.push(format!(
                "{} as {}: {found} instead of {expected}",
                row["value"], row["type"]
            ));
        }
    }
    assert!(replayed > 0);
    differences
}

fn assert_as_recorded(kinds: &[&str]) {
    let differences = differences(kinds);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn booleans_are_read_as_recorded() {
    assert_as_recorded(&["bool"]);
}

#[test]
fn integers_are_read_as_recorded() {
    assert_as_recorded(&["int", "int from -1"]);
}

#[test]
fn numbers_are_read_as_recorded() {
    assert_as_recorded(&["float"]);
}

#[test]
fn bounded_numbers_are_read_as_recorded() {
    assert_as_recorded(&["float 0 to 1", "float 0 to 2", "float above 0 to 1"]);
}

#[test]
fn texts_lists_and_dictionaries_are_read_as_recorded() {
    assert_as_recorded(&["str", "list of str", "dict"]);
}

#[test]
fn what_was_sent_is_shown_beside_each_problem() {
    let mut shown = 0;
    for row in rows(VALUES) {
        let Err(problems) = read(row["type"].as_str().unwrap(), &row["value"]) else {
            continue;
        };
        for problem in problems {
            let loc = serde_json::to_value(&problem.loc).unwrap();
            let sent = loc.as_array().unwrap().iter().fold(&row["value"], |value, step| {
                value
                    .get(usize::try_from(step.as_u64().unwrap()).unwrap())
                    .unwrap()
            });
            assert_eq!(problem.input, *sent);
            shown += 1;
        }
    }
    assert!(shown > 300, "{shown}");
}

/// Our whole verdict about a body, as the recording has it.
fn verdict(content_type: Option<&str>, body: &str) -> Value {
    let problems = match Body::read(content_type, body.as_bytes()) {
        Ok(body) => match CompletionRequest::read(Some("m"), &body) {
            Ok(_) | Err(RequestError::Refused(_)) => return json!({ "status": 200 }),
            Err(RequestError::Invalid(problems)) => problems,
        },
        Err(problem) => vec![*problem],
    };
    json!({ "status": 422, "detail": problems })
}

fn assert_bodies_as_recorded(chosen: impl Fn(&Value) -> bool, count: usize) {
    let mut wrong = Vec::new();
    let mut replayed = 0;
    for mut row in rows(BODIES).filter(chosen) {
        replayed += 1;
        let fields = row.as_object_mut().unwrap();
        let (content_type, body) = (fields.shift_remove("content_type"), fields.shift_remove("body"));
        let (content_type, body) = (content_type.unwrap(), body.unwrap());
        let found = verdict(content_type.as_str(), body.as_str().unwrap());
        if found != row {
            wrong.push(format!(
                "{content_type} {body}:\n  {found}\n  instead of\n  {row}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {replayed}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(replayed >= count, "only {replayed} were replayed");
}

fn is_malformed(row: &Value) -> bool {
    row["detail"][0]["type"] == "json_invalid"
}

#[test]
fn bodies_of_any_content_type_are_judged_as_recorded() {
    assert_bodies_as_recorded(|row| !is_malformed(row), 35);
}

#[test]
fn malformed_json_is_told_with_the_recorded_place_and_words() {
    assert_bodies_as_recorded(is_malformed, 45);
}
