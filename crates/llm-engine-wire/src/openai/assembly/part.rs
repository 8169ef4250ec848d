//! JSON values that grow. A chunk says what is added to a text or a list, and otherwise what a value is from now on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::AssemblyError;
use crate::object::push_string;

/// One value.
#[derive(Debug)]
pub(super) enum Part {
    /// What was said last, in JSON.
    Last(String),
    /// A text, as JSON has it between the quotes.
    Text(String),
    /// A list that only grows, as JSON has it between the brackets.
    List(String),
    /// A list whose objects grow, by their `index`.
    Items(BTreeMap<u64, Part>),
    /// An object.
    Object(Fields),
}

/// The fields of an object in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, Part)>);

/// How much may still be kept.
#[derive(Debug)]
pub(super) struct Room(usize);

/// Texts of a message that come as a whole.
const WHOLE_TEXTS: [&str; 4] = ["role", "type", "id", "name"];
/// Objects within objects are looked into so deep; what is deeper is taken as a whole.
const DEEPEST: usize = 16;
/// No answer has objects of so many fields, which are looked through for each that comes.
const MOST_FIELDS: usize = 1024;
/// What a field or an item takes beside its text.
const ENTRY_BYTES: usize = 128;

type Done = Result<(), AssemblyError>;

impl Part {
    pub(super) fn last(json: &str) -> Self {
        Self::Last(json.to_owned())
    }

    pub(super) fn null() -> Self {
        Self::last("null")
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Last(json) if json == "null")
    }

    /// The last that is not null counts.
    pub(super) fn set(&mut self, json: &str, room: &mut Room) -> Done {
        if json == "null" {
            return Ok(());
        }
        match self {
            Self::Last(last) if last == json => Ok(()),
            Self::Last(last) => {
                room.give(last.len());
                room.take(json.len())?;
                // Not into the old one, which would stay as large as it ever was.
                *last = json.to_owned();
                Ok(())
            }
            _ => {
                room.take(json.len())?;
                *self = Self::last(json);
                Ok(())
            }
        }
    }

    /// The first counts that says something.
    pub(super) fn set_first(&mut self, json: &str, room: &mut Room) -> Done {
        let says_nothing = |json: &str| matches!(json, "null" | r#""""# | "0");
        match self {
            Self::Last(last) if !says_nothing(last) => Ok(()),
            _ => self.set(json, room),
        }
    }

    /// What a delta says of it, under that name: texts, lists and objects grow.
    pub(super) fn merge(&mut self, name: &str, json: &str, room: &mut Room) -> Done {
        self.merge_to(DEEPEST, name, json, room)
    }

    fn merge_to(&mut self, depth: usize, name: &str, json: &str, room: &mut Room) -> Done {
        match json.as_bytes().first() {
            // Some servers say an empty one from the second chunk on.
            Some(b'"') if WHOLE_TEXTS.contains(&name) && json == r#""""# && !self.is_null() => Ok(()),
            Some(b'"') if WHOLE_TEXTS.contains(&name) => self.set(json, room),
            Some(b'"') => self.push_text(inside(json), room),
            Some(b'{') if depth > 0 => self.merge_object(depth - 1, members(json)?, room),
            Some(b'[') if depth > 0 => self.merge_items(depth - 1, json, room),
            _ => self.set(json, room),
        }
    }

    /// A text grows by this, as JSON has it between the quotes.
    pub(super) fn push_text(&mut self, added: &str, room: &mut Room) -> Done {
        room.take(added.len())?;
        match self {
            Self::Text(text) => text.push_str(added),
            _ => *self = Self::Text(added.to_owned()),
        }
        Ok(())
    }

    /// The field of that name of an object, null if it was not there.
    pub(super) fn field(&mut self, name: &str, room: &mut Room) -> Result<&mut Self, AssemblyError> {
        if !matches!(self, Self::Object(_)) {
            *self = Self::Object(Fields::default());
        }
        match self {
            Self::Object(fields) => fields.named(name, room),
            other => Ok(other),
        }
    }

    fn merge_object(&mut self, depth: usize, added: Members<'_>, room: &mut Room) -> Done {
        let mut fields = self.take_object();
        for (name, json) in added {
            fields.named(&name, room)?.merge_to(depth, &name, json, room)?;
        }
        *self = Self::Object(fields);
        Ok(())
    }

    /// Objects with an `index` grow, and lose it, since a whole list has none; others stand behind those that are there.
    fn merge_items(&mut self, depth: usize, json: &str, room: &mut Room) -> Done {
        let mut items = match self {
            Self::Items(items) => take(items),
            _ => BTreeMap::new(),
        };
        for json in elements(json)? {
            let mut fields = if json.starts_with('{') {
                members(json)?
            } else {
                Vec::new()
            };
            let place = fields.iter().position(|(name, _)| name == "index");
            let index = place.and_then(|place| fields[place].1.parse().ok());
            let next = || {
                items
                    .last_key_value()
                    .map_or(Some(0), |(last, _)| last.checked_add(1))
            };
            let index_or_next = index.or_else(next).ok_or(AssemblyError::TooLarge)?;
            if !items.contains_key(&index_or_next) {
                room.take_entry("")?;
            }
            let item = items.entry(index_or_next).or_insert_with(Self::null);
            match place.filter(|_| index.is_some()) {
                Some(place) => {
                    fields.remove(place);
                    item.merge_object(depth, fields, room)?;
                }
                None => item.set(json, room)?,
            }
        }
        *self = Self::Items(items);
        Ok(())
    }

    /// A list grows; of all else the last counts.
    pub(super) fn append(&mut self, json: &str, room: &mut Room) -> Done {
        if !json.starts_with('[') {
            return self.set(json, room);
        }
        let added = inside(json).trim_ascii();
        room.take(added.len() + 1)?;
        match self {
            Self::List(list) => {
                if !list.is_empty() && !added.is_empty() {
                    list.push(',');
                }
                list.push_str(added);
            }
            _ => *self = Self::List(added.to_owned()),
        }
        Ok(())
    }

    /// The lists of an object grow.
    pub(super) fn append_within(&mut self, json: &str, room: &mut Room) -> Done {
        if !json.starts_with('{') {
            return self.set(json, room);
        }
        let mut fields = self.take_object();
        for (name, json) in members(json)? {
            fields.named(&name, room)?.append(json, room)?;
        }
        *self = Self::Object(fields);
        Ok(())
    }

    /// What of an object is there, to be put back when it has grown.
    fn take_object(&mut self) -> Fields {
        match self {
            Self::Object(fields) => take(fields),
            _ => Fields::default(),
        }
    }

    pub(super) fn write(&self, text: &mut String) {
        match self {
            Self::Last(json) => text.push_str(json),
            Self::Text(inside) => {
                text.push('"');
                text.push_str(inside);
                text.push('"');
            }
            Self::List(inside) => {
                text.push('[');
                text.push_str(inside);
                text.push(']');
            }
            Self::Items(items) => push_list(text, items.values(), |text, item| item.write(text)),
            Self::Object(fields) => fields.write(text),
        }
    }
}

impl Fields {
    pub(super) fn preset<const N: usize>(fields: [(&str, Part); N]) -> Self {
        Self(fields.map(|(name, part)| (name.to_owned(), part)).into())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.0.iter().map(|(name, part)| (name.as_str(), part))
    }

    /// The field of that name, null if it was not there.
    pub(super) fn named(&mut self, name: &str, room: &mut Room) -> Result<&mut Part, AssemblyError> {
        let place = self.0.iter().position(|(other, _)| other == name);
        let place = match place {
            Some(place) => place,
            None if self.0.len() >= MOST_FIELDS => return Err(AssemblyError::TooLarge),
            None => {
                room.take_entry(name)?;
                self.0.push((name.to_owned(), Part::null()));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[place].1)
    }

    pub(super) fn write(&self, text: &mut String) {
        text.push('{');
        for (name, part) in self.iter() {
            push_name(text, name);
            part.write(text);
        }
        text.push('}');
    }
}

impl Room {
    pub(super) fn of(bytes: usize) -> Self {
        Self(bytes)
    }

    pub(super) fn left(&self) -> usize {
        self.0
    }

    pub(super) fn take_entry(&mut self, name: &str) -> Done {
        self.take(ENTRY_BYTES + name.len())
    }

    fn take(&mut self, bytes: usize) -> Done {
        self.0 = self.0.checked_sub(bytes).ok_or(AssemblyError::TooLarge)?;
        Ok(())
    }

    fn give(&mut self, bytes: usize) {
        self.0 += bytes;
    }
}

/// Appends the name of the next field of an object.
pub(super) fn push_name(text: &mut String, name: &str) {
    if !text.ends_with('{') {
        text.push(',');
    }
    push_string(text, name);
    text.push(':');
}

pub(super) fn push_list<T>(
    text: &mut String,
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut String, T),
) {
    text.push('[');
    for (place, item) in items.enumerate() {
        if place > 0 {
            text.push(',');
        }
        write(text, item);
    }
    text.push(']');
}

/// What is between the quotes or brackets.
fn inside(json: &str) -> &str {
    &json[1..json.len() - 1]
}

/// The values of a list, in JSON.
pub(super) fn elements(json: &str) -> Result<Vec<&str>, serde_json::Error> {
    let elements: Vec<&RawValue> = serde_json::from_str(json)?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

/// The fields of an object, their values in JSON.
pub(super) fn members(json: &str) -> Result<Members<'_>, serde_json::Error> {
    let MembersOf(members) = serde_json::from_str(json)?;
    Ok(members)
}

pub(super) type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

struct MembersOf<'a>(Members<'a>);

/// A name is only copied if there are escapes in it.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for MembersOf<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = MembersOf<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Name(name), json)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, json.get()));
                }
                Ok(MembersOf(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}
