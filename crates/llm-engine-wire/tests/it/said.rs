//! What is understood of the errors of servers.

use std::time::Duration;

use llm_engine_wire::said::Said;

fn read(body: &str) -> Said {
    Said::read(body.as_bytes())
}

#[test]
fn our_refusals_are_read_whole() {
    let said = read(
        r#"{"detail": "Policy p allows 1.", "error": {"code": "rate_limited", "message": "m", "type": "rate_limit_error",
        "policy": "p", "limit": 1, "retry_after_ms": 1430, "exact": true, "booked": true, "request_id": "r"}}"#,
    );
    let expected = Said {
        message: Some("Policy p allows 1.".to_owned()),
        code: Some("rate_limited".to_owned()),
        kind: Some("rate_limit_error".to_owned()),
        param: None,
        policy: Some("p".to_owned()),
        retry_after: Some(Duration::from_millis(1430)),
        is_booked: true,
        request_id: Some("r".to_owned()),
    };
    assert_eq!(said, expected);
}

#[test]
fn every_problem_of_a_request_is_named() {
    let said = read(
        r#"{"detail": [{"loc": ["body", "prompt"], "msg": "Field required"}, {"loc": ["body", "stop", 0], "msg": "no"}]}"#,
    );
    assert_eq!(
        said.message.unwrap(),
        "body.prompt: Field required; body.stop.0: no"
    );
}

#[test]
fn other_servers_are_understood_too() {
    let openai = read(r#"{"error": {"message": "m", "code": 400}}"#);
    assert_eq!(
        (openai.message.as_deref(), openai.code.as_deref()),
        (Some("m"), Some("400"))
    );
    assert_eq!(read(r#"{"error": "broken"}"#).message.unwrap(), "broken");
    assert_eq!(
        read(r#"{"message": "no Route matched"}"#).message.unwrap(),
        "no Route matched"
    );
    assert_eq!(read("<html>502</html>\n").message.unwrap(), "<html>502</html>");
    assert_eq!(read(&"ä".repeat(300)).message.unwrap().chars().count(), 201);
    for nothing in ["", " ", "{}", "[]", r#"{"detail": []}"#] {
        let said = read(nothing);
        assert!(
            said.code.is_none() && said.message.is_none_or(|message| message == "[]"),
            "{nothing}"
        );
    }
}
