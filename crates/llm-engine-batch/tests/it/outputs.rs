use std::fs;

use llm_engine_batch::{Answer, Consequence, Failed, Form, Order, RowError, Settings, journal_of};
use serde_json::json;
use serde_json::value::to_raw_value;

use crate::harness::{Folder, Server, answer, ids, lines};

/// Row 0 is done last; row 1 fails.
async fn first_is_last(rows: usize, takes_response: bool) -> Folder {
    let folder = Folder::with_rows(rows);
    let server = Server::new(move |request, attempt| match request.row.number {
        1 => Err(Failed {
            error: RowError {
                code: "not_found".to_owned(),
                message: "no \"m\", sorry".to_owned(),
                status: Some(404),
            },
            consequence: Consequence::EndRow,
            may_be_done: false,
        }),
        0 if attempt < 3 => crate::harness::failed(Consequence::TryAgain),
        _ if takes_response => Ok(Answer {
            response: Some(to_raw_value(&json!({ "choices": [] })).unwrap()),
            request_id: Some("r".to_owned()),
            text: None,
            ..answer("")
        }),
        _ => Ok(answer("a,\nb")),
    });
    let settings = Settings {
        concurrency: 3,
        ..Settings::default()
    };
    folder.go_on_as(&server, &settings).await.unwrap();
    folder
}

#[tokio::test(start_paused = true)]
async fn rows_are_in_the_order_in_which_they_were_done_or_in_that_of_the_input() {
    let folder = first_is_last(3, false).await;
    let done = folder.rows(Order::Completion);
    let ordered = folder.rows(Order::Input);
    assert_eq!(ids(&ordered), ["a0", "a1", "a2"]);
    assert_ne!(ids(&done), ids(&ordered));
    assert_eq!(
        ordered[2],
        json!({ "id": "a2", "text": "a,\nb", "finish_reason": "stop", "input_tokens": 3, "output_tokens": 2 })
    );
    let error = json!({ "code": "not_found", "message": "no \"m\", sorry", "status": 404 });
    assert_eq!(ordered[1], json!({ "id": "a1", "error": error }));
}

#[tokio::test(start_paused = true)]
async fn as_columns() {
    let folder = first_is_last(2, false).await;
    let path = folder.output();
    folder
        .journal()
        .write_output(&path, Form::Csv, Order::Input)
        .unwrap();
    let expected = "id,text,finish_reason,input_tokens,output_tokens,error_code,error\n\
        a0,\"a,\nb\",stop,3,2,,\na1,,,,,not_found,\"no \"\"m\"\", sorry\"\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn as_openais_lines() {
    let folder = first_is_last(2, true).await;
    let path = folder.output();
    folder
        .journal()
        .write_output(&path, Form::OpenAi, Order::Input)
        .unwrap();
    let rows = lines(&path);
    let response = json!({ "status_code": 200, "request_id": "r", "body": { "choices": [] } });
    assert_eq!(
        rows[0],
        json!({ "id": "batch_req_0", "custom_id": "a0", "response": response, "error": null })
    );
    assert_eq!(rows[1]["response"]["status_code"], 404);
    assert_eq!(rows[1]["response"]["body"]["error"]["code"], "not_found");
}

#[test]
fn an_output_is_not_written_before_all_rows_have_ended() {
    let folder = Folder::with_rows(2);
    let mut journal = folder.journal();
    let error = journal
        .write_output(&folder.output(), Form::Jsonl, Order::Input)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("of 2 rows 2 have no answer; run it to its end first")
    );
    assert!(!folder.output().exists());
    assert_eq!(
        fs::read_dir(folder.output().parent().unwrap()).unwrap().count(),
        2,
        "input and journal"
    );
    assert!(journal_of(&folder.output()).exists());
}
