/// Amounts of work by caller, of which it is asked how much is served before a caller's next request if all callers get the
/// same: its own, and of each other caller at most as much.
///
/// Kept in classes by size, so that a question costs the same however many callers there are. Amounts of the class in which
/// the own one lies are taken at their mean, which is exact but for those between it and the mean.
#[derive(Debug)]
pub(crate) struct Backlog {
    classes: Box<[Class; CLASSES]>,
    sum: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Class {
    callers: u64,
    sum: u64,
}

/// Four to a doubling.
const CLASSES: usize = 64 * 4;

impl Backlog {
    pub(crate) fn new() -> Self {
        Self {
            classes: Box::new([Class::default(); CLASSES]),
            sum: 0,
        }
    }

    /// Of all callers.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// One caller's amount changes.
    pub(crate) fn change(&mut self, before: u64, after: u64) {
        if before > 0 {
            let class = &mut self.classes[class_of(before)];
            class.callers -= 1;
            class.sum -= before;
            self.sum -= before;
        }
        if after > 0 {
            let class = &mut self.classes[class_of(after)];
            class.callers += 1;
            class.sum += after;
            self.sum += after;
        }
    }

    /// What all callers but one, which has `own`, get until each has got `turn` or all that it has.
    pub(crate) fn others(&self, own: u64, turn: u64) -> u64 {
        let at = class_of(turn.max(1));
        let smaller: u64 = self.classes[..at].iter().map(|class| class.sum).sum();
        let larger: u64 = self.classes[at + 1..].iter().map(|class| class.callers).sum();
        let alike = self.classes[at];
        let alike = alike.sum.min(alike.callers.saturating_mul(turn));
        let all = smaller
            .saturating_add(alike)
            .saturating_add(larger.saturating_mul(turn));
        all.saturating_sub(own.min(turn))
    }
}

/// The class of an amount above 0.
fn class_of(amount: u64) -> usize {
    let octave = amount.ilog2();
    let quarter = if octave >= 2 {
        (amount >> (octave - 2)) & 3
    } else {
        (amount << (2 - octave)) & 3
    };
    #[expect(clippy::cast_possible_truncation, reason = "below 4")]
    let quarter = quarter as usize;
    octave as usize * 4 + quarter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(amounts: &[u64]) -> Backlog {
        let mut backlog = Backlog::new();
        amounts.iter().for_each(|amount| backlog.change(0, *amount));
        backlog
    }

    #[test]
    fn of_others_at_most_as_much_is_ahead_as_of_the_caller_itself() {
        let backlog = of(&[10, 100, 100_000]);
        assert_eq!(backlog.others(0, 1_000), 10 + 100 + 1_000);
        assert_eq!(backlog.others(100, 140), 10 + 140);
        assert_eq!(backlog.others(100, 0), 0);
        assert_eq!(of(&[]).others(0, 5), 0);
        assert_eq!(backlog.sum(), 100_110);
    }

    #[test]
    fn the_answer_is_close_to_the_exact_sum_however_amounts_lie() {
        let mut state = 1_u64;
        let mut amounts = Vec::new();
        for _ in 0..500 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            amounts.push(1 + (state >> 40) % 3_000);
        }
        let backlog = of(&amounts);
        for turn in [1, 7, 100, 999, 2_000, 5_000] {
            let exact: u64 = amounts.iter().map(|amount| *amount.min(&turn)).sum();
            let told = backlog.others(0, turn);
            assert!(
                told >= exact && told <= exact + exact / 10,
                "{turn}: {told}, {exact}"
            );
        }
    }

    #[test]
    fn what_goes_leaves_nothing_behind() {
        let mut backlog = of(&[5, 6, u64::MAX / 4]);
        backlog.change(u64::MAX / 4, 3);
        for amount in [3, 5, 6] {
            backlog.change(amount, 0);
        }
        assert_eq!((backlog.sum(), backlog.others(0, 9)), (0, 0));
    }
}
