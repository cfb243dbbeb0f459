//! A shard's table in memory that outlives the process: what lies where, and how it is written so
//! that a process which is killed between any two instructions leaves every entry whole or unused.
//!
//! ```text
//! page 0            Head: what table this is, the undo record
//! entries           64 bytes a place
//! remote addresses  16 bytes a place, of IPv6 connections
//! noted SYNs         8 bytes a place
//! seals              4 bytes a place
//! ```
//!
//! A process that dies stops between two instructions, and what it has stored by then is there: so
//! it is the order of its stores that counts, which the compiler must keep and no cache can change.
//! An entry is published in this order:
//!
//! 1. its place answers to no key: its address is [`FREE`], since it was given back, or it was
//!    never used and has no seal;
//! 2. the IPv6 address and the entry's words are stored, with [`FREE`] in its address's place;
//! 3. the seal;
//! 4. its address, one word: from here on it is an entry.
//!
//! Giving a place back is that one word again. Words that change by themselves (a deadline, a
//! window's end, the class that it is filed under) need no order: any of their values is sound, and
//! a deadline is held to its state's timeout when it is read. Where several words must change as
//! one (`UndoJournal::begin`: steps of TCP, a re-judgement's mark, a connection in another's
//! place), the entry as it was is copied into the undo record first, and forgotten there last;
//! whoever reads the table puts it back. Data on an established connection only moves its windows
//! up, word by word: half of it is no harm, since the segment itself has not left, and when it
//! comes again it moves the rest.
//!
//! The *seal* is a keyed hash of all that a permission rests on. It is no part of what packets
//! read: it tells an entry that was written here from bytes that changed since.

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use super::entry::LastSyn;
use super::slab::Slab;
use super::{Entry, FREE, Shard};
use crate::mix::fold;
use crate::{AddrId, FlowIndex};

/// The layout's number. Another one is not read.
pub const VERSION: u32 = 1;
/// How a table begins. Read by a machine of the other byte order, it is another number.
const MAGIC: u64 = u64::from_be_bytes(*b"PCULLIS\x01");
/// Bytes before the entries.
const HEAD: usize = 4096;
/// No place.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What table it is. Written once, as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TableIdentity {
    /// The set of tables that belong together, one a worker.
    pub set: u64,
    /// Its worker.
    pub worker: u32,
    /// Places.
    pub capacity: u32,
    /// The machine's boot.
    pub boot: [u64; 2],
    /// What keys the seals.
    pub secret: [u64; 2],
    /// When its ticks begin: nanoseconds of a clock that goes on from process to process.
    pub epoch_ns: u64,
}

/// An entry before the change that is under way.
#[derive(Clone, Copy)]
#[repr(C)]
struct UndoRecord {
    noted: LastSyn,
    seal: u32,
    entry: Entry,
}

#[repr(C, align(64))]
pub(super) struct HeaderPage {
    magic: u64,
    version: u32,
    entry_size: u32,
    birth: TableIdentity,
    checksum: u64,
    /// Ticks that were left out where the clock leapt.
    lag: AtomicU64,
    /// Whose undo record it is, or [`NOWHERE`].
    place: AtomicU32,
    undo: UndoRecord,
}

const _: () = assert!(size_of::<HeaderPage>() <= HEAD && offset_of!(HeaderPage, undo) % 4 == 0);

/// Where the parts of a table lie.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub entries: usize,
    pub remote6: usize,
    pub noted: usize,
    pub seals: usize,
    pub end: usize,
}

impl Layout {
    pub const fn of(capacity: u32) -> Layout {
        // An even number, so that each part begins at a multiple of what its items want.
        let places = (capacity as usize).next_multiple_of(16);
        let entries = HEAD;
        let remote6 = entries + places * size_of::<Entry>();
        let noted = remote6 + places * size_of::<u128>();
        let seals = noted + places * size_of::<LastSyn>();
        Layout { entries, remote6, noted, seals, end: seals + places * size_of::<u32>() }
    }
}

/// Bytes of a table for so many connections.
pub const fn bytes(capacity: u32) -> usize {
    Layout::of(capacity).end
}

fn checksum(version: u32, birth: &TableIdentity) -> u64 {
    let TableIdentity { set, worker, capacity, boot, secret, epoch_ns } = *birth;
    let words = [
        set,
        u64::from(worker) << 32 | u64::from(capacity),
        boot[0],
        boot[1],
        secret[0],
        secret[1],
        epoch_ns,
    ];
    let sizes = u64::from(version) << 32 | size_of::<Entry>() as u64;
    words.into_iter().fold(sizes ^ MAGIC, |sum, word| {
        // By its place, too: two words that change places are another sum.
        fold(sum.rotate_left(17) ^ 0x9E37_79B9_7F4A_7C15, word ^ 0xD1B5_4A32_D192_ED03) ^ sum ^ word
    })
}

/// Of everything that a permission rests on. Never 0, as in a place that was never used.
#[inline]
pub(super) fn seal(secret: [u64; 2], entry: &Entry, remote: u128) -> u32 {
    let ends = u64::from(entry.addr.0) << 32 | u64::from(entry.remote);
    let rest = u64::from(entry.sealed_meta()) << 32 | u64::from(entry.ports);
    let mark = u64::from(entry.stamp.0) << 32 | u64::from(entry.rule().0);
    let far = fold(remote as u64 ^ secret[1], (remote >> 64) as u64 ^ secret[0] ^ 0x2545_F491_4F6C_DD1D);
    let near = fold(ends ^ secret[0], rest ^ secret[1]);
    let all = fold(near ^ secret[1].rotate_left(32), mark ^ far ^ secret[0].rotate_left(32));
    (all >> 32) as u32 | 1
}

/// Memory for a table that outlives the process.
pub struct PersistentMemory {
    head: NonNull<HeaderPage>,
    capacity: u32,
    secret: [u64; 2],
}

// SAFETY: it is the only way to its memory.
unsafe impl Send for PersistentMemory {}

impl PersistentMemory {
    /// Lays out an empty table.
    ///
    /// # Safety
    /// From `start` on, a multiple of 64, lie [`bytes`] of zeros that stay there for as long as the
    /// process runs, and nobody else in this process writes to them or has a reference to them.
    pub unsafe fn lay_out(start: NonNull<u8>, birth: &TableIdentity) -> PersistentMemory {
        let head = start.cast::<HeaderPage>();
        // SAFETY: the head lies within the memory, which the caller leaves to us.
        unsafe {
            let at = head.as_ptr();
            (*at).version = VERSION;
            (*at).entry_size = size_of::<Entry>() as u32;
            (*at).birth = *birth;
            (*at).checksum = checksum(VERSION, birth);
            (*at).place.store(NOWHERE, Relaxed);
            compiler_fence(SeqCst);
            (&raw mut (*at).magic).write_volatile(MAGIC);
        }
        PersistentMemory { head, capacity: birth.capacity, secret: birth.secret }
    }

    /// Places that there are.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Deals its parts out.
    pub(super) fn parts(self) -> (Slab<Entry>, Slab<u128>, Slab<LastSyn>, UndoJournal) {
        let (layout, room) = (Layout::of(self.capacity), self.capacity as usize);
        let start = self.head.cast::<u8>();
        // SAFETY: whoever laid this out gave it memory up to the layout's end, for good, and this
        // is the only way to it. Any bytes are such items.
        unsafe {
            crate::pages::advise(start.as_ptr(), layout.end);
            let entries = Slab::lent(start.add(layout.entries).cast(), 0, room);
            let remote6 = Slab::lent(start.add(layout.remote6).cast(), room, room);
            let noted = Slab::lent(start.add(layout.noted).cast(), room, room);
            let seals = Slab::lent(start.add(layout.seals).cast(), room, room);
            (entries, remote6, noted, UndoJournal { head: self.head, seals, secret: self.secret })
        }
    }
}

/// What a shard's connections lie in: in this memory, else in the process's own.
pub(super) fn parts(
    memory: Option<PersistentMemory>,
    capacity: u32,
) -> (Slab<Entry>, Slab<u128>, Slab<LastSyn>, Option<UndoJournal>) {
    let Some(memory) = memory else {
        let capacity = capacity as usize;
        let entries = Slab::own(crate::pages::on_huge_pages(capacity));
        return (entries, Slab::own(vec![0; capacity]), Slab::own(vec![LastSyn::default(); capacity]), None);
    };
    assert_eq!(memory.capacity(), capacity, "memory for as many connections as there may be");
    let (entries, remote6, noted, keep) = memory.parts();
    (entries, remote6, noted, Some(keep))
}

/// What a shard does beside, where its table is to outlive it.
pub(super) struct UndoJournal {
    head: NonNull<HeaderPage>,
    seals: Slab<u32>,
    secret: [u64; 2],
}

// SAFETY: it is the only way to its head.
unsafe impl Send for UndoJournal {}
// SAFETY: what is changed through a shared reference is atomic.
unsafe impl Sync for UndoJournal {}

impl UndoJournal {
    /// Seals the entry at a place as it is to be from now on.
    #[inline]
    pub fn seal(&mut self, place: u32, entry: &Entry, remote: u128) {
        self.seals[place as usize] = seal(self.secret, entry, remote);
    }

    /// Several words of the entry at this place change as one until [`UndoJournal::end`].
    #[inline]
    pub fn begin(&mut self, place: u32, entry: &Entry, noted: &LastSyn) {
        let seal = self.seals[place as usize];
        // SAFETY: the head is ours alone.
        let head = unsafe { self.head.as_mut() };
        head.undo = UndoRecord { noted: *noted, seal, entry: *entry };
        compiler_fence(SeqCst);
        head.place.store(place, Relaxed);
        compiler_fence(SeqCst);
    }

    /// They have changed.
    #[inline]
    pub fn end(&mut self) {
        compiler_fence(SeqCst);
        // SAFETY: as above.
        unsafe { self.head.as_ref() }.place.store(NOWHERE, Relaxed);
        compiler_fence(SeqCst);
    }

    /// The clock has left out so many ticks in all.
    #[inline]
    pub fn note_lag(&self, ticks: u64) {
        // SAFETY: the head stays where it is, and this part of it is atomic.
        unsafe { self.head.as_ref() }.lag.store(ticks, Relaxed);
    }

    pub fn touch(&mut self) {
        self.seals.touch();
    }
}

/// Makes what lies at a place, free so far, an entry: the last of its stores.
#[inline(always)]
pub(super) fn publish(entry: &mut Entry, addr: AddrId) {
    compiler_fence(SeqCst);
    // SAFETY: it is a word of the entry. Volatile, so that it is a store of its own.
    unsafe { (&raw mut entry.addr).write_volatile(addr) };
}

/// Makes an entry's place a free one, in one store.
#[inline(always)]
pub(super) fn withdraw(entry: &mut Entry) {
    publish(entry, FREE);
    compiler_fence(SeqCst);
}

/// A table's head as it was found, with the undo record carried out by whoever asks for a place.
pub(super) struct TableHeader {
    pub birth: TableIdentity,
    pub lag: u64,
    /// The place under change, with what it held before.
    pub undo: Option<(u32, Entry, LastSyn, u32)>,
}

/// Why a table is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// It is no table, or not a whole one.
    NoTable,
    /// Its layout is another.
    Version(u32),
    /// Its head is damaged.
    Damaged,
}

impl std::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RestoreError::NoTable => f.write_str("it is no table of connections"),
            RestoreError::Version(version) => write!(f, "its format is {version}, and {VERSION} is read"),
            RestoreError::Damaged => f.write_str("its head is damaged"),
        }
    }
}

/// Reads words out of bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'b>(pub &'b [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        if let Some(found) = self.0.get(at..at + N) {
            array.copy_from_slice(found);
        }
        array
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.array(at))
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.array(at))
    }

    pub fn u128(&self, at: usize) -> u128 {
        u128::from_ne_bytes(self.array(at))
    }

    pub fn entry(&self, at: usize) -> Entry {
        Entry::from_bytes(&self.array(at))
    }

    pub fn noted(&self, at: usize) -> LastSyn {
        LastSyn::from_bytes(self.array(at))
    }
}

/// Reads a table's head.
pub(super) fn head(bytes: &[u8]) -> Result<TableHeader, RestoreError> {
    let all = Bytes(bytes);
    if bytes.len() < HEAD || all.u64(offset_of!(HeaderPage, magic)) != MAGIC {
        return Err(RestoreError::NoTable);
    }
    let version = all.u32(offset_of!(HeaderPage, version));
    let entry_size = all.u32(offset_of!(HeaderPage, entry_size));
    if version != VERSION || entry_size as usize != size_of::<Entry>() {
        return Err(RestoreError::Version(version));
    }
    let at = offset_of!(HeaderPage, birth);
    let word = |field: usize| all.u64(at + field);
    let birth = TableIdentity {
        set: word(offset_of!(TableIdentity, set)),
        worker: all.u32(at + offset_of!(TableIdentity, worker)),
        capacity: all.u32(at + offset_of!(TableIdentity, capacity)),
        boot: [0, 8].map(|half| word(offset_of!(TableIdentity, boot) + half)),
        secret: [0, 8].map(|half| word(offset_of!(TableIdentity, secret) + half)),
        epoch_ns: word(offset_of!(TableIdentity, epoch_ns)),
    };
    if all.u64(offset_of!(HeaderPage, checksum)) != checksum(version, &birth) {
        return Err(RestoreError::Damaged);
    }
    if bytes.len() < self::bytes(birth.capacity) {
        return Err(RestoreError::NoTable);
    }
    let undo = offset_of!(HeaderPage, undo);
    let place = all.u32(offset_of!(HeaderPage, place));
    let before = (
        place,
        all.entry(undo + offset_of!(UndoRecord, entry)),
        all.noted(undo + offset_of!(UndoRecord, noted)),
        all.u32(undo + offset_of!(UndoRecord, seal)),
    );
    Ok(TableHeader {
        birth,
        lag: all.u64(offset_of!(HeaderPage, lag)),
        undo: (place < birth.capacity).then_some(before),
    })
}

impl Shard {
    /// Writes an entry into a free place.
    #[inline(always)]
    pub(super) fn put(&mut self, place: u32, entry: &Entry, remote: u128) {
        if entry.is_v6() {
            self.remote6[place as usize] = remote;
        }
        if self.journal.is_some() {
            return self.put_and_publish(place, entry, remote);
        }
        if place as usize == self.entries.len() {
            self.entries.push(*entry);
            self.sweep.grow();
        } else {
            self.entries[place as usize] = *entry;
        }
    }

    /// The same where the table outlives the process: it becomes an entry with the last store.
    #[inline(never)]
    fn put_and_publish(&mut self, place: u32, entry: &Entry, remote: u128) {
        let addr = entry.addr;
        let mut entry = *entry;
        entry.addr = FREE;
        if place as usize == self.entries.len() {
            self.entries.push(entry);
            self.sweep.grow();
        } else {
            self.entries[place as usize] = entry;
        }
        entry.addr = addr;
        // Not before: a place that was never used is told by its having no seal.
        compiler_fence(SeqCst);
        if let Some(keep) = &mut self.journal {
            keep.seal(place, &entry, remote);
        }
        publish(&mut self.entries[place as usize], addr);
    }

    /// True if its table outlives the process.
    #[inline(always)]
    pub fn is_persistent(&self) -> bool {
        self.journal.is_some()
    }

    /// Several words of an entry change as one until [`Shard::end_change`].
    #[inline]
    pub fn begin_change(&mut self, flow: FlowIndex) {
        if let Some(keep) = &mut self.journal {
            let place = flow.0 as usize;
            keep.begin(flow.0, &self.entries[place], &self.last_syns[place]);
        }
    }

    /// They have changed.
    #[inline]
    pub fn end_change(&mut self, flow: FlowIndex) {
        if self.journal.is_some() {
            self.seal(flow);
        }
    }

    fn seal(&mut self, flow: FlowIndex) {
        let (entry, remote) = (*self.entry(flow), self.remote(flow));
        if let Some(keep) = &mut self.journal {
            keep.seal(flow.0, &entry, remote);
            keep.end();
        }
    }

    /// After a step of TCP, which touches nothing that a permission rests on.
    #[inline]
    pub fn end_step(&mut self) {
        if let Some(keep) = &mut self.journal {
            keep.end();
        }
    }

    /// The clock has left out so many ticks in all.
    #[inline]
    pub fn note_lag(&self, ticks: u64) {
        if let Some(keep) = &self.journal {
            keep.note_lag(ticks);
        }
    }
}
