use std::fmt;

use llama_cpp_2::token::LlamaToken;
use llguidance::Matcher;
use toktrie::SimpleVob;

/// Says which tokens may follow, while one answer is generated.
pub(crate) struct Guide {
    matcher: Matcher,
}

/// Grammars exist whose state grows with the answer; the bound of it is a matter of memory and of the others' time.
const TOO_COMPLEX: &str = "what the answer must look like became too complex to follow";

impl Guide {
    /// A guide at its beginning.
    pub(super) fn new(matcher: Matcher) -> Self {
        Self { matcher }
    }

    /// One for another answer of the same form. They share nothing that one of them could spoil for the other.
    pub(crate) fn another(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
        }
    }

    /// The tokens that may come next, the end of the answer among them where it may end.
    ///
    /// # Errors
    /// The reason why it can't be told.
    pub(crate) fn mask(&mut self) -> Result<SimpleVob, &'static str> {
        self.matcher.compute_mask_or_eos().map_err(|error| {
            tracing::debug!(%error, "no mask");
            TOO_COMPLEX
        })
    }

    /// Takes a token that the mask allows, other than an end; true if the answer is complete and nothing can follow.
    ///
    /// # Errors
    /// The reason why the answer can't go on.
    pub(crate) fn take(&mut self, token: LlamaToken) -> Result<bool, &'static str> {
        let token = u32::try_from(token.0).map_err(|_| TOO_COMPLEX)?;
        self.matcher.consume_token(token).map_err(|error| {
            tracing::debug!(%error, "a token was not taken");
            TOO_COMPLEX
        })?;
        Ok(self.matcher.is_stopped())
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guide").finish_non_exhaustive()
    }
}
