/// Joins the bytes of tokens into text. A character may be spread over several tokens.
#[derive(Debug, Default)]
pub(super) struct Utf8Joiner {
    /// The beginning of a character, up to three bytes.
    incomplete: Vec<u8>,
}

impl Utf8Joiner {
    /// The characters that are complete with these bytes. What can't be UTF-8 becomes U+FFFD.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let joined;
        let mut rest = if self.incomplete.is_empty() {
            bytes
        } else {
            self.incomplete.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.incomplete);
            &joined
        };
        let mut text = String::with_capacity(rest.len());
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            text.push_str(std::str::from_utf8(valid).unwrap_or_default());
            let Some(length) = error.error_len() else {
                self.incomplete = invalid.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &invalid[length..];
        }
    }

    /// What stands for a character that never became complete.
    pub(super) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.incomplete).is_empty() {
            ""
        } else {
            "\u{FFFD}"
        }
    }
}
