//! Timers and eviction order of a shard's entries: 8 bytes an entry.
//!
//! Four timer wheels (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987, scheme 6
//! with the rounds left out), one per [`EvictionClass`]. An entry hangs in the list of the slot of
//! the deadline it had when it was last filed; a later deadline is written to the entry alone, and
//! found out when the slot comes up. A list runs from the oldest filing to the newest, so that the
//! first of the first slot of a class is its oldest entry: the same lists give expiry and the order
//! of eviction.

/// Slots of one wheel: 512 s of ticks. A deadline further ahead is filed into the last slot, and
/// again from there.
const SLOTS: u32 = 4096;
const WORDS: usize = SLOTS as usize / 64;

/// What an entry is worth when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EvictionClass {
    /// Both sides have taken part: never given up for a newcomer.
    Confirmed = 0,
    /// One side's word only.
    Unconfirmed = 1,
    /// A disconnected connection: given up last.
    Tombstone = 2,
    /// Ended by a change (its NIC or address is gone): as good as expired, but a rollback may want
    /// it.
    Ended = 3,
}

const CLASSES: u32 = 4;

impl EvictionClass {
    fn from_number(n: u32) -> EvictionClass {
        [EvictionClass::Confirmed, EvictionClass::Unconfirmed, EvictionClass::Tombstone, EvictionClass::Ended]
            [(n % CLASSES) as usize]
    }
}

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

const NIL: u32 = u32::MAX;

/// The wheels of one shard, and its list of free places. Entries are numbers below the capacity.
pub struct TimerWheels {
    /// One link an entry, then a sentinel a slot.
    links: Box<[Link]>,
    capacity: u32,
    /// The free place last given back; the others follow by `next`.
    free: u32,
    /// Places below it have been used.
    used: u32,
    /// The next tick whose slots are looked at.
    cursor: u32,
    /// A bit a slot, set when something is filed there and cleared when the slot is found empty.
    filled: [[u64; WORDS]; CLASSES as usize],
}

impl TimerWheels {
    /// Bytes an entry.
    pub const BYTES_AN_ENTRY: usize = size_of::<Link>();

    /// For entries 0 … `capacity` − 1, beginning at tick `now`.
    pub fn new(capacity: u32, now: u32) -> TimerWheels {
        let total = capacity + SLOTS * CLASSES;
        let mut links = crate::pages::filled_on_huge_pages(Link { prev: 0, next: 0 }, total as usize);
        for sentinel in capacity..total {
            links[sentinel as usize] = Link { prev: sentinel, next: sentinel };
        }
        TimerWheels {
            links,
            capacity,
            free: NIL,
            used: 0,
            cursor: now,
            filled: [[0; WORDS]; CLASSES as usize],
        }
    }

    /// See [`crate::pages::touch`].
    pub fn touch(&mut self) {
        crate::pages::touch(&mut self.links);
    }

    /// A free place: the one last given back, else the first that was never used.
    pub fn alloc_slot(&mut self) -> Option<u32> {
        if self.free != NIL {
            let place = self.free;
            self.free = self.links[place as usize].next;
            return Some(place);
        }
        let place = self.used;
        (place < self.capacity).then(|| {
            self.used += 1;
            place
        })
    }

    /// Gives back a place that is in no list.
    pub fn free_slot(&mut self, place: u32) {
        self.links[place as usize].next = self.free;
        self.free = place;
    }

    /// Places below this one have been used.
    pub fn used(&self) -> u32 {
        self.used
    }

    fn sentinel(&self, class: EvictionClass, slot: u32) -> u32 {
        self.capacity + class as u32 * SLOTS + slot
    }

    /// Files an entry that is in no list under its deadline, as the newest of its slot.
    pub fn insert(&mut self, entry: u32, class: EvictionClass, deadline: u32) {
        // The wheel reaches from the cursor on; what is due already goes to the cursor's own slot.
        let ahead = (deadline.wrapping_sub(self.cursor) as i32).clamp(0, SLOTS as i32 - 1) as u32;
        let slot = self.cursor.wrapping_add(ahead) % SLOTS;
        self.filled[class as usize][slot as usize / 64] |= 1 << (slot % 64);
        let sentinel = self.sentinel(class, slot);
        let last = self.links[sentinel as usize].prev;
        self.links[entry as usize] = Link { prev: last, next: sentinel };
        self.links[last as usize].next = entry;
        self.links[sentinel as usize].prev = entry;
    }

    /// Takes an entry out of its list.
    pub fn unlink(&mut self, entry: u32) {
        let Link { prev, next } = self.links[entry as usize];
        self.links[prev as usize].next = next;
        self.links[next as usize].prev = prev;
    }

    /// The entry filed next after this one into the same slot.
    pub fn following(&self, entry: u32) -> Option<u32> {
        let next = self.links[entry as usize].next;
        (next < self.capacity).then_some(next)
    }

    /// The oldest entry of the first filled slot of a class.
    pub fn oldest(&mut self, class: EvictionClass) -> Option<u32> {
        self.first_from(class, self.cursor % SLOTS, SLOTS)
    }

    /// The next oldest of a class behind this entry of it.
    pub fn next_oldest(&mut self, class: EvictionClass, entry: u32) -> Option<u32> {
        let next = self.links[entry as usize].next;
        if next < self.capacity {
            return Some(next);
        }
        let slot = (next - self.sentinel(class, 0) + 1) % SLOTS;
        self.first_from(class, slot, self.cursor.wrapping_sub(slot) % SLOTS)
    }

    /// The first entry of a class in `count` slots from `slot` on and round; marks those found
    /// empty.
    fn first_from(&mut self, class: EvictionClass, slot: u32, count: u32) -> Option<u32> {
        let mut passed = 0;
        while passed < count {
            let at = (slot + passed) % SLOTS;
            let (word, bit) = (at as usize / 64, at % 64);
            let bits = self.filled[class as usize][word] >> bit;
            if bits == 0 {
                passed += 64 - bit;
                continue;
            }
            passed += bits.trailing_zeros();
            if passed >= count {
                return None;
            }
            let at = (slot + passed) % SLOTS;
            let sentinel = self.sentinel(class, at);
            let first = self.links[sentinel as usize].next;
            if first != sentinel {
                return Some(first);
            }
            self.filled[class as usize][word] &= !(1 << (at % 64));
        }
        None
    }

    /// An entry whose slot has come up by tick `now`, with its class: to be ended, or filed again.
    /// `None` if nothing is due. Empty slots are passed 64 at a time.
    pub fn due(&mut self, now: u32) -> Option<(u32, EvictionClass)> {
        loop {
            let behind = now.wrapping_sub(self.cursor) as i32;
            let (word, bit) = ((self.cursor % SLOTS / 64) as usize, self.cursor % 64);
            let filled = self.filled.iter().fold(0, |all, class| all | class[word]) & !0 << bit;
            let ahead = if filled == 0 { 64 - bit } else { filled.trailing_zeros() - bit };
            if behind < ahead as i32 {
                // The slot of `now` itself may still be filed into: the cursor stays at it.
                self.cursor = now;
                return None;
            }
            self.cursor = self.cursor.wrapping_add(ahead);
            if filled != 0
                && let Some(found) = self.first_in_slot(self.cursor % SLOTS)
            {
                return Some(found);
            }
        }
    }

    /// True if something that is due by tick `now` may not have been looked at.
    pub fn is_behind(&self, now: u32) -> bool {
        self.cursor != now || self.first_due().is_some()
    }

    fn first_due(&self) -> Option<u32> {
        let slot = self.cursor % SLOTS;
        let firsts = (0..CLASSES)
            .map(|n| self.links[self.sentinel(EvictionClass::from_number(n), slot) as usize].next);
        firsts.into_iter().find(|first| *first < self.capacity)
    }

    /// The first entry of a slot, over all classes; marks those found empty.
    fn first_in_slot(&mut self, slot: u32) -> Option<(u32, EvictionClass)> {
        for class in (0..CLASSES).map(EvictionClass::from_number) {
            let sentinel = self.sentinel(class, slot);
            let first = self.links[sentinel as usize].next;
            if first != sentinel {
                return Some((first, class));
            }
            self.filled[class as usize][slot as usize / 64] &= !(1 << (slot % 64));
        }
        None
    }

    /// Every entry that is filed, with its class and how many ticks ahead of the cursor its slot
    /// comes up: for tests. An error says in words where a list is broken.
    pub fn filed(&self) -> Result<Vec<(u32, EvictionClass, u32)>, String> {
        let mut filed = Vec::new();
        for class in (0..CLASSES).map(EvictionClass::from_number) {
            let is_marked =
                |slot: &u32| self.filled[class as usize][*slot as usize / 64] >> (slot % 64) & 1 == 1;
            for slot in (0..SLOTS).filter(is_marked) {
                let sentinel = self.sentinel(class, slot);
                let ahead = slot.wrapping_sub(self.cursor) % SLOTS;
                let (mut before, mut at) = (sentinel, self.links[sentinel as usize].next);
                while at != sentinel {
                    if self.links[at as usize].prev != before
                        || at >= self.capacity
                        || filed.len() as u32 > self.capacity
                    {
                        return Err(format!("the list of {class:?}, slot {slot} is broken at {at}"));
                    }
                    filed.push((at, class, ahead));
                    (before, at) = (at, self.links[at as usize].next);
                }
            }
        }
        Ok(filed)
    }

    /// How many ticks ahead of the cursor the last slot lies that finds this deadline in time: for
    /// tests.
    pub fn ahead(&self, deadline: u32) -> u32 {
        (deadline.wrapping_sub(self.cursor) as i32).clamp(0, SLOTS as i32 - 1) as u32
    }

    /// Places that were given back: for tests.
    pub fn free_slots(&self) -> Vec<u32> {
        let first = (self.free != NIL).then_some(self.free);
        let after = |place: &u32| Some(self.links[*place as usize].next).filter(|next| *next != NIL);
        std::iter::successors(first, after).take(self.capacity as usize + 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_now(wheels: &mut TimerWheels, now: u32) -> Vec<u32> {
        let mut found = Vec::new();
        while let Some((entry, _)) = wheels.due(now) {
            wheels.unlink(entry);
            found.push(entry);
        }
        found
    }

    #[test]
    fn entries_come_up_at_their_tick_in_the_order_filed_and_across_the_wrap() {
        let start = 0u32.wrapping_sub(10);
        let mut wheels = TimerWheels::new(8, start);
        wheels.insert(3, EvictionClass::Confirmed, start.wrapping_add(20));
        wheels.insert(1, EvictionClass::Confirmed, start.wrapping_add(20));
        wheels.insert(2, EvictionClass::Unconfirmed, start.wrapping_add(5));
        assert_eq!(due_now(&mut wheels, start.wrapping_add(4)), []);
        assert_eq!(due_now(&mut wheels, start.wrapping_add(19)), [2]);
        assert_eq!(due_now(&mut wheels, start.wrapping_add(20)), [3, 1]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_comes_up_at_its_end_to_be_filed_again() {
        let mut wheels = TimerWheels::new(2, 0);
        wheels.insert(0, EvictionClass::Confirmed, 100_000);
        assert_eq!(due_now(&mut wheels, SLOTS - 2), []);
        assert_eq!(due_now(&mut wheels, SLOTS - 1), [0]);
    }

    #[test]
    fn the_oldest_of_a_class_is_the_first_filed_under_the_first_deadline() {
        let mut wheels = TimerWheels::new(8, 4000);
        wheels.insert(5, EvictionClass::Unconfirmed, 4300);
        wheels.insert(6, EvictionClass::Unconfirmed, 4090);
        wheels.insert(7, EvictionClass::Unconfirmed, 4090);
        assert_eq!(wheels.oldest(EvictionClass::Unconfirmed), Some(6));
        wheels.unlink(6);
        assert_eq!(wheels.oldest(EvictionClass::Unconfirmed), Some(7));
        wheels.unlink(7);
        assert_eq!(wheels.oldest(EvictionClass::Unconfirmed), Some(5));
        wheels.unlink(5);
        assert_eq!(wheels.oldest(EvictionClass::Unconfirmed), None);
        assert_eq!(wheels.oldest(EvictionClass::Confirmed), None);
    }

    #[test]
    fn all_of_a_class_come_one_after_the_other_from_the_oldest_on() {
        // The cursor lies in the middle of a word, and deadlines on either side of the wheel's end.
        let mut wheels = TimerWheels::new(300, 4000);
        for n in 0..200u32 {
            let class = if n % 3 == 0 { EvictionClass::Confirmed } else { EvictionClass::Unconfirmed };
            wheels.insert(n, class, 4000 + n * 37 % 4090);
        }
        // Filed where it is due already, and as the last slot there is.
        wheels.insert(250, EvictionClass::Unconfirmed, 3000);
        wheels.insert(251, EvictionClass::Unconfirmed, 4000 + SLOTS - 1);
        let mut expected: Vec<(u32, u32)> =
            (0..200).filter(|n| n % 3 != 0).map(|n| (n * 37 % 4090, n)).collect();
        expected.extend([(0, 250), (SLOTS - 1, 251)]);
        expected.sort_by_key(|(at, _)| *at);
        let mut found = Vec::new();
        let mut next = wheels.oldest(EvictionClass::Unconfirmed);
        while let Some(entry) = next {
            found.push(entry);
            next = wheels.next_oldest(EvictionClass::Unconfirmed, entry);
        }
        assert_eq!(found, expected.iter().map(|(_, entry)| *entry).collect::<Vec<_>>());
        assert_eq!(wheels.oldest(EvictionClass::Tombstone), None);
    }

    #[test]
    fn places_are_given_out_once_each_and_again_when_given_back() {
        let mut wheels = TimerWheels::new(3, 0);
        assert_eq!(
            [wheels.alloc_slot(), wheels.alloc_slot(), wheels.alloc_slot(), wheels.alloc_slot()],
            [Some(0), Some(1), Some(2), None]
        );
        wheels.free_slot(1);
        assert_eq!([wheels.alloc_slot(), wheels.alloc_slot()], [Some(1), None]);
    }
}
