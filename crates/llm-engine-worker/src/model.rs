//! The model file: what is needed of it beside decoding.

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::token::LlamaToken;

use crate::error::Error;
use crate::messages::Line;
use crate::options::Options;
use crate::refusal::Refusal;

/// A loaded model. Any thread may tokenize with it; decoding needs a context, which the engine thread owns.
#[derive(Debug)]
pub(crate) struct Model {
    llama: LlamaModel,
    template: Option<LlamaChatTemplate>,
    /// What every prompt begins with, where the model has such a token.
    bos: Option<LlamaToken>,
    /// How many different tokens there are.
    vocabulary: i32,
    /// The most bytes that one token stands for.
    longest_piece: usize,
    /// The most tokens, prompt and answer together, of one request.
    context_tokens: usize,
}

impl Model {
    /// Loads the file and checks that text can be generated with it.
    ///
    /// # Errors
    /// [`Error::NoModelFile`], [`Error::Load`], [`Error::Unservable`].
    pub(crate) fn load(backend: &LlamaBackend, options: &Options) -> Result<Self, Error> {
        let path = &options.gguf;
        if !path.is_file() {
            return Err(Error::NoModelFile { path: path.clone() });
        }
        let llama =
            LlamaModel::load_from_file(backend, path, &LlamaModelParams::default()).map_err(|source| {
                Error::Load {
                    path: path.clone(),
                    source,
                }
            })?;
        check_vocabulary(&llama)?;
        let vocab = llama.vocab();
        let vocabulary = vocab.n_tokens();
        let longest_piece = llama
            .tokens(true)
            .map(|(_, bytes)| bytes.len())
            .max()
            .unwrap_or(1)
            .max(1);
        let bos = Some(vocab.bos()).filter(|bos| (0..vocabulary).contains(&bos.0));
        let context_tokens = options.context_tokens.get().min(llama.n_ctx_train());
        Ok(Self {
            template: llama.chat_template(None).ok(),
            bos,
            vocabulary,
            longest_piece,
            context_tokens: usize::try_from(context_tokens).unwrap_or(usize::MAX),
            llama,
        })
    }

    pub(crate) fn llama(&self) -> &LlamaModel {
        &self.llama
    }

    /// The most tokens, prompt and answer together, of one request.
    pub(crate) fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    /// How many numbers an embedding has.
    pub(crate) fn dimensions(&self) -> usize {
        usize::try_from(self.llama.n_embd_out()).unwrap_or_default()
    }

    /// A token to try the context out with.
    pub(crate) fn any_token(&self) -> LlamaToken {
        self.bos.unwrap_or(LlamaToken::new(0))
    }

    /// Whether the model says with this token that the answer is complete.
    pub(crate) fn ends_answer(&self, token: LlamaToken) -> bool {
        self.llama.vocab().is_eog(token)
    }

    /// Appends the bytes that a token stands for; special tokens stand for none unless `special`.
    pub(crate) fn append_piece(&self, token: LlamaToken, special: bool, bytes: &mut Vec<u8>) {
        self.llama
            .vocab()
            .token_to_piece_into(token, bytes, special, None);
    }

    /// The bytes of one token, special tokens by their names.
    pub(crate) fn piece(&self, token: LlamaToken) -> Vec<u8> {
        self.llama.vocab().token_to_piece(token, true, None)
    }

    /// What each token of the vocabulary adds to a text, nothing for special ones; and the tokens that end an answer.
    pub(crate) fn words(&self) -> (Vec<Vec<u8>>, Vec<u32>) {
        let vocab = self.llama.vocab();
        let ends: Vec<LlamaToken> = vocab.tokens().filter(|&token| vocab.is_eog(token)).collect();
        let word = |(token, bytes): (LlamaToken, Vec<u8>)| {
            // `toktrie` has another use for 0xFF, which is in no text, and no room for longer words.
            let is_usable = !vocab.is_control(token)
                && !ends.contains(&token)
                && bytes.first() != Some(&0xFF)
                && bytes.len() <= 1000;
            if is_usable { bytes } else { Vec::new() }
        };
        let words = self.llama.tokens(false).map(word).collect();
        let ends = ends.iter().filter_map(|end| u32::try_from(end.0).ok()).collect();
        (words, ends)
    }

    /// The token of that number, if the vocabulary has it.
    pub(crate) fn token(&self, number: i64) -> Option<LlamaToken> {
        let number = i32::try_from(number).ok()?;
        (0..self.vocabulary)
            .contains(&number)
            .then(|| LlamaToken::new(number))
    }

    /// The tokens of a prompt, never none. `param` is the request's field, for the message.
    ///
    /// # Errors
    /// A 400: too long for the context, a NUL in it, or empty where the model has no token to begin with.
    pub(crate) fn tokenize(&self, param: &str, text: &str) -> Result<Vec<LlamaToken>, Refusal> {
        refuse_nul(param, text)?;
        // No token stands for more than `longest_piece` bytes, so this much text can't fit. Seeing it from the length
        // spares the tokenizer (whose time grows faster than the text) and its 32-bit lengths.
        let fewest_tokens = text.len() / self.longest_piece;
        if fewest_tokens > self.context_tokens {
            let context = self.context_tokens;
            let message = format!(
                "the prompt has more than {fewest_tokens} tokens; prompt and answer together may have {context} tokens"
            );
            return Err(Refusal::too_long(param, message));
        }
        let mut tokens = self.llama.vocab().tokenize(text.as_bytes(), true, true);
        if let Some(bos) = self.bos {
            // The chat template may have written the token that the vocabulary adds as well.
            if tokens.len() > 1 && tokens[0] == bos && tokens[1] == bos && self.llama.vocab().should_add_bos()
            {
                tokens.remove(0);
            }
            if tokens.is_empty() {
                tokens.push(bos);
            }
        }
        if tokens.is_empty() {
            return Err(Refusal::invalid(
                param,
                "the prompt is empty, and this model has no token to begin with",
            ));
        }
        if tokens
            .iter()
            .any(|token| !(0..self.vocabulary).contains(&token.0))
        {
            return Err(Refusal::invalid(
                param,
                "the prompt holds text that the model's vocabulary can't express",
            ));
        }
        Ok(tokens)
    }

    /// The prompt of a chat, with the beginning of the assistant's turn.
    ///
    /// # Errors
    /// A 400: the model has no chat template, or one that llama.cpp can't apply; or a NUL in a message.
    pub(crate) fn render(&self, lines: Vec<Line>) -> Result<String, Refusal> {
        let Some(template) = &self.template else {
            return Err(Refusal::unsupported(
                "messages",
                "a chat with this model, which has no chat template,",
            ));
        };
        let mut messages = Vec::with_capacity(lines.len());
        for line in lines {
            refuse_nul("messages", &line.content)?;
            let message = LlamaChatMessage::new(line.role.to_owned(), line.content)
                .map_err(|_| Refusal::invalid("messages", "'messages' can't hold a NUL character"))?;
            messages.push(message);
        }
        self.llama
            .apply_chat_template(template, &messages, true)
            .map_err(|_| Refusal::unsupported("messages", "the chat template of this model"))
    }
}

/// llama.cpp's chat template works on C strings, which a NUL would cut short without a word.
fn refuse_nul(param: &str, text: &str) -> Result<(), Refusal> {
    if text.contains('\0') {
        return Err(Refusal::invalid(
            param,
            format!("'{param}' can't hold a NUL character"),
        ));
    }
    Ok(())
}

/// Refuses a file whose vocabulary llama.cpp asserts on when it is used.
fn check_vocabulary(llama: &LlamaModel) -> Result<(), Error> {
    let unservable = |reason: &str| {
        Err(Error::Unservable {
            reason: reason.to_owned(),
        })
    };
    match llama.meta_val_str("tokenizer.ggml.model").as_deref() {
        Err(_) | Ok("none" | "no_vocab") => return unservable("it has no tokenizer"),
        Ok(_) => {}
    }
    let vocab = llama.vocab();
    let vocabulary = vocab.n_tokens();
    let known = |token: LlamaToken| (0..vocabulary).contains(&token.0);
    if vocabulary <= 0 {
        return unservable("its vocabulary is empty");
    }
    if vocab.should_add_bos() && !known(vocab.bos()) {
        return unservable("its prompts shall begin with a token that it doesn't have");
    }
    if vocab.should_add_eos() && !known(vocab.eos()) {
        return unservable("its prompts shall end with a token that it doesn't have");
    }
    if vocab.should_add_sep() && !known(vocab.sep()) {
        return unservable("its prompts shall hold a separator that it doesn't have");
    }
    Ok(())
}
