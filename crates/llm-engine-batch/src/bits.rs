/// A bit for each row: what is known of a million rows is 125 KB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    ones: u64,
}

impl Bits {
    pub(crate) fn has(&self, row: u64) -> bool {
        let (word, bit) = place(row);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether it is news.
    pub(crate) fn set(&mut self, row: u64) -> bool {
        let (word, bit) = place(row);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_news = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.ones += u64::from(is_news);
        is_news
    }

    pub(crate) fn clear(&mut self, row: u64) {
        let (word, bit) = place(row);
        if self.has(row) {
            self.words[word] &= !bit;
            self.ones -= 1;
        }
    }

    /// The rows that are set, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        let words = self.words.iter().zip(0_u64..);
        words.flat_map(|(word, index)| {
            let bits = (0..64).filter(move |bit| word & (1 << bit) != 0);
            bits.map(move |bit| index * 64 + bit)
        })
    }

    /// How many are set.
    pub(crate) fn ones(&self) -> u64 {
        self.ones
    }
}

fn place(row: u64) -> (usize, u64) {
    let word = usize::try_from(row / 64).unwrap_or(usize::MAX);
    (word, 1 << (row % 64))
}
