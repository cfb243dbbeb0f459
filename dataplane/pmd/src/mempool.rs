//! Pools of packet buffers.

use std::ffi::{CString, c_int};
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::{rte_mbuf, rte_mempool};
use engine::io::Burst;

use crate::capture::capture_output;
use crate::eal::{self, Eal};
use crate::error::{Error, reason, rte_errno};
use crate::mbuf::Mbuf;

/// Bytes of a buffer's data room that hold a frame of 1,500 bytes and two VLAN tags, besides the headroom.
pub const DEFAULT_DATA_ROOM: u16 = 2048;

/// Bytes of a data room that holds frames of so many bytes in one piece: at least [`DEFAULT_DATA_ROOM`].
pub fn data_room(frame: usize) -> u16 {
    /// Devices take the length of a buffer in units of this.
    const UNIT: usize = 1024;
    let room = frame.next_multiple_of(UNIT).max(usize::from(DEFAULT_DATA_ROOM));
    u16::try_from(room).unwrap_or(u16::MAX)
}

/// Megabytes that EAL needs (`-m`) without huge pages for a pool of `buffers` with this data room, and for devices and itself:
/// a buffer takes whole pages.
pub fn megabytes_without_huge_pages(buffers: u32, data_room: u16) -> usize {
    /// A page that is not huge.
    const PAGE: usize = 4096;
    /// What a buffer has beside its data: headroom, `rte_mbuf`, the pool's header and trailer, rounded up.
    const HEADERS: usize = 512;
    const BESIDE: usize = 96;
    let buffer = (usize::from(data_room) + HEADERS).next_multiple_of(PAGE);
    let pool = (buffers as usize * buffer).div_ceil(1 << 20);
    pool + pool / 8 + BESIDE
}

/// Buffers that each registered thread may keep for itself.
const CACHE: u32 = 256;

/// A fixed number of packet buffers. Ports keep their pool alive.
///
/// Dropped with all of its buffers back it is freed; while a buffer is out, it stays for ever instead, and EAL with
/// it, so that the buffer's memory stays valid.
#[derive(Debug, Clone)]
pub struct Mempool {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    raw: NonNull<rte_mempool>,
    eal: Arc<eal::Inner>,
}

// SAFETY: DPDK's pools may be used by any thread at any time: the shared ring is multi-producer and multi-consumer,
// and caches are per registered thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Mempool {
    /// A pool of `count` buffers with `data_room` bytes each for a frame's bytes (its headroom of 128 bytes comes on
    /// top). `name` is unique in the process and of at most 25 bytes. Memory for it comes from EAL's, about
    /// `count * (data_room + 400)` bytes.
    pub fn new(eal: &Eal, name: &str, count: u32, data_room: u16) -> Result<Self, Error> {
        let failed = |reason: String| Error::Mempool { name: name.to_owned(), reason };
        let c_name = CString::new(name).map_err(|_| failed("its name holds a NUL byte".into()))?;
        let room = u32::from(data_room) + dpdk_sys::RTE_PKTMBUF_HEADROOM;
        let room = u16::try_from(room)
            .map_err(|_| failed(format!("a data room of {data_room} bytes is too large")))?;
        // A cache may hold up to 1.5 times its size; a small pool would drain into the caches of idle threads.
        let cache = if count >= 8 * CACHE { CACHE } else { 0 };
        const ANY_SOCKET: c_int = -1;
        let ((raw, errno), log) = capture_output(|| {
            // SAFETY: EAL is running as long as `eal` is, and the name is a C string.
            let raw = unsafe {
                dpdk_sys::rte_pktmbuf_pool_create(c_name.as_ptr(), count, cache, 0, room, ANY_SOCKET)
            };
            (raw, rte_errno())
        });
        let raw = NonNull::new(raw).ok_or_else(|| failed(reason(&log, errno)))?;
        Ok(Self { inner: Arc::new(Inner { raw, eal: Arc::clone(&eal.inner) }) })
    }

    /// Buffers that are free, in the pool or in a thread's cache. Walks over the caches: not for the data path.
    pub fn avail(&self) -> u32 {
        // SAFETY: the pool lives as long as `inner`.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.inner.as_ptr()) }
    }

    /// Buffers that are out: in our hands or in a port's rings. Walks over the caches: not for the data path.
    pub fn in_use(&self) -> u32 {
        self.inner.in_use()
    }

    /// An empty buffer; `None` if all are out. Other threads' caches are out of reach.
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as `inner`; a non-null buffer is fresh and ours alone. Should it outlive
        // the pool's handles, `Inner::drop` leaves the pool's memory in place.
        unsafe {
            let raw = dpdk_sys::shim_pktmbuf_alloc(self.inner.as_ptr());
            NonNull::new(raw).map(|raw| Mbuf::from_raw(raw))
        }
    }

    /// Appends `count` empty buffers to `burst`, or as many as it has room for: all of them in one call. Returns how many: none
    /// if the pool has not that many left.
    #[inline]
    pub fn alloc_bulk(&self, burst: &mut Burst<Mbuf>, count: usize) -> usize {
        let (len, count) = (burst.len(), count.min(burst.remaining_capacity()));
        // SAFETY: the burst has room for `count` more behind its `len`, and an `Mbuf` is a transparent pointer. The pool lives as
        // long as `inner`; on success (0) all `count` places hold fresh buffers that are ours alone, and otherwise none is kept.
        unsafe {
            let room = burst.as_mut_ptr().add(len).cast::<*mut rte_mbuf>();
            if dpdk_sys::shim_pktmbuf_alloc_bulk(self.inner.as_ptr(), room, count as u32) != 0 {
                return 0;
            }
            burst.set_len(len + count);
        }
        count
    }
}

impl Inner {
    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }

    fn in_use(&self) -> u32 {
        // SAFETY: the pool lives until `drop` frees it.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.in_use() == 0 {
            // SAFETY: the last handle goes, no buffer is out, and ports that could take one hold a handle.
            unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
        } else {
            // A buffer is still out and will come back: its memory has to stay, so EAL is never cleaned up.
            std::mem::forget(Arc::clone(&self.eal));
        }
    }
}
