use std::num::NonZeroU32;
use std::time::Duration;

use llm_engine_gateway::{Quota, RefusalCode, Unit};

use super::*;

fn policy(name: &str, model: &str) -> PolicySetup {
    let minute = Quota::new(60, Duration::from_secs(60)).expect("a quota");
    PolicySetup {
        name: name.to_owned(),
        matches: MatchSetup {
            model: Some(model.to_owned()),
            ..MatchSetup::default()
        },
        quotas: vec![(Unit::Requests, minute)],
        ..PolicySetup::default()
    }
}

#[tokio::test]
async fn a_name_means_itself_whatever_is_in_it() {
    let names = [
        "<script>alert(1)</script>",
        "<http://example.com/>",
        "<!-- x",
        "a | b",
        "\\| b \\",
        "`a` ``b` ",
        "**a** _b_ ~~c~~",
        "[a](javascript:b) ![c](d) [e]",
        "&lt;b&gt; &#60;i&#62; &copy;",
        "# {{ limits }} {% if x %} {# y #}",
        "- $1$ \"q\" 'r'",
        "one\nline\r\nonly\u{2028}.\t\0",
        "",
    ];
    for name in names {
        let html = html(&markdown(&[policy(name, name)]).await);
        let shown: String = name
            .chars()
            .map(|c| if c.is_control() || c == '\u{2028}' { ' ' } else { c })
            .collect();
        let shown = shown
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let (name, model) = (shown.trim(), format!("model {shown}"));
        let row = format!(
            "<tr><td>{name}</td><td>60 requests per minute</td><td>all together</td><td>{}</td><td>none</td></tr>",
            model.trim()
        );
        assert!(html.contains(&row), "{row}\nis not in\n{html}");
    }
}

#[tokio::test]
async fn what_a_policy_says_is_in_its_row() {
    let policy = PolicySetup {
        concurrency: NonZeroU32::new(8),
        hold: Duration::from_secs(30),
        learned_output: true,
        ..policy("a_b", "m")
    };
    let row = "| a\\_b | 60 requests per minute; 8 requests at the same time | all together | model m | held up to 30 s; \
               a request that names no maximum reserves what answers usually need |";
    let page = markdown(&[policy]).await;
    assert!(page.contains(row), "{page}");
}

#[tokio::test]
async fn every_code_of_a_refusal_is_explained_with_its_status() {
    let page = markdown(&[]).await;
    let codes = [
        RefusalCode::RateLimited,
        RefusalCode::Saturated,
        RefusalCode::BudgetExhausted,
        RefusalCode::NeverFits,
        RefusalCode::Draining,
        RefusalCode::NoDeployment,
    ];
    for code in codes {
        let row = format!("\n| {} | `{}` |", code.status(), code.as_str());
        assert!(page.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn the_markdown_is_tidy() {
    for page in [
        markdown(&[]).await,
        markdown(&[policy("p", "m"), policy("q", "m")]).await,
    ] {
        assert!(!page.contains("\n\n\n") && !page.contains(" \n"), "{page}");
        assert!(page.contains("|\n\n"), "a table ends");
    }
}
