use llm_engine_batch::{End, Order, Row, SurveyError};
use serde_json::{Value, json};

use crate::harness::{Folder, Server, ids};

fn rows(folder: &Folder) -> Vec<Result<Row, String>> {
    let mut reader = folder.input().read().unwrap();
    let mut rows = Vec::new();
    while let Some(number) = reader.advance().unwrap() {
        assert_eq!(number, rows.len() as u64);
        rows.push(reader.row().map_err(|bad| bad.to_string()));
    }
    rows
}

#[test]
fn json_lines_are_requests_or_openais_batch_lines() {
    let text = concat!(
        "\u{feff}{\"id\": \"x\", \"prompt\": \"p\", \"max_new_tokens\": 5}\n",
        "\n",
        "{\"messages\": []}\r\n",
        "{\"custom_id\": \"y\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {\"model\": \"m\"}}\n",
        "{\"id\": 7, \"prompt\": \"last, without an end\"}",
    );
    let folder = Folder::with_text("prompts.jsonl", text);
    let rows: Vec<Row> = rows(&folder).into_iter().map(Result::unwrap).collect();
    let id_and_target = |row: &Row| (row.id.clone(), row.target.clone());
    assert_eq!(id_and_target(&rows[0]), (json!("x"), None));
    assert_eq!(
        Value::Object(rows[0].fields.clone()),
        json!({ "prompt": "p", "max_new_tokens": 5 })
    );
    assert_eq!(rows[0].max_output_tokens(), Some(5));
    assert_eq!(id_and_target(&rows[1]), (json!("2"), None));
    assert_eq!(
        id_and_target(&rows[2]),
        (json!("y"), Some("/v1/completions".to_owned()))
    );
    assert_eq!(
        (rows[2].model(), Value::Object(rows[2].fields.clone())),
        ("m", json!({ "model": "m" }))
    );
    assert_eq!(rows[3].id, json!(7));
}

#[test]
fn columns_are_fields() {
    let text =
        "id,prompt,temperature,stop_sequences\nx,\"a, \"\"b\"\"\nc\",0.2,\"[\"\"\\n\"\"]\"\n,12,,\nz,short\n";
    let folder = Folder::with_text("prompts.csv", text);
    let rows = rows(&folder);
    let first = rows[0].as_ref().unwrap();
    assert_eq!(first.id, json!("x"));
    let expected = json!({ "prompt": "a, \"b\"\nc", "temperature": 0.2, "stop_sequences": ["\n"] });
    assert_eq!(Value::Object(first.fields.clone()), expected);
    let second = rows[1].as_ref().unwrap();
    assert_eq!(
        (&second.id, Value::Object(second.fields.clone())),
        (&json!("2"), json!({ "prompt": "12" }))
    );
    assert_eq!(rows[2].as_ref().unwrap_err(), "line 5: 2 cells under 4 headings");
}

#[test]
fn what_is_no_row_says_why_and_where() {
    let text = "{\"prompt\": \"p\"\n[1]\n{\"id\": {}, \"prompt\": \"p\"}\n{\"custom_id\": \"c\", \"body\": 5}\n{\"id\": \"d\"}\n{\"custom_id\": \"e\", \"method\": \"GET\", \"body\": {}}\n";
    let folder = Folder::with_text("prompts.jsonl", text);
    let told: Vec<String> = rows(&folder).into_iter().map(Result::unwrap_err).collect();
    assert!(
        told[0].starts_with("line 1: not a JSON object: EOF while parsing"),
        "{}",
        told[0]
    );
    assert!(told[1].starts_with("line 2: not a JSON object"), "{}", told[1]);
    assert_eq!(told[2], "line 3: id must be a text or a whole number");
    assert_eq!(told[3], "line 4: body must be a JSON object");
    assert_eq!(
        told[4],
        "line 5: there is no prompt, no messages, and no body of a request"
    );
    assert_eq!(told[5], "line 6: the method \"GET\" can't be sent, only \"POST\"");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_can_not_be_read_is_answered_by_its_error() {
    let folder = Folder::with_text(
        "prompts.jsonl",
        "{\"prompt\": \"p\"}\nnonsense\n{\"prompt\": \"q\"}\n",
    );
    let server = Server::answering();
    let (end, tally) = folder.go_on(&server).await;
    assert_eq!((end, tally.ended, tally.failed), (End::Complete, 3, 1));
    assert_eq!(server.sent(), [0, 2]);
    let rows = folder.rows(Order::Input);
    assert_eq!(ids(&rows), ["1", "2", "3"]);
    assert_eq!(rows[1]["error"]["code"], "invalid_row");
}

#[test]
fn two_rows_with_one_id_are_found_however_far_apart() {
    // More than are compared in memory.
    let row = |id: String| json!({ "id": id, "prompt": "p" });
    let many = (0..150_000).map(|number| row(number.to_string()));
    let folder = Folder::with_lines(many.clone());
    assert_eq!(folder.input().survey().unwrap().rows, 150_000);
    let folder = Folder::with_lines(many.chain([row("70000".to_owned())]));
    match folder.input().survey() {
        Err(SurveyError::SameId { id, first, second }) => {
            assert_eq!((id, first, second), (json!("70000"), 70_001, 150_001));
        }
        other => panic!("{other:?}"),
    }
    // 1 and "1" are two ids.
    let folder = Folder::with_lines([json!({ "id": 2, "prompt": "p" }), json!({ "prompt": "p" })]);
    assert_eq!(folder.input().survey().unwrap().rows, 2);
}
