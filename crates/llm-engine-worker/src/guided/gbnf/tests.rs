use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use toktrie::ApproximateTokEnv;

use super::to_lark;

/// Whether the grammar has the text, read byte by byte.
fn has(gbnf: &str, text: &str) -> bool {
    let lark = to_lark(gbnf).unwrap();
    let mut factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
    let parser = factory
        .quiet()
        .create_parser(TopLevelGrammar::from_lark(lark.clone()));
    let mut matcher = Matcher::new(parser);
    assert_eq!(matcher.get_error(), None, "{lark}");
    let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
    matcher.try_consume_tokens(&bytes).unwrap() == bytes.len() && matcher.is_accepting().unwrap()
}

#[test]
fn words_and_alternatives() {
    let gbnf = "root ::= \"yes\" | \"no\" | \"may\\\"be\" # or not\n  \n";
    for text in ["yes", "no", "may\"be"] {
        assert!(has(gbnf, text), "{text}");
    }
    for text in ["", "y", "yesno", "may"] {
        assert!(!has(gbnf, text), "{text}");
    }
}

#[test]
fn rules_classes_and_repetitions() {
    let gbnf = r#"
# A sum, such as 1 + (2 * x).
root  ::= term (ws ("+" | "-") ws term)*
term  ::= item (ws [*/] ws item)*
item  ::= number | [a-z_] | "(" root ")"
number ::= "-"? [1-9] [0-9]{0,3}
ws ::= " "?
"#;
    for text in ["1", "1 + 2", "-12*x-(3/4)", "((7))"] {
        assert!(has(gbnf, text), "{text}");
    }
    for text in ["0", "1 +", "12345", "(1", "1  +2", "A"] {
        assert!(!has(gbnf, text), "{text}");
    }
}

#[test]
fn escapes_dots_and_negated_classes() {
    let gbnf = "root ::= \"\\x41\\u00e9\\t\" . [^\\]\\-\\n]+ other-rule?\nother-rule ::= \"\"\"!\"";
    assert!(has(gbnf, "Aé\tßx y"));
    assert!(has(gbnf, "Aé\t\n.!"));
    assert!(!has(gbnf, "Aé\t.-"));
    assert!(!has(gbnf, "Aé\t.\n"));
}

#[test]
fn a_rule_may_go_on_in_the_next_line() {
    let gbnf = "root ::= (\n  \"a\"\n  | \"b\"\n) end\nend ::= \"1\" |\n  \"2\"\n";
    assert!(has(gbnf, "a1") && has(gbnf, "b2") && !has(gbnf, "a"));
}

#[test]
fn what_is_no_gbnf_is_told_with_its_line() {
    for (gbnf, reason) in [
        ("start ::= \"a\"", "the grammar has no rule 'root'"),
        ("root ::= \"a\n", "line 2: a text has no end"),
        ("root ::= \"a\"\nb = \"c\"", "line 2: expected '::=' after 'b'"),
        ("root ::= (\"a\" \"b\"", "line 1: expected ')'"),
        ("root ::= [a-", "line 1: the grammar ends too early"),
        ("root ::= \"\\q\"", "line 1: an escape is one of"),
        (
            "root ::= \"\\ud800\"",
            "line 1: an escape has no character's number",
        ),
        ("root ::= \"a\"{x}", "line 1: a repetition is"),
        ("root ::= <[5]>", "line 1: tokens are not supported in a grammar"),
        ("root ::= $", "line 1: '$' is not expected"),
        ("::= \"a\"", "line 1: expected the name of a rule"),
    ] {
        let told = to_lark(gbnf).unwrap_err();
        assert!(told.starts_with(reason), "{gbnf}: {told}");
    }
    let deep = format!("root ::= {}", "(".repeat(60));
    assert!(to_lark(&deep).unwrap_err().contains("too deeply"));
}

#[test]
fn a_rule_that_is_missing_is_refused_when_it_is_compiled() {
    let lark = to_lark("root ::= other").unwrap();
    let factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
    assert!(factory.create_parser(TopLevelGrammar::from_lark(lark)).is_err());
}
