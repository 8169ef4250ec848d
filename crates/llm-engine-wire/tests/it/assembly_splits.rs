//! However a whole answer is split into chunks, it comes back.

use llm_engine_wire::openai::{Assembly, Kind, Usage};
use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::{Map, Value, json};

use crate::json::{any_text, any_value};

/// What decides how an answer is split; where there is no more of it, not at all.
struct Dice(std::vec::IntoIter<u8>);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) % sides.max(1)
    }

    /// Some pieces in their order, one at least.
    fn split<T: Clone>(&mut self, all: &[T]) -> Vec<Vec<T>> {
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        for one in all {
            if self.below(3) == 1 {
                pieces.push(std::mem::take(&mut piece));
            }
            piece.push(one.clone());
        }
        pieces.push(piece);
        pieces
    }

    fn split_text(&mut self, text: &str) -> Vec<Value> {
        let characters: Vec<char> = text.chars().collect();
        let pieces = self.split(&characters);
        pieces
            .into_iter()
            .map(|piece| piece.into_iter().collect::<String>().into())
            .collect()
    }

    fn split_list(&mut self, list: &Value) -> Vec<Value> {
        let items = list.as_array().unwrap();
        self.split(items).into_iter().map(Value::from).collect()
    }

    /// All of them, each in its own order.
    fn shuffle(&mut self, mut queues: Vec<Vec<Value>>) -> Vec<Value> {
        let mut all = Vec::new();
        queues.retain(|queue| !queue.is_empty());
        while !queues.is_empty() {
            let chosen = self.below(queues.len());
            all.push(queues[chosen].remove(0));
            queues.retain(|queue| !queue.is_empty());
        }
        all
    }
}

fn under(name: &str, values: Vec<Value>) -> Vec<Value> {
    values.into_iter().map(|value| json!({ name: value })).collect()
}

fn deltas_of_call(dice: &mut Dice, index: usize, call: &Value) -> Vec<Value> {
    let mut begin = call.clone();
    begin["function"]["arguments"] = "".into();
    let arguments = dice.split_text(call["function"]["arguments"].as_str().unwrap());
    let more = under("function", under("arguments", arguments));
    let mut all = [vec![begin], more].concat();
    for part in &mut all {
        part["index"] = index.into();
    }
    all.into_iter()
        .map(|part| json!({ "tool_calls": [part] }))
        .collect()
}

fn deltas(dice: &mut Dice, message: &Value) -> Vec<Value> {
    let mut queues = Vec::new();
    for (name, value) in message.as_object().unwrap() {
        let growing = ["content", "reasoning_content", "refusal"].contains(&name.as_str());
        match value {
            Value::String(text) if growing => queues.push(under(name, dice.split_text(text))),
            Value::Array(calls) if name == "tool_calls" => {
                let calls = calls.iter().enumerate();
                queues.extend(calls.map(|(index, call)| deltas_of_call(dice, index, call)));
            }
            value => queues.push(vec![json!({ name: value })]),
        }
    }
    dice.shuffle(queues)
}

/// The chunks' choices of one answer.
fn parts(dice: &mut Dice, choice: &Value) -> Vec<Value> {
    let mut queues = Vec::new();
    for (name, value) in choice.as_object().unwrap() {
        match (name.as_str(), value) {
            ("index", _) => {}
            ("message", message) => queues.push(under("delta", deltas(dice, message))),
            ("text", text) => queues.push(under("text", dice.split_text(text.as_str().unwrap()))),
            ("logprobs", Value::Object(lists)) => {
                for (name, list) in lists {
                    queues.push(under("logprobs", under(name, dice.split_list(list))));
                }
            }
            (name, value) => queues.push(vec![json!({ name: value })]),
        }
    }
    let mut parts = dice.shuffle(queues);
    parts.insert(0, json!({}));
    for part in &mut parts {
        part["index"] = choice["index"].clone();
    }
    parts
}

fn chunks(dice: &mut Dice, whole: &Value) -> Vec<Value> {
    let choices = whole["choices"].as_array().unwrap();
    let queues = choices.iter().map(|choice| parts(dice, choice)).collect();
    let parts = dice.shuffle(queues);
    let mut chunks: Vec<Value> = dice
        .split(&parts)
        .into_iter()
        .map(|parts| json!({ "choices": parts }))
        .collect();
    for (name, value) in whole.as_object().unwrap() {
        if name != "choices" {
            let carrier = dice.below(chunks.len());
            chunks[carrier][name] = value.clone();
        }
    }
    chunks
}

/// Fields that nobody knows, beside those that somebody does.
fn with_unknown(known: Value) -> impl Strategy<Value = Value> {
    prop::collection::vec(("x-[a-z]{1,3}", any_value()), 0..3).prop_map(move |unknown| {
        let mut known = known.as_object().cloned().unwrap_or_default();
        known.extend(unknown);
        known.into()
    })
}

fn any_call() -> impl Strategy<Value = Value> {
    let named = ("[a-z]{1,8}", "[a-z]{1,8}", any_text());
    named.prop_flat_map(|(id, name, arguments)| {
        with_unknown(
            json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }),
        )
    })
}

fn any_message() -> impl Strategy<Value = Value> {
    let text = || prop::option::of(any_text());
    let calls = prop::option::of(prop::collection::vec(any_call(), 1..4));
    (text(), text(), text(), calls).prop_flat_map(|(content, reasoning, refusal, calls)| {
        let mut message = json!({ "role": "assistant", "content": content, "refusal": refusal });
        if let Some(reasoning) = reasoning {
            message["reasoning_content"] = reasoning.into();
        }
        if let Some(calls) = calls {
            message["tool_calls"] = calls.into();
        }
        with_unknown(message)
    })
}

fn any_list() -> impl Strategy<Value = Value> {
    prop::collection::vec(any_value(), 0..5).prop_map(Value::from)
}

fn any_logprobs(names: [&'static str; 2]) -> impl Strategy<Value = Value> {
    let lists =
        (any_list(), any_list()).prop_map(move |(one, other)| json!({ names[0]: one, names[1]: other }));
    prop_oneof![Just(Value::Null), lists]
}

fn any_choice(kind: Kind) -> impl Strategy<Value = Value> {
    let (said, names) = match kind {
        Kind::Chat => (
            any_message().prop_map(|it| ("message", it)).boxed(),
            ["content", "refusal"],
        ),
        _ => (
            any_text().prop_map(|it| ("text", it.into())).boxed(),
            ["tokens", "top_logprobs"],
        ),
    };
    let finish_reason = prop::option::of("[a-z]{1,6}");
    (said, any_logprobs(names), finish_reason).prop_flat_map(|((name, said), logprobs, finish_reason)| {
        with_unknown(json!({ name: said, "logprobs": logprobs, "finish_reason": finish_reason }))
    })
}

fn any_answer() -> impl Strategy<Value = (Kind, Value)> {
    let of = |kind: Kind| {
        let object = if kind == Kind::Chat {
            "chat.completion"
        } else {
            "text_completion"
        };
        let beside = ("[a-z]{1,5}", 1..u64::MAX, any_value());
        let choices = prop::collection::vec(any_choice(kind), 0..4);
        (beside, choices).prop_flat_map(move |((id, created, usage), mut choices)| {
            for (index, choice) in choices.iter_mut().enumerate() {
                choice["index"] = index.into();
            }
            let usage = if usage.is_null() { json!(Usage::default()) } else { usage };
            with_unknown(json!({
                "id": id, "object": object, "created": created, "model": "m", "choices": choices, "usage": usage,
            }))
            .prop_map(move |answer| (kind, answer))
        })
    };
    Union::new([of(Kind::Chat).boxed(), of(Kind::Completion).boxed()])
}

proptest! {
    #[test]
    fn a_whole_answer_comes_back_from_its_chunks(
        (kind, whole) in any_answer(),
        dice in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut assembly = Assembly::new(kind);
        for chunk in chunks(&mut Dice(dice.into_iter()), &whole) {
            let chunk = chunk.to_string();
            if assembly.add_usual(&chunk).unwrap().is_none() {
                assembly.add(&chunk).unwrap();
            }
        }
        let answer: Map<String, Value> = serde_json::from_str(&assembly.finish("m", Usage::default())).unwrap();
        prop_assert_eq!(Value::from(answer), whole);
    }
}
