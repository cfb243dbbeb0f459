//! Memory for the tables that every packet looks into at random: on huge pages where the kernel has some.
//!
//! A table of a million connections is 12 MB of index and 64 MB of entries. On pages of 4 kB look-ups miss the translation
//! buffer too, and a prefetch waits for the page walk: in a profile of `net_pcap` with 10,000 flows the instruction behind
//! the index's prefetch took a tenth of the worker's time. What huge pages gain was not told apart from the noise yet.

/// An empty vector with room for `capacity` items that asks the kernel for huge pages. The memory stays unbacked until
/// it is touched.
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

/// Asks for huge pages behind those parts of a range that can be some. A kernel without them says no, and nothing is lost. Smaller parts
/// are left alone: advice that no page can follow splits the process's mappings for ever, of which it may have 65,530.
#[cfg(target_os = "linux")]
fn advise(start: *mut u8, len: usize) {
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
fn advise(_: *mut u8, _: usize) {}
