use std::collections::HashMap;

/// The numbers by which the limiter knows callers, teams and models. A name keeps its number as long as the process
/// lives, also over a reload that takes it away and brings it back.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) callers: Numbers,
    /// A caller without a team is a team of its own.
    pub(crate) teams: Numbers,
    /// By their first name.
    pub(crate) models: Numbers,
    /// Further names of models.
    aliases: HashMap<String, u32>,
}

impl Names {
    /// Gives a model its number, by whatever name it is asked for.
    pub(crate) fn name_model(&mut self, name: &str, aliases: &[String]) {
        let number = self.models.number(name);
        self.aliases
            .extend(aliases.iter().map(|alias| (alias.clone(), number)));
    }

    /// The number of the model that has this name.
    pub(crate) fn model(&mut self, name: &str) -> u32 {
        match self.aliases.get(name) {
            Some(number) => *number,
            None => self.models.number(name),
        }
    }
}

/// Names in the order in which they came up.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    by_name: HashMap<String, u32>,
    names: Vec<String>,
}

impl Numbers {
    /// The name's number, a new one if it has none.
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.find(name) {
            return number;
        }
        // Only what an operator has written down gets one.
        let number = u32::try_from(self.names.len()).expect("fewer than 2^32 names");
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), number);
        number
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(String::as_str)
    }
}

/// What stands for a caller's team among the names of teams.
pub(crate) fn team_name(caller: &str, team: Option<&str>) -> String {
    match team {
        Some(team) => format!("team {team}"),
        None => format!("caller {caller}"),
    }
}
