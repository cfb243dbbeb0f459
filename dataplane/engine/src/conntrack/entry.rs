//! One connection in 64 bytes, one cache line.

use std::mem::offset_of;

use crate::cpu::{Isa, V3};
use crate::flow_key::{EntryKey, State, bit, without_required_state};
use crate::packet::{PacketMeta, flags};
use crate::timer_wheel::EvictionClass;
use crate::{AddrId, Generation, RuleId};

/// What is known of one side's sequence numbers (semantics 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// Highest sequence number it has sent, plus one.
    pub end: u32,
    /// Highest sequence number it may send.
    pub maxend: u32,
    /// Largest window it offered, scaled.
    pub maxwin: u32,
    /// Highest number it has acknowledged to the other side.
    pub acked: u32,
}

/// A SYN that passed within a connection, so that what answers it may be told (semantics 4.3):
/// beside the entries, since few have one. Its scale and its sender are in the entry's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LastSyn {
    /// Its sequence number.
    pub seq: u32,
    /// Bytes that it bore.
    len: u16,
    /// The window that it offered.
    pub window: u16,
}

impl LastSyn {
    /// This one.
    pub fn of(pkt: &PacketMeta) -> LastSyn {
        let len = pkt.seq_end.wrapping_sub(pkt.seq).saturating_sub(1);
        LastSyn { seq: pkt.seq, len: u16::try_from(len).unwrap_or(u16::MAX), window: pkt.win }
    }

    /// As it lies in memory.
    pub(super) fn from_bytes(bytes: [u8; 8]) -> LastSyn {
        let [a, b, c, d, e, f, g, h] = bytes;
        LastSyn {
            seq: u32::from_ne_bytes([a, b, c, d]),
            len: u16::from_ne_bytes([e, f]),
            window: u16::from_ne_bytes([g, h]),
        }
    }

    /// Sequence number behind it.
    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(1 + u32::from(self.len))
    }

    /// Whether a segment acknowledges it, with or without what it bore.
    pub fn is_acknowledged(&self, pkt: &PacketMeta) -> bool {
        let above = pkt.ack.wrapping_sub(self.seq);
        pkt.flags & flags::ACK != 0 && above >= 1 && above <= 1 + u32::from(self.len)
    }
}

macro_rules! flag {
    ($get:ident, $set:ident, $bit:ident, $doc:literal) => {
        #[doc = $doc]
        #[inline]
        pub fn $get(&self) -> bool {
            self.meta & bit::$bit != 0
        }

        #[doc = concat!("Sets or clears it: ", $doc)]
        #[inline]
        pub fn $set(&mut self, on: bool) {
            self.meta = if on { self.meta | bit::$bit } else { self.meta & !bit::$bit };
        }
    };
}

/// Which of the two, or of the three scales.
pub type Peer = usize;
/// The side that opened the connection.
pub const OPENER: Peer = 0;
/// The other side.
pub const RESPONDER: Peer = 1;
/// The sender of the SYN last passed within the connection: its scale alone.
pub const LAST_SYN: Peer = 2;

/// One connection. The key is `addr`, `remote` (IPv6: a digest, with the address in the shard's
/// side table), `ports` and the low bits of `meta`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Entry {
    /// NIC and local address.
    pub addr: AddrId,
    /// Remote IPv4 address, or some bits of the IPv6 one.
    pub remote: u32,
    /// Local port × 65536 + remote port; of ICMP identifier × 65536 + kind × 256 + 1 if opened
    /// inbound.
    pub ports: u32,
    meta: u32,
    /// The tick at which it is gone.
    pub deadline: u32,
    /// The generation at which it was last found live, or at which re-judging killed it.
    pub stamp: Generation,
    rule_class: u32,
    /// TCP: of the opener's SYN, the latest. ICMP: type and code of the request that opened it.
    pub syn_seq: u32,
    /// TCP: opener's and responder's windows.
    pub windows: [Window; 2],
}

const _: () = assert!(size_of::<Entry>() == 64);
// The order in which a kept table is read.
const _: () = assert!(offset_of!(Entry, deadline) == 16 && offset_of!(Entry, stamp) == 20);
const _: () = assert!(offset_of!(Entry, rule_class) == 24 && offset_of!(Entry, syn_seq) == 28);
const _: () = assert!(offset_of!(Entry, windows) == 32);
// The four words that are loaded as an `EntryKey` is.
const _: () = assert!(offset_of!(Entry, addr) == 0 && offset_of!(Entry, remote) == 4);
const _: () = assert!(offset_of!(Entry, ports) == 8 && offset_of!(Entry, meta) == 12);

impl Entry {
    /// A new connection; state, deadline and class are set when it is admitted.
    pub fn new(addr: AddrId, remote: u32, ports: u32, key_meta: u32, inbound: bool) -> Entry {
        Entry {
            addr,
            remote,
            ports,
            meta: key_meta | if inbound { bit::INBOUND } else { 0 },
            deadline: 0,
            stamp: Generation(0),
            rule_class: RuleId::NONE.0,
            syn_seq: 0,
            windows: [Window::default(); 2],
        }
    }

    /// As it lies in memory: its words one after the other.
    pub(super) fn from_bytes(bytes: &[u8; 64]) -> Entry {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
        }
        let [addr, remote, ports, meta, deadline, stamp, rule_class, syn_seq, windows @ ..] = words;
        let [a, b, c, d, e, f, g, h] = windows;
        let windows = [[a, b, c, d], [e, f, g, h]].map(|[end, maxend, maxwin, acked]| Window {
            end,
            maxend,
            maxwin,
            acked,
        });
        let (addr, stamp) = (AddrId(addr), Generation(stamp));
        Entry { addr, remote, ports, meta, deadline, stamp, rule_class, syn_seq, windows }
    }

    /// The flags that a seal holds.
    #[inline]
    pub(super) fn sealed_meta(&self) -> u32 {
        self.meta & bit::SEALED
    }

    /// True if its state is one of those that there are.
    pub(super) fn has_known_state(&self) -> bool {
        (self.meta >> bit::STATE & 0xF) as usize <= State::IcmpAnswered as usize
    }

    #[inline]
    fn differs(&self, key: &EntryKey, meta: u32) -> bool {
        let mine = EntryKey::new(self.addr, self.remote, self.ports, self.meta);
        let counts = u64::from(meta) << 32 | u64::from(u32::MAX);
        (mine.addrs ^ key.addrs) | (mine.rest ^ key.rest) & counts != 0
    }

    /// True if the key's part in this line fits.
    #[inline]
    pub fn has_key(&self, key: &EntryKey) -> bool {
        !self.differs(key, bit::PROTO | bit::V6)
    }

    /// True if it has this key and stands as the key demands, and no re-judging has killed it.
    #[inline(always)]
    pub fn matches_fast_path(&self, isa: impl Isa, key: &EntryKey) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = isa.v3() {
            return self.matches_fast_path_v3(v3, key);
        }
        !self.differs(key, bit::FAST_PATH)
    }

    /// [`Entry::matches_fast_path`] in one comparison.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn matches_fast_path_v3(&self, _: V3, key: &EntryKey) -> bool {
        use std::arch::x86_64::{__m128i, _mm_load_si128, _mm_set_epi32, _mm_testz_si128, _mm_xor_si128};
        // SAFETY: both begin with the key's four words, on multiples of 16 bytes; the token proves
        // SSE4.1.
        unsafe {
            let mine = _mm_load_si128(std::ptr::from_ref(self).cast::<__m128i>());
            let asked = _mm_load_si128(std::ptr::from_ref(key).cast::<__m128i>());
            let counts = _mm_set_epi32(bit::FAST_PATH as i32, -1, -1, -1);
            _mm_testz_si128(_mm_xor_si128(mine, asked), counts) == 1
        }
    }

    /// Its key.
    pub fn key(&self) -> EntryKey {
        EntryKey::new(self.addr, self.remote, self.ports, self.key_meta())
    }

    /// The part of the flags that belongs to the key.
    pub fn key_meta(&self) -> u32 {
        without_required_state(self.meta)
    }

    /// IP protocol.
    pub fn protocol(&self) -> u8 {
        self.meta as u8
    }

    /// Where it stands.
    #[inline]
    pub fn state(&self) -> State {
        State::from_bits(self.meta >> bit::STATE)
    }

    /// Moves it to another state.
    #[inline]
    pub fn set_state(&mut self, state: State) {
        self.meta = self.meta & !(0xF << bit::STATE) | (state as u32) << bit::STATE;
    }

    flag!(is_inbound, set_inbound, INBOUND, "The opening packet was inbound.");
    flag!(is_v6, set_v6, V6, "IPv6.");
    flag!(is_dead, set_dead, DEAD, "Re-judging killed it, at the generation of its stamp.");
    flag!(is_unchecked, set_unchecked, UNCHECKED, "Picked up in mid-stream: without window check.");
    flag!(has_noted_syn, set_has_noted_syn, SYN_NOTED, "A SYN passed within the connection.");
    flag!(noted_by_responder, set_noted_by_responder, SYN_BY_RESPONDER, "The responder sent that SYN.");
    flag!(
        fin_by_responder,
        set_fin_by_responder,
        FIN_BY_RESPONDER,
        "In `fin-wait`: the FIN was the responder's."
    );
    flag!(is_syn_again, set_syn_again, SYN_AGAIN, "In `syn-received`: the opener's SYN came again.");
    flag!(is_crossed, set_crossed, CROSSED, "In `syn-received`: the responder sent a SYN without ACK.");

    /// A side's window scale.
    #[inline]
    pub fn scale(&self, who: Peer) -> u8 {
        // Worked out, not looked up: it is asked of every segment.
        (self.meta >> (bit::SCALES[0] + 4 * who as u32)) as u8 & 0xF
    }

    /// Notes a side's window scale.
    pub fn set_scale(&mut self, who: Peer, scale: u8) {
        self.meta = self.meta & !(0xF << bit::SCALES[who]) | u32::from(scale & 0xF) << bit::SCALES[who];
    }

    /// The rule that let it in.
    pub fn rule(&self) -> RuleId {
        RuleId(self.rule_class & RuleId::NONE.0)
    }

    /// Notes the rule that let it in.
    pub fn set_rule(&mut self, rule: RuleId) {
        self.rule_class = self.rule_class & !RuleId::NONE.0 | rule.0 & RuleId::NONE.0;
    }

    /// The list it is filed in.
    #[inline]
    pub fn class(&self) -> EvictionClass {
        match self.rule_class >> 30 {
            0 => EvictionClass::Confirmed,
            1 => EvictionClass::Unconfirmed,
            2 => EvictionClass::Tombstone,
            _ => EvictionClass::Ended,
        }
    }

    /// Notes the list it is filed in.
    pub fn set_class(&mut self, class: EvictionClass) {
        self.rule_class = self.rule_class & RuleId::NONE.0 | (class as u32) << 30;
    }
}
