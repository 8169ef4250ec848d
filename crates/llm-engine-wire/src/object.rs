//! A JSON object that is passed on: its fields are known by name, and written again as they came, to the last digit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{AddAssign, Range};
use std::sync::OnceLock;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The fields of an object in their order. Of those that have the same name, there is the last.
#[derive(Debug, Clone)]
pub struct Object {
    text: Box<str>,
    fields: Vec<Field>,
    /// Where they are, in the order of their names. Empty if there are so few that they are looked through.
    by_name: Vec<usize>,
}

/// So many fields are looked through faster than searched.
const FEW: usize = 24;

#[derive(Debug, Clone)]
struct Field {
    name: FieldName,
    place: Range<usize>,
    /// `None` if nobody has counted.
    texts: Option<Texts>,
    /// Read when somebody asks for it.
    value: OnceLock<Box<Value>>,
}

#[derive(Debug, Clone)]
enum FieldName {
    /// Between quotation marks at this place of the text.
    At(Range<usize>),
    /// What it means, because it has escapes.
    Meant(Box<str>),
}

/// How much is said in a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Texts {
    /// Bytes of all texts in it.
    pub bytes: usize,
    /// Numbers in it, which may be the ids of tokens.
    pub numbers: usize,
}

/// What a new value of a field is: JSON, or `None` for a field that is left out.
pub type Change<'a> = (&'a str, Option<&'a str>);

/// Why a text is not the text of an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It is no JSON.
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    /// It is JSON, but of another type.
    #[error("not a JSON object")]
    OtherType,
}

impl Object {
    /// Reads an object.
    ///
    /// # Errors
    /// [`ObjectError`] if any part of the text is not what [`Value`] could be read from, or if it is no object.
    pub fn parse(text: &[u8]) -> Result<Self, ObjectError> {
        Self::read(text, true)
    }

    /// Reads an object that is passed on to somebody else, who has to make sense of it: it is well-formed, but there may be
    /// numbers in it that are too large, or halves of characters. Of such a value [`Self::value`] has the text.
    ///
    /// # Errors
    /// [`ObjectError`] if it is not well-formed, or if it is no object.
    pub fn parse_passing(text: &[u8]) -> Result<Self, ObjectError> {
        Self::read(text, false)
    }

    fn read(text: &[u8], is_examined: bool) -> Result<Self, ObjectError> {
        let fields = std::str::from_utf8(text).ok().and_then(|text| {
            let mut reader = serde_json::Deserializer::from_str(text);
            let places = Places {
                of: text,
                is_examined,
            };
            let fields = places.deserialize(&mut reader).ok()?;
            reader.end().ok()?;
            Some((text, fields))
        });
        match fields {
            Some((text, fields)) => Ok(Self::of(text, fields)),
            // Only here what is wrong is found by its line and column.
            None => Err(match serde_json::from_slice::<Value>(text) {
                Ok(_) => ObjectError::OtherType,
                Err(error) => ObjectError::Json(error),
            }),
        }
    }

    fn of(text: &str, mut fields: Vec<Field>) -> Self {
        let mut by_name = in_order(text, &fields);
        let is_same = |pair: &[usize]| fields[pair[0]].name(text) == fields[pair[1]].name(text);
        let has_same = if fields.len() <= FEW {
            let before = |index: usize, field: &Field| {
                fields[..index]
                    .iter()
                    .any(|one| one.name(text) == field.name(text))
            };
            fields
                .iter()
                .enumerate()
                .any(|(index, field)| before(index, field))
        } else {
            by_name.windows(2).any(is_same)
        };
        if has_same {
            let mut unique: Vec<Field> = Vec::new();
            let mut first = BTreeMap::new();
            for field in fields {
                match first.get(field.name(text)) {
                    Some(&index) => unique[index] = field,
                    None => {
                        first.insert(field.name(text).to_owned(), unique.len());
                        unique.push(field);
                    }
                }
            }
            fields = unique;
            by_name = in_order(text, &fields);
        }
        Self {
            text: text.into(),
            fields,
            by_name,
        }
    }

    fn field(&self, name: &str) -> Option<&Field> {
        if self.by_name.is_empty() {
            return self.fields.iter().find(|field| field.name(&self.text) == name);
        }
        let found = self
            .by_name
            .binary_search_by(|index| self.fields[*index].name(&self.text).cmp(name));
        found.ok().map(|found| &self.fields[self.by_name[found]])
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name(&self.text))
    }

    /// The JSON of a field, as it came.
    #[must_use]
    pub fn json(&self, name: &str) -> Option<&str> {
        let field = self.field(name)?;
        Some(&self.text[field.place.clone()])
    }

    /// The text that a field is. `None` also for one of another type.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let json = self.json(name)?;
        match plain_text(json) {
            Some(text) => Some(text.into()),
            None => serde_json::from_str(json).ok().map(Cow::Owned),
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        let field = self.field(name)?;
        let json = &self.text[field.place.clone()];
        // It was readable before; but `serde_json` keeps one name for itself, `$serde_json::private::RawValue`, and an object with
        // that is none to it. Whoever asks finds a text then, where it does not want one.
        let read = || serde_json::from_str(json).unwrap_or_else(|_| Value::from(json));
        Some(field.value.get_or_init(|| Box::new(read())))
    }

    /// How much is said in a field.
    #[must_use]
    pub fn texts(&self, name: &str) -> Texts {
        let Some(field) = self.field(name) else {
            return Texts::default();
        };
        let count = || serde_json::from_str(&self.text[field.place.clone()]).unwrap_or_default();
        field.texts.unwrap_or_else(count)
    }

    /// The object with these fields changed where they stand, or added at the end.
    #[must_use]
    pub fn with(&self, changes: &[Change<'_>]) -> String {
        let added: usize = changes
            .iter()
            .map(|(name, json)| name.len() + json.map_or(0, str::len) + 4)
            .sum();
        let mut text = String::with_capacity(self.text.len() + added);
        text.push('{');
        for field in &self.fields {
            let name = field.name(&self.text);
            let changed = changes.iter().find(|(changed, _)| *changed == name);
            let json = changed.map_or(Some(&self.text[field.place.clone()]), |(_, json)| *json);
            let Some(json) = json else { continue };
            let as_it_came = |text: &mut String| match &field.name {
                FieldName::At(place) => text.push_str(&self.text[place.start - 1..=place.end]),
                FieldName::Meant(name) => push_string(text, name),
            };
            push(&mut text, as_it_came, json);
        }
        for (name, json) in changes {
            if let Some(json) = json
                && self.field(name).is_none()
            {
                push(&mut text, |text| push_string(text, name), json);
            }
        }
        text.push('}');
        text
    }
}

/// By what would be written.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.with(&[]) == other.with(&[])
    }
}

impl Field {
    fn name<'a>(&'a self, text: &'a str) -> &'a str {
        match &self.name {
            FieldName::At(place) => &text[place.clone()],
            FieldName::Meant(name) => name,
        }
    }
}

fn in_order(text: &str, fields: &[Field]) -> Vec<usize> {
    if fields.len() <= FEW {
        return Vec::new();
    }
    let mut by_name: Vec<usize> = (0..fields.len()).collect();
    by_name.sort_by(|a, b| fields[*a].name(text).cmp(fields[*b].name(text)));
    by_name
}

fn push(text: &mut String, name: impl FnOnce(&mut String), json: &str) {
    if text.len() > 1 {
        text.push(',');
    }
    name(text);
    text.push(':');
    text.push_str(json);
}

/// Appends a text as JSON.
pub(crate) fn push_string(text: &mut String, string: &str) {
    if string
        .bytes()
        .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
    {
        text.push('"');
        text.push_str(string);
        text.push('"');
    } else {
        text.push_str(&Value::from(string).to_string());
    }
}

/// A text as JSON.
#[must_use]
pub fn string(string: &str) -> String {
    let mut text = String::with_capacity(string.len() + 2);
    push_string(&mut text, string);
    text
}

/// Finds the fields of an object in the text that it is read from.
struct Places<'a> {
    of: &'a str,
    /// Whether their values are looked into.
    is_examined: bool,
}

impl<'de> DeserializeSeed<'de> for Places<'_> {
    type Value = Vec<Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Places<'_> {
    type Value = Vec<Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(8);
        while let Some(name) = members.next_key_seed(NameIn(self.of))? {
            let json = members.next_value::<&RawValue>()?.get();
            // The raw value is only known to be well-formed: numbers may be too large, halves of characters stand alone, and
            // all of it be nested deeper than there is stack for.
            let texts = match Texts::at_a_glance(json) {
                None if self.is_examined => Some(serde_json::from_str(json).map_err(A::Error::custom)?),
                texts => texts,
            };
            let field = Field {
                name,
                place: place(json, self.of),
                texts,
                value: OnceLock::new(),
            };
            fields.push(field);
        }
        Ok(fields)
    }
}

/// Where a part of a text is.
pub(crate) fn place(part: &str, text: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

/// The name of a field of the object that this text is.
struct NameIn<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for NameIn<'_> {
    type Value = FieldName;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldName, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameIn<'_> {
    type Value = FieldName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<FieldName, E> {
        Ok(FieldName::At(place(name, self.0)))
    }

    fn visit_str<E>(self, name: &str) -> Result<FieldName, E> {
        Ok(FieldName::Meant(name.into()))
    }
}

/// What a JSON text says, if it is well-formed and has no escapes.
fn plain_text(json: &str) -> Option<&str> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

impl Texts {
    /// Of what is well-formed and simple, as most values are. `None`: it must be read.
    fn at_a_glance(json: &str) -> Option<Self> {
        if let Some(text) = plain_text(json) {
            let bytes = text.len();
            return Some(Self { bytes, numbers: 0 });
        }
        match json.as_bytes() {
            b"true" | b"false" | b"null" => Some(Self::default()),
            // So few digits are in range.
            [b'-' | b'0'..=b'9', rest @ ..] if rest.len() < 16 && !json.contains(['e', 'E']) => {
                Some(Self { bytes: 0, numbers: 1 })
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Count)
    }
}

/// Counts what is in a value without keeping any of it.
struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Texts, E> {
        Ok(Texts::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Texts, E> {
        Ok(Texts::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Texts, E> {
        Ok(Texts { bytes: 0, numbers: 1 })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Texts, E> {
        Ok(Texts { bytes: 0, numbers: 1 })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Texts, E> {
        Ok(Texts { bytes: 0, numbers: 1 })
    }

    fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
        let bytes = text.len();
        Ok(Texts { bytes, numbers: 0 })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
        let mut all = Texts::default();
        while let Some(item) = items.next_element()? {
            all += item;
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Texts, A::Error> {
        let mut all = Texts::default();
        while let Some((_, value)) = members.next_entry::<Texts, Texts>()? {
            all += value;
        }
        Ok(all)
    }
}

impl AddAssign for Texts {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.numbers += other.numbers;
    }
}
