//! One packet buffer, or a chain of them: a frame.

use std::marker::PhantomData;
use std::ptr::NonNull;

use dpdk_sys::{rte_mbuf, shim_mbuf};
use engine::io::Frame;

/// Bytes of the two MAC addresses, behind which a VLAN tag stands.
const MACS: usize = 12;
/// Bytes of a VLAN tag.
const TAG: u16 = 4;
/// The EtherType of 802.1Q.
const TPID: u16 = 0x8100;

/// An owned frame: freed once, when dropped. Its pool's memory outlives it (see [`crate::Mempool`]).
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<rte_mbuf>,
    /// Not Sync: `rte_mbuf` has fields that DPDK writes through shared references.
    _not_sync: PhantomData<std::cell::Cell<()>>,
}

// SAFETY: an mbuf belongs to whoever holds it and may be freed on any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of `raw`.
    ///
    /// # Safety
    /// `raw` is a live mbuf (with its chain) that nobody else will free or touch.
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self { raw, _not_sync: PhantomData }
    }

    #[inline]
    fn view(&self) -> &shim_mbuf {
        // SAFETY: a live mbuf of ours; `shim_mbuf` has the layout of `rte_mbuf` (asserted in dpdk-sys).
        unsafe { self.raw.cast().as_ref() }
    }

    #[inline]
    fn view_mut(&mut self) -> &mut shim_mbuf {
        // SAFETY: as in `view`, and `self` is exclusive.
        unsafe { self.raw.cast().as_mut() }
    }

    /// Segments of the chain.
    #[inline]
    pub fn segments(&self) -> u16 {
        self.view().nb_segs
    }

    /// The port's identifier that the frame came from, as its driver wrote it.
    #[inline]
    pub fn port(&self) -> u16 {
        self.view().port
    }

    /// The first segment's bytes, to be changed in place.
    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        let view = self.view();
        // SAFETY: `data_off..data_off + data_len` lies in the buffer at `buf_addr`, which is this mbuf's own.
        unsafe {
            let data = view.buf_addr.cast::<u8>().add(usize::from(view.data_off));
            std::slice::from_raw_parts_mut(data, usize::from(view.data_len))
        }
    }

    /// Appends `bytes` to the last segment; false, and nothing changed, if it has no room for them.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let Ok(len) = u16::try_from(bytes.len()) else { return false };
        // SAFETY: a live mbuf of ours; append returns the place of `len` fresh bytes in its last segment, or null.
        unsafe {
            let place = dpdk_sys::shim_pktmbuf_append(self.raw.as_ptr(), len);
            if place.is_null() {
                return false;
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.cast(), bytes.len());
        }
        true
    }

    /// Makes `bytes` the whole frame; false, and nothing changed, if the frame is segmented or shared, or its buffer has no room
    /// for them. Costs a copy and no call, so that a generator can fill frame after frame.
    #[inline]
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        let view = self.view_mut();
        let room = usize::from(view.buf_len).saturating_sub(usize::from(view.data_off));
        let shared = view.refcnt != 1
            || view.ol_flags & (dpdk_sys::SHIM_MBUF_INDIRECT | dpdk_sys::SHIM_MBUF_EXTERNAL) != 0;
        if (bytes.len() > room) | (view.nb_segs != 1) | shared {
            return false;
        }
        // Both fit: `buf_len` is a u16.
        view.data_len = bytes.len() as u16;
        view.pkt_len = bytes.len() as u32;
        // SAFETY: `room` bytes from `data_off` on lie in this mbuf's own buffer, which nobody else uses (checked above).
        unsafe {
            let data = view.buf_addr.cast::<u8>().add(usize::from(view.data_off));
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        }
        true
    }

    /// Makes `tail` the frame's last segments; gives it back if there would be too many.
    pub fn chain(&mut self, tail: Self) -> Result<(), Self> {
        // SAFETY: both are live chains of ours; on success the tail belongs to the head, so it is not dropped.
        match unsafe { dpdk_sys::shim_pktmbuf_chain(self.raw.as_ptr(), tail.raw.as_ptr()) } {
            0 => {
                std::mem::forget(tail);
                Ok(())
            }
            _ => Err(tail),
        }
    }

    /// Moves all bytes into the first segment; false, and nothing changed, if it has no room for them.
    pub(crate) fn linearize(&mut self) -> bool {
        // SAFETY: a live chain of ours.
        unsafe { dpdk_sys::shim_pktmbuf_linearize(self.raw.as_ptr()) == 0 }
    }

    /// Moves the outermost 802.1Q tag from the bytes to the mbuf's side, as a device that strips tags does. For tests
    /// of what follows; false if there is no such tag.
    pub fn strip_tag(&mut self) -> bool {
        let head = self.head_mut();
        if head.len() < MACS + usize::from(TAG) || head[MACS..MACS + 2] != TPID.to_be_bytes() {
            return false;
        }
        let tci = u16::from_be_bytes([head[MACS + 2], head[MACS + 3]]);
        head.copy_within(..MACS, usize::from(TAG));
        let view = self.view_mut();
        view.data_off += TAG;
        view.data_len -= TAG;
        view.pkt_len -= u32::from(TAG);
        view.vlan_tci = tci;
        view.ol_flags |= dpdk_sys::SHIM_RX_VLAN | dpdk_sys::SHIM_RX_VLAN_STRIPPED;
        true
    }
}

/// Asks for the cache line at an address.
#[inline]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl Frame for Mbuf {
    #[inline]
    fn head(&self) -> &[u8] {
        let view = self.view();
        // SAFETY: `data_off..data_off + data_len` lies in the buffer at `buf_addr`, which is this mbuf's own.
        unsafe {
            let data = view.buf_addr.cast::<u8>().add(usize::from(view.data_off));
            std::slice::from_raw_parts(data, usize::from(view.data_len))
        }
    }

    #[inline]
    fn captured(&self) -> usize {
        self.view().pkt_len as usize
    }

    #[inline]
    fn is_odd(&self) -> bool {
        let view = self.view();
        (view.nb_segs != 1) | (view.ol_flags & dpdk_sys::SHIM_RX_VLAN_STRIPPED != 0)
    }

    fn restore_tag(&mut self) -> bool {
        let view = self.view_mut();
        if view.ol_flags & dpdk_sys::SHIM_RX_VLAN_STRIPPED == 0 {
            return true;
        }
        let shared = view.refcnt != 1 || view.ol_flags & dpdk_sys::SHIM_MBUF_INDIRECT != 0;
        if shared
            || view.data_off < TAG
            || usize::from(view.data_len) < MACS
            || view.data_len > u16::MAX - TAG
        {
            return false;
        }
        view.data_off -= TAG;
        view.data_len += TAG;
        view.pkt_len += u32::from(TAG);
        view.ol_flags &= !(dpdk_sys::SHIM_RX_VLAN | dpdk_sys::SHIM_RX_VLAN_STRIPPED);
        let tci = view.vlan_tci.to_be_bytes();
        let head = self.head_mut();
        head.copy_within(usize::from(TAG)..usize::from(TAG) + MACS, 0);
        head[MACS..MACS + 2].copy_from_slice(&TPID.to_be_bytes());
        head[MACS + 2..MACS + 4].copy_from_slice(&tci);
        true
    }

    fn gather(&self, out: &mut [u8]) -> usize {
        let mut done = 0;
        let mut segment: *const shim_mbuf = self.view();
        while !segment.is_null() && done < out.len() {
            // SAFETY: a chain's segments are live mbufs, each with `data_len` bytes at `data_off` of its buffer.
            let bytes = unsafe {
                let view = &*segment;
                segment = view.next;
                let data = view.buf_addr.cast::<u8>().add(usize::from(view.data_off));
                std::slice::from_raw_parts(data, usize::from(view.data_len))
            };
            let n = bytes.len().min(out.len() - done);
            out[done..done + n].copy_from_slice(&bytes[..n]);
            done += n;
        }
        done
    }

    #[inline]
    fn prefetch(&self, deep: bool) {
        let view = self.view();
        let head = view.buf_addr.cast::<u8>().wrapping_add(usize::from(view.data_off));
        prefetch(head);
        if deep {
            prefetch(head.wrapping_add(64));
        }
    }

    #[inline]
    fn prefetch_metadata(&self) {
        // Who frees it looks into the second line.
        let first = self.raw.as_ptr().cast::<u8>();
        prefetch(first);
        prefetch(first.wrapping_add(64));
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the chain is ours, and this is the only place that frees it one by one (`Queue` frees in bulk,
        // and forgets).
        unsafe { dpdk_sys::shim_pktmbuf_free(self.raw.as_ptr()) };
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let view = self.view();
        f.debug_struct("Mbuf")
            .field("len", &view.pkt_len)
            .field("segments", &view.nb_segs)
            .finish_non_exhaustive()
    }
}
