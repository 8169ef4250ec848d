use bolero::{TypeGenerator, produce};

/// A good input with some edits, or any bytes.
#[derive(Debug, Clone, TypeGenerator)]
pub struct Input {
    start: u8,
    #[generator(produce::<Vec<Edit>>().with().len(0..=12_usize))]
    edits: Vec<Edit>,
    #[generator(produce::<Vec<u8>>().with().len(0..=64_usize))]
    rest: Vec<u8>,
    /// For what else a target has to choose.
    pub choice: u8,
}

#[derive(Debug, Clone, Copy, TypeGenerator)]
enum Edit {
    Set {
        at: u16,
        byte: u8,
    },
    Word {
        at: u16,
        word: u8,
    },
    /// Many of one: that is how an input becomes deep.
    Words {
        at: u16,
        word: u8,
        times: u16,
    },
    Delete {
        at: u16,
        length: u8,
    },
    Copy {
        from: u16,
        length: u8,
        to: u16,
    },
}

/// What means something to one parser or another.
const WORDS: [&str; 48] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "/",
    "'",
    "null",
    "true",
    "{\"a\":",
    "[[",
    "0",
    "-1",
    "1e999",
    "1e-999",
    "18446744073709551616",
    "9223372036854775807",
    "0.1",
    "NaN",
    "\\ud800",
    "\\u0000",
    "\u{0}",
    "\r\n",
    "\n\n",
    "\n",
    "\r",
    " ",
    ";",
    "=",
    "#",
    "data: ",
    "[DONE]",
    ": ping\n\n",
    "error",
    "model",
    "prompt",
    "messages",
    "content",
    "stream",
    "usage",
    "choices",
    "ü",
    "\u{fffd}",
    "[a]\n",
    "\"\"\"",
];
/// No input becomes longer, or the time goes into copying.
const MOST_BYTES: usize = 256 * 1024;

impl Input {
    /// The bytes; those that it begins from are one of these.
    #[must_use]
    pub fn bytes(&self, examples: &[&str]) -> Vec<u8> {
        let example = examples.get(usize::from(self.start) % (examples.len() + 1));
        let mut bytes = example.map_or_else(Vec::new, |example| example.as_bytes().to_vec());
        for edit in &self.edits {
            edit.make(&mut bytes);
        }
        if example.is_none() {
            bytes.extend_from_slice(&self.rest);
        }
        bytes
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, examples: &[&str]) -> String {
        String::from_utf8_lossy(&self.bytes(examples)).into_owned()
    }

    /// Where to cut the bytes into pieces, for what arrives in pieces.
    #[must_use]
    pub fn cuts(&self) -> &[u8] {
        &self.rest
    }
}

impl Edit {
    fn make(self, bytes: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) % (bytes.len() + 1);
        let word = |word: u8| WORDS[usize::from(word) % WORDS.len()].as_bytes();
        match self {
            Self::Set { at, byte } => {
                let at = place(at);
                if let Some(found) = bytes.get_mut(at) {
                    *found = byte;
                }
            }
            Self::Word { at, word: named } => insert(bytes, place(at), word(named)),
            Self::Words {
                at,
                word: named,
                times,
            } => {
                let many = word(named).repeat(usize::from(times));
                insert(bytes, place(at), &many);
            }
            Self::Delete { at, length } => {
                let at = place(at);
                let end = (at + usize::from(length)).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Copy { from, length, to } => {
                let (from, to) = (place(from), place(to));
                let end = (from + usize::from(length)).min(bytes.len());
                let copied = bytes[from..end].to_vec();
                insert(bytes, to, &copied);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    if bytes.len() + more.len() <= MOST_BYTES {
        bytes.splice(at..at, more.iter().copied());
    }
}

/// Runs a target: in the normal run for a second, under a coverage-guided fuzzer for as long as that likes.
#[macro_export]
macro_rules! check {
    ($target:expr) => {
        bolero::check!()
            .with_type::<$crate::Input>()
            .with_max_len(8_192)
            .with_iterations(5_000)
            .with_test_time(std::time::Duration::from_secs(1))
            .for_each($target)
    };
}
