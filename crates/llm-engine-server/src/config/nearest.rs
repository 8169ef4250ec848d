/// Names that differ by more are different words.
const LEAST_LIKENESS: f64 = 0.5;

/// The name that was probably meant.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(name, other);
    let near = names.into_iter().map(|other| (likeness(other), other));
    let near = near.filter(|(likeness, _)| *likeness >= LEAST_LIKENESS);
    near.max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

/// The parser's complaint about a word that it does not know, with the word that was meant instead of the list of all, if
/// one of them is near. Any other complaint is as it was.
pub(super) fn meant(complaint: &str) -> String {
    let Some((unknown, expected)) = complaint.split_once(", expected ") else {
        return complaint.to_owned();
    };
    let Some(word) = unknown
        .strip_prefix("unknown ")
        .and_then(|rest| rest.split('`').nth(1))
    else {
        return complaint.to_owned();
    };
    let possible = expected.split('`').skip(1).step_by(2);
    match nearest(word, possible) {
        Some(near) => format!("{unknown}; did you mean `{near}`?"),
        None => complaint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_meant() {
        assert_eq!(
            meant("unknown field `lisen`, expected one of `listen`, `models`"),
            "unknown field `lisen`; did you mean `listen`?"
        );
        assert_eq!(
            meant("unknown variant `observ`, expected `enforce` or `observe`"),
            "unknown variant `observ`; did you mean `observe`?"
        );
        assert_eq!(nearest("reserch", ["research", "sales"]), Some("research"));
    }

    #[test]
    fn what_is_not_near_is_left_as_it_was() {
        for complaint in [
            "unknown field `colour`, expected one of `listen`, `models`",
            "invalid type: string \"x\", expected u64",
            "missing field `name`",
        ] {
            assert_eq!(meant(complaint), complaint);
        }
    }
}
