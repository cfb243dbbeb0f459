//! Memory for the tables that every packet looks into at random: on huge pages where the kernel has
//! some.
//!
//! A table of a million connections is 12 MB of index and 64 MB of entries. On pages of 4 kB
//! look-ups miss the translation buffer too, and a prefetch waits for the page walk: in a profile
//! of `net_pcap` with 10,000 flows the instruction behind the index's prefetch took a tenth of the
//! worker's time. What huge pages gain was not told apart from the noise yet.

use std::sync::atomic::AtomicU64;

/// An empty vector with room for `capacity` items that asks the kernel for huge pages. The memory
/// stays unbacked until it is touched.
pub fn on_huge_pages<T>(capacity: usize) -> Vec<T> {
    let mut items = Vec::with_capacity(capacity);
    let spare = items.spare_capacity_mut();
    advise(spare.as_mut_ptr().cast(), std::mem::size_of_val(spare));
    items
}

/// `capacity` copies of an item, likewise.
pub fn filled_on_huge_pages<T: Clone>(item: T, capacity: usize) -> Box<[T]> {
    let mut items = on_huge_pages(capacity);
    items.resize(capacity, item);
    items.into_boxed_slice()
}

const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages behind those parts of a range that can be some. A kernel without them says
/// no, and nothing is lost. Smaller parts are left alone: advice that no page can follow splits the
/// process's mappings for ever, of which it may have 65,530.
#[cfg(target_os = "linux")]
pub(crate) fn advise(start: *mut u8, len: usize) {
    let skip = start.align_offset(HUGE_PAGE);
    if len < skip.saturating_add(HUGE_PAGE) {
        return;
    }
    let whole = (len - skip) / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: the range lies within one allocation of ours, and the advice changes no byte of it.
    let _ = unsafe {
        rustix::mm::madvise(start.wrapping_add(skip).cast(), whole, rustix::mm::Advice::LinuxHugepage)
    };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn advise(_: *mut u8, _: usize) {}

const PAGE: usize = 4096;

/// Has the kernel back the memory of a slice, so that no packet waits for a page. What lies in it
/// stays.
pub fn touch<T>(items: &mut [T]) {
    touch_raw(items.as_mut_ptr().cast(), size_of_val(items));
}

/// The same of so many bytes that the caller has alone.
pub(crate) fn touch_raw(start: *mut u8, len: usize) {
    if !populate(start, len) {
        touch_each_page(start, len);
    }
}

/// The same of memory that others may read and write meanwhile. A kernel too old for that (before
/// 5.14) leaves it to them.
pub fn touch_shared<T: Sync>(items: &[T]) {
    populate(items.as_ptr().cast::<u8>().cast_mut(), size_of_val(items));
}

/// The same of cells that others may use meanwhile.
pub fn touch_shared_cells<T>(cells: &[std::cell::UnsafeCell<T>]) {
    populate(cells.as_ptr().cast::<u8>().cast_mut(), size_of_val(cells));
}

/// False if the kernel does not know how. It changes no byte, so that others may use the memory
/// meanwhile.
#[cfg(target_os = "linux")]
fn populate(start: *mut u8, len: usize) -> bool {
    if len == 0 {
        return true;
    }
    // All pages on which some of it lies: they are mapped, for it lies on them.
    let before = start as usize % PAGE;
    let whole = (before + len).next_multiple_of(PAGE);
    // SAFETY: the pages belong to an allocation of ours, and the advice changes no byte of them.
    unsafe {
        rustix::mm::madvise(start.wrapping_sub(before).cast(), whole, rustix::mm::Advice::LinuxPopulateWrite)
            .is_ok()
    }
}

#[cfg(not(target_os = "linux"))]
fn populate(_: *mut u8, _: usize) -> bool {
    false
}

/// Writes a byte of each page as it was read.
fn touch_each_page(start: *mut u8, len: usize) {
    for at in (0..len).step_by(PAGE).chain(len.checked_sub(1)) {
        let byte = start.wrapping_add(at).cast::<std::mem::MaybeUninit<u8>>();
        // SAFETY: it lies within memory that the caller has alone; a byte may be read and written
        // whatever it belongs to, and stays what it was.
        unsafe { byte.write_volatile(byte.read_volatile()) };
    }
}

/// So many zeros: memory that the kernel backs when it is touched.
pub(crate) fn zeroed(words: usize) -> Box<[AtomicU64]> {
    // Of atomics `vec!` would write the zeros out.
    let words = Box::into_raw(vec![0u64; words].into_boxed_slice());
    // SAFETY: AtomicU64 has the size and bit validity of u64, and on this target (asserted below)
    // its alignment.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

const _: () = assert!(align_of::<AtomicU64>() == align_of::<u64>());

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that this thread was the first to touch, so far.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let behind_the_name = stat.rsplit(')').next().unwrap();
        behind_the_name.split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    #[test]
    fn what_was_touched_is_there_and_what_lay_in_it_stays() {
        for by_hand in [false, true] {
            let mut items = vec![0u64; 1 << 20];
            items[7] = 77;
            if by_hand {
                touch_each_page(items.as_mut_ptr().cast(), size_of_val(&*items));
            } else {
                touch(&mut items);
            }
            let mut spare: Vec<u64> = on_huge_pages(1 << 20);
            touch_raw(spare.as_mut_ptr().cast(), size_of_val(spare.spare_capacity_mut()));
            let before = faults();
            for at in (8..items.len()).step_by(8) {
                items[at] = 1;
            }
            spare.resize(1 << 20, 5);
            let after = faults();
            // Reading the count takes some itself.
            assert!(after - before < 16, "{}", after - before);
            assert_eq!((items[7], items[8], items[9], spare[9]), (77, 1, 0, 5));
        }
    }
}
