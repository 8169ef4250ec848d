use serde_json::{Value, json};

use super::{Line, read};

fn refused(messages: Value) -> String {
    read(&messages).unwrap_err().body.error.message
}

#[test]
fn texts_and_text_parts_are_read() {
    let messages = json!([
        {"role": "developer", "content": "be brief", "name": "ops", "refusal": null},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]);
    let lines = read(&messages).unwrap();
    assert_eq!(
        lines[0],
        Line {
            role: "system",
            content: "be brief".to_owned()
        }
    );
    assert_eq!(
        lines[1],
        Line {
            role: "user",
            content: "ab".to_owned()
        }
    );
}

#[test]
fn other_content_is_refused_with_its_place() {
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    assert!(refused(image).starts_with("the part 'image_url' of 'messages[0].content[0]'"));
    let tool = json!([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]);
    assert!(refused(tool).starts_with("the role 'tool' of 'messages[1]'"));
    let calls = json!([{"role": "assistant", "content": "", "tool_calls": [1]}]);
    assert!(refused(calls).starts_with("'messages[0].tool_calls'"));
    assert!(refused(json!([{"role": "user", "content": 5}])).starts_with("'messages[0].content'"));
    assert!(refused(json!([{"role": "user"}])).starts_with("'messages[0].content'"));
    assert!(refused(json!([])).starts_with("'messages' must be"));
}
