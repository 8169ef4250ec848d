use serde_json::{Map, Value};

use super::{Loc, Problem};

/// Reads the fields of an object one by one and collects what is wrong with them.
#[derive(Debug)]
pub struct Fields<'a> {
    fields: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// Nothing read yet, nothing wrong yet.
    #[must_use]
    pub fn new(fields: &'a Map<String, Value>) -> Self {
        Self {
            fields,
            problems: Vec::new(),
        }
    }

    /// A field that must be there. `None` means that a problem was noted.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, Vec<Problem>>,
    ) -> Option<T> {
        match self.fields.get(name) {
            Some(value) => self.read(name, value, read),
            None => {
                let loc = vec![Loc::Name("body"), Loc::Name(name)];
                self.problems
                    .push(Problem::missing(loc, Value::Object(self.fields.clone())));
                None
            }
        }
    }

    /// A field that may be absent or null.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, Vec<Problem>>,
    ) -> Option<T> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        self.read(name, value, read)
    }

    /// Everything that was wrong, in the order of reading.
    #[must_use]
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        value: &Value,
        read: impl FnOnce(&Value) -> Result<T, Vec<Problem>>,
    ) -> Option<T> {
        match read(value) {
            Ok(value) => Some(value),
            Err(problems) => {
                self.problems.extend(problems.into_iter().map(|mut problem| {
                    problem.loc.splice(0..0, [Loc::Name("body"), Loc::Name(name)]);
                    problem
                }));
                None
            }
        }
    }
}
