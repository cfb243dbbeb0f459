//! Which frames of a sequence have come: a number that is expected next, and a window of bits
//! behind it.

/// How a frame stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ahead of all that came before.
    Ahead,
    /// Behind one that came before.
    Late,
    /// It was there already.
    Duplicate,
}

/// Notes a frame that is `ahead` of the one expected next (negative: behind it). `seen` has a bit
/// for each of the last `width` frames, the newest lowest; of what is older than that nobody knows
/// whether it came before, and it counts as late.
#[inline]
pub fn note(ahead: i32, seen: &mut u64, width: u32) -> Order {
    if ahead >= 0 {
        *seen = if ahead as u32 + 1 >= width { 1 } else { *seen << (ahead + 1) | 1 };
        return Order::Ahead;
    }
    let back = !(ahead as u32);
    if back >= width {
        return Order::Late;
    }
    let bit = 1 << back;
    let order = if *seen & bit == 0 { Order::Late } else { Order::Duplicate };
    *seen |= bit;
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays these numbers; their orders, and what is expected next.
    fn play(numbers: &[i32], width: u32) -> (Vec<Order>, i32) {
        let (mut next, mut seen) = (0, 0);
        let orders = numbers.iter().map(|number| {
            let order = note(number - next, &mut seen, width);
            next = next.max(number + 1);
            order
        });
        (orders.collect(), next)
    }

    #[test]
    fn gaps_latecomers_and_duplicates_are_told_apart() {
        use Order::{Ahead, Duplicate, Late};
        assert_eq!(play(&[0, 1, 2, 2, 0], 32), (vec![Ahead, Ahead, Ahead, Duplicate, Duplicate], 3));
        assert_eq!(
            play(&[3, 1, 1, 0, 4, 2, 3], 16).0,
            [Ahead, Late, Duplicate, Late, Ahead, Late, Duplicate]
        );
        // Beyond the window nobody knows.
        assert_eq!(play(&[0, 16, 0], 16).0, [Ahead, Ahead, Late]);
        assert_eq!(play(&[0, 15, 0], 16).0, [Ahead, Ahead, Duplicate]);
        assert_eq!(play(&[0, 63, 0, 64, 0], 64).0, [Ahead, Ahead, Duplicate, Ahead, Late]);
    }
}
