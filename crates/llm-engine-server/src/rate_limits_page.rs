//! The page that tells callers which limits there are and how to live with them.
//!
//! Its one source is a Markdown template; the HTML is made from that. Anybody may read it, so it says nothing of
//! callers, keys or deployments.

mod example;

use std::fmt::Write as _;
use std::sync::LazyLock;

use llm_engine_gateway::{MatchSetup, Mode, PolicySetup};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use pulldown_cmark::{Options, Parser};

use crate::policy_words;

const TEMPLATE: &str = "page.md";

/// In it everything is escaped that is not marked as safe.
static ENVIRONMENT: LazyLock<Environment<'_>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_formatter(|output, _, value| {
        let text = value.to_string();
        output.write_str(&if value.is_safe() { text } else { escape(&text) })?;
        Ok(())
    });
    environment
        .add_template(TEMPLATE, include_str!("rate_limits_page/page.md"))
        .expect("the template is well-formed");
    environment
});

/// The page in Markdown, for the policies that are in force.
pub(crate) async fn markdown(policies: &[PolicySetup]) -> String {
    let enforced = policies.iter().filter(|policy| policy.mode == Mode::Enforce);
    let (public, others): (Vec<_>, Vec<_>) = enforced.partition(|policy| is_public(&policy.matches));
    let refusal = example::refusal().await;
    let page = ENVIRONMENT.get_template(TEMPLATE).and_then(|template| {
        template.render(context! {
            limits => public.into_iter().map(row).collect::<Vec<Value>>(),
            has_others => !others.is_empty(),
            refusal => context! {
                head => Value::from_safe_string(refusal.head),
                body => Value::from_safe_string(refusal.body),
            },
            with_tenacity => example_file(include_str!("../../../examples/with_tenacity.py")),
            with_backoff => example_file(include_str!("../../../examples/with_backoff.py")),
        })
    });
    // The end of the last line is not part of a template.
    page.expect("the template uses what it is given") + "\n"
}

/// The page in HTML, from the one in Markdown.
pub(crate) fn html(markdown: &str) -> String {
    let mut html = include_str!("rate_limits_page/head.html").to_owned();
    pulldown_cmark::html::push_html(&mut html, Parser::new_ext(markdown, Options::ENABLE_TABLES));
    html.push_str("</body>\n</html>\n");
    html
}

/// Who callers are is nobody's business.
fn is_public(matches: &MatchSetup) -> bool {
    let MatchSetup {
        caller,
        team,
        user,
        model: _,
        route: _,
    } = matches;
    caller.is_none() && team.is_none() && user.is_none()
}

fn row(policy: &PolicySetup) -> Value {
    let or_else = |words: Vec<String>, joint: &str, nothing: &str| match words {
        none if none.is_empty() => nothing.to_owned(),
        some => some.join(joint),
    };
    context! {
        policy => policy.name.as_str(),
        amounts => policy_words::limits(policy).join("; "),
        counted_for => policy_words::counted_for(policy.per),
        applies_to => or_else(policy_words::applies_to(&policy.matches), " and ", "every request"),
        terms => or_else(policy_words::terms(policy), "; ", "none"),
    }
}

/// A file as it is, but for the end of its last line, which the template has.
fn example_file(text: &str) -> Value {
    Value::from_safe_string(text.trim_end_matches('\n').to_owned())
}

/// Text that means itself in the middle of a line of Markdown, also in a table.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '~' | '[' | ']' | '<' | '>' | '&' | '|' => {
                // Writing to a String can't fail.
                let _ = write!(escaped, "\\{c}");
            }
            // The end of a line would be the end of the row.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
