//! Memory that a table of connections is kept in, for tests: shared with processes that this one
//! forks.

use std::ptr::NonNull;

use engine::conntrack::persist::{self, PersistentMemory, TableIdentity};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Zeros that a table may be laid out in. They stay until the process ends.
#[derive(Clone, Copy)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    birth: TableIdentity,
}

impl Region {
    /// For a table of so many connections.
    pub fn new(capacity: u32) -> Region {
        let len = persist::bytes(capacity);
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
            )
        };
        let start = NonNull::new(start.unwrap_or_else(|e| panic!("{e}")).cast()).expect("a mapping");
        let birth = TableIdentity {
            set: 77,
            worker: 0,
            capacity,
            boot: [1, 2],
            secret: [3, 4],
            epoch_ns: 5_000_000_000,
        };
        Region { start, len, birth }
    }

    /// What its table is laid out with.
    pub fn birth(&self) -> &TableIdentity {
        &self.birth
    }

    /// Lays the table out. To be called once.
    pub fn memory(&self) -> PersistentMemory {
        // SAFETY: the mapping is of zeros and as long as that, begins with a page, and is never
        // taken away.
        unsafe { PersistentMemory::lay_out(self.start, &self.birth) }
    }

    /// What lies in it now.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        // SAFETY: so many bytes lie there; whoever writes to them is this thread or a process that
        // stands still.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.as_ptr(), bytes.as_mut_ptr(), self.len);
            bytes.set_len(self.len);
        }
        bytes
    }
}
