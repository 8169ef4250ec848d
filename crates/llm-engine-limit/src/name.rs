use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What whoever operates the service has named: a policy, a caller, a model.
///
/// It is copied as a number is: a request copies dozens of them, and if it were counted who has them, all threads would write these
/// counts all the time. So what has been a name once stays in memory until the process ends, and configurations name a few things
/// only: no name must come from a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Name(&'static str);

static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(text) {
            return Self(name);
        }
        let name: &'static str = Box::leak(text.into());
        names.insert(name);
        Self(name)
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_kept_once() {
        let name = |text: &str| Name::from(text);
        assert!(std::ptr::eq(
            name("once").as_str(),
            name(&String::from("once")).as_str()
        ));
        assert_eq!(name("once"), name("once"));
        assert_ne!(name("once"), name("twice"));
        assert_eq!(&*name("once"), "once");
        assert_eq!(
            format!("{:>6}, {:?}", name("once"), name("once")),
            "  once, \"once\""
        );
    }
}
