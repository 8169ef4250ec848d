//! How long prompts are, which is said by how many bytes they have: the gateway cannot know better either.

use serde::Deserialize;

const BYTES_PER_TOKEN: u64 = 3;
const TOKENS_PER_MESSAGE: u64 = 8;

/// A message, as far as it says something.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    role: String,
    content: String,
}

/// The tokens of a chat.
pub(crate) fn chat_tokens(messages: &[Message]) -> u64 {
    let bytes = messages
        .iter()
        .map(|message| message.role.len() + message.content.len());
    bytes_tokens(bytes.sum()) + TOKENS_PER_MESSAGE * (messages.len() as u64 + 1)
}

/// The tokens of a text.
pub(crate) fn text_tokens(text: &str) -> u64 {
    bytes_tokens(text.len()).max(1)
}

/// What the only message of a chat says that has so many tokens, or a few more if they are too few for a chat.
pub(crate) fn content(tokens: u64) -> String {
    let bytes = tokens
        .saturating_sub(2 * TOKENS_PER_MESSAGE)
        .saturating_mul(BYTES_PER_TOKEN);
    let bytes = bytes.saturating_sub(ROLE.len() as u64).max(1);
    "a".repeat(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Who sends that message.
pub(crate) const ROLE: &str = "user";

fn bytes_tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_has_the_tokens_that_it_was_made_for() {
        let tokens = |asked| {
            let (role, content) = (ROLE.to_owned(), content(asked));
            chat_tokens(&[Message { role, content }])
        };
        for asked in [18, 19, 500, 4_000] {
            assert_eq!(tokens(asked), asked);
        }
        assert_eq!(tokens(1), 18);
    }
}
