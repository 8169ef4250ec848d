//! The whole answer that a stream of chunks amounts to.
//!
//! It stays JSON text throughout. The texts of two strings, or of two lists, one after the other are the text of both
//! together: so no character is unescaped and no number read, and what nobody here knows comes out as it came in.

mod part;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::json;

use self::part::{Fields, Members, Part, Room, elements, members, push_list, push_name};
use super::{Kind, Usage};
use crate::object::push_string;

/// A whole answer that is put together from the chunks of a stream, for a caller that did not ask for one.
#[derive(Debug)]
pub struct Assembly {
    kind: Kind,
    /// All but the choices, in the order of a whole answer, and behind them those that nobody here knows.
    fields: Fields,
    choices: BTreeMap<u32, Fields>,
    room: Room,
    usual: Option<Usual>,
}

/// A chunk that does nothing but add to the text of one answer. Most are alike but for that text.
#[derive(Debug)]
struct Usual {
    /// Its JSON up to the text and from there on.
    before: String,
    after: String,
    choice: u32,
}

/// Why an answer can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A chunk is not one.
    #[error("not a chunk of an answer: {0}")]
    Json(#[from] serde_json::Error),
    /// It would be longer than [`Assembly::MOST_BYTES`], or have an object of thousands of fields.
    #[error("the answer is too large to be put together")]
    TooLarge,
}

impl Assembly {
    /// The largest answer.
    pub const MOST_BYTES: usize = 32 * 1024 * 1024;

    /// The answer to a request of that route, of which nothing has come yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let object = match kind {
            Kind::Chat => r#""chat.completion""#,
            Kind::Completion => r#""text_completion""#,
            Kind::Embedding => r#""list""#,
        };
        let fields = Fields::preset([
            ("id", Part::last(r#""""#)),
            ("object", Part::last(object)),
            ("created", Part::last("0")),
            ("model", Part::null()),
            ("choices", Part::null()),
            ("usage", Part::null()),
        ]);
        Self {
            kind,
            fields,
            choices: BTreeMap::new(),
            room: Room::of(Self::MOST_BYTES),
            usual: None,
        }
    }

    /// Adds a chunk that is as one before but for its text, without parsing it. Returns whether there is a text; `None` if it is
    /// another kind of chunk, which is left to [`Self::add`].
    ///
    /// # Errors
    /// As there.
    pub fn add_usual(&mut self, chunk: &str) -> Result<Option<bool>, AssemblyError> {
        let Some(usual) = &self.usual else {
            return Ok(None);
        };
        let text = chunk.strip_prefix(&*usual.before);
        let text = text.and_then(|text| text.strip_suffix(&*usual.after));
        // What stands between them is a text as long as nothing in it means something else.
        let is_plain = |text: &&str| {
            !text
                .bytes()
                .any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\'))
        };
        let Some(text) = text.filter(is_plain) else {
            return Ok(None);
        };
        let Some(choice) = self.choices.get_mut(&usual.choice) else {
            return Ok(None);
        };
        let part = match self.kind {
            Kind::Chat => choice
                .named("message", &mut self.room)?
                .field("content", &mut self.room)?,
            Kind::Completion | Kind::Embedding => choice.named("text", &mut self.room)?,
        };
        part.push_text(text, &mut self.room)?;
        Ok(Some(!text.is_empty()))
    }

    /// Adds what a chunk says, given as its JSON. Whether it is an error was asked before.
    ///
    /// # Errors
    /// [`AssemblyError`], after which the answer is not whole.
    pub fn add(&mut self, chunk: &str) -> Result<(), AssemblyError> {
        let (fields, room) = (&mut self.fields, &mut self.room);
        let members = members(chunk)?;
        self.usual = Usual::of(self.kind, chunk, &members);
        for (name, json) in members {
            match &*name {
                // The last one pads a chunk, so that its length does not tell how long the text is.
                "object" | "model" | "obfuscation" => {}
                "choices" if json == "null" => {}
                "choices" => {
                    for choice in elements(json)? {
                        add_choice(self.kind, &mut self.choices, choice, room)?;
                    }
                }
                "id" | "created" => fields.named(&name, room)?.set_first(json, room)?,
                _ => fields.named(&name, room)?.set(json, room)?,
            }
        }
        Ok(())
    }

    /// The answer, in JSON, under that name of the model. If no chunk told a usage, it is this one.
    #[must_use]
    pub fn finish(self, model: &str, usage: Usage) -> String {
        let mut text = String::with_capacity(Self::MOST_BYTES.saturating_sub(self.room.left()) + 1024);
        text.push('{');
        for (name, part) in self.fields.iter() {
            push_name(&mut text, name);
            match name {
                "model" => push_string(&mut text, model),
                "choices" => push_list(&mut text, self.choices.values(), |text, choice| {
                    choice.write(text);
                }),
                "usage" if part.is_null() => text.push_str(&json!(usage).to_string()),
                _ => part.write(&mut text),
            }
        }
        text.push('}');
        text
    }
}

impl Usual {
    /// `None` of a chunk in which something else grows as well, or that may say so: what is said of it twice would count twice.
    fn of(kind: Kind, chunk: &str, fields: &Members<'_>) -> Option<Self> {
        let mut choices = None;
        for (name, json) in fields {
            match &**name {
                "choices" if choices.replace(*json).is_some() => return None,
                "usage" | "error" if *json != "null" => return None,
                _ => {}
            }
        }
        let [choice] = elements(choices?).ok()?.try_into().ok()?;
        let (mut text, mut index) = (None, 0);
        for (name, json) in members(choice).ok()? {
            match (&*name, json) {
                ("index", json) => index = json.parse().ok()?,
                ("delta", json) if kind == Kind::Chat => {
                    for (name, json) in members(json).ok()? {
                        match (&*name, json) {
                            ("content", json) if text.is_none() => text = Some(json),
                            ("role", _) | (_, "null") => {}
                            _ => return None,
                        }
                    }
                }
                ("text", json) if kind == Kind::Completion && text.is_none() => text = Some(json),
                (_, "null") => {}
                _ => return None,
            }
        }
        let text = text.filter(|text| text.starts_with('"'))?;
        let start = text.as_ptr().addr() - chunk.as_ptr().addr() + 1;
        let end = start + text.len() - 2;
        Some(Self {
            before: chunk[..start].to_owned(),
            after: chunk[end..].to_owned(),
            choice: index,
        })
    }
}

/// Adds what a chunk says to one of the answers.
fn add_choice(
    kind: Kind,
    choices: &mut BTreeMap<u32, Fields>,
    json: &str,
    room: &mut Room,
) -> Result<(), AssemblyError> {
    let members = members(json)?;
    let index = members.iter().find(|(name, _)| name == "index");
    let index: u32 = index.map_or(Ok(0), |(_, json)| serde_json::from_str(json))?;
    let choice = match choices.entry(index) {
        Entry::Occupied(choice) => choice.into_mut(),
        Entry::Vacant(place) => {
            room.take_entry("")?;
            place.insert(empty_choice(kind, index))
        }
    };
    let is_chat = kind == Kind::Chat;
    for (name, json) in members {
        match &*name {
            "index" => {}
            "delta" if is_chat => choice.named("message", room)?.merge(&name, json, room)?,
            // Some servers say there once more what the delta says.
            "message" | "text" if is_chat => {}
            "text" => choice.named("text", room)?.merge(&name, json, room)?,
            "logprobs" => choice.named("logprobs", room)?.append_within(json, room)?,
            // The ids of what was generated, as vLLM gives them if it is asked to.
            "token_ids" => choice.named("token_ids", room)?.append(json, room)?,
            _ => choice.named(&name, room)?.set(json, room)?,
        }
    }
    Ok(())
}

fn empty_choice(kind: Kind, index: u32) -> Fields {
    let said = match kind {
        Kind::Chat => {
            let role = Part::last(r#""assistant""#);
            let message = Fields::preset([("role", role), ("content", Part::null())]);
            ("message", Part::Object(message))
        }
        Kind::Completion | Kind::Embedding => ("text", Part::Text(String::new())),
    };
    Fields::preset([
        ("index", Part::last(&index.to_string())),
        said,
        ("logprobs", Part::null()),
        ("finish_reason", Part::null()),
    ])
}
