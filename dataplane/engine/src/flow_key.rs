//! What tells connections apart, and the states they can be in: shared by the parser, which makes
//! keys, and by the table.

use std::mem::offset_of;

use crate::AddrId;
use crate::timer_wheel::EvictionClass;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// TCP: the opener's SYN.
    SynSent = 0,
    /// TCP: both SYNs.
    SynReceived = 1,
    /// TCP: data may flow.
    Established = 2,
    /// TCP: one FIN.
    FinWait = 3,
    /// TCP: both FINs.
    Closing = 4,
    /// Others: one direction seen.
    OneWay = 5,
    /// Others: both directions seen.
    TwoWay = 6,
    /// ICMP: only the request seen.
    Icmp = 7,
    /// ICMP: a reply seen too.
    IcmpAnswered = 8,
}

/// All states, in the order of their numbers.
pub const STATES: [State; 9] = [
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait,
    State::Closing,
    State::OneWay,
    State::TwoWay,
    State::Icmp,
    State::IcmpAnswered,
];

impl State {
    /// A table instead of a `match`: this is asked several times a packet.
    #[inline]
    pub(crate) fn from_bits(bits: u32) -> State {
        use State::{
            Closing, Established, FinWait, Icmp, IcmpAnswered, OneWay, SynReceived, SynSent, TwoWay,
        };
        const BY_BITS: [State; 16] = [
            SynSent,
            SynReceived,
            Established,
            FinWait,
            Closing,
            OneWay,
            TwoWay,
            Icmp,
            IcmpAnswered,
            IcmpAnswered,
            IcmpAnswered,
            IcmpAnswered,
            IcmpAnswered,
            IcmpAnswered,
            IcmpAnswered,
            IcmpAnswered,
        ];
        BY_BITS[(bits & 0xF) as usize]
    }

    /// As output spells it.
    pub fn name(self) -> &'static str {
        match self {
            State::SynSent => "syn-sent",
            State::SynReceived => "syn-received",
            State::Established => "established",
            State::FinWait => "fin-wait",
            State::Closing => "closing",
            State::OneWay => "one-way",
            State::TwoWay => "two-way",
            State::Icmp | State::IcmpAnswered => "icmp",
        }
    }

    /// Whether a newcomer may take its place (semantics 6.1).
    pub fn class(self) -> EvictionClass {
        match self {
            State::SynSent | State::SynReceived | State::OneWay | State::Icmp => EvictionClass::Unconfirmed,
            _ => EvictionClass::Confirmed,
        }
    }
}

/// The bits of an entry's flags, of which some belong to the key.
pub(crate) mod bit {
    pub const PROTO: u32 = 0xFF;
    pub const STATE: u32 = 8;
    pub const INBOUND: u32 = 1 << 12;
    pub const V6: u32 = 1 << 13;
    pub const DEAD: u32 = 1 << 14;
    pub const UNCHECKED: u32 = 1 << 15;
    pub const SYN_NOTED: u32 = 1 << 16;
    pub const SYN_BY_RESPONDER: u32 = 1 << 17;
    /// In `fin-wait` who closed, in `syn-received` whether the opener's SYN came again.
    pub const FIN_BY_RESPONDER: u32 = 1 << 18;
    pub const SYN_AGAIN: u32 = FIN_BY_RESPONDER;
    pub const CROSSED: u32 = 1 << 19;
    /// What a permission rests on.
    pub const SEALED: u32 = PROTO | V6 | INBOUND | DEAD;
    /// What a packet that goes the short way has in common with its entry: none of them is dead.
    pub const FAST_PATH: u32 = PROTO | V6 | DEAD | 0xF << STATE;
    /// Window scales: opener's, responder's, and that of the noted SYN.
    pub const SCALES: [u32; 3] = [20, 24, 28];
}

/// A connection's key as it lies at the beginning of its entry. In two halves, as it is loaded,
/// hashed and stored: of four words the compiler does that one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct EntryKey {
    /// Remote address × 2³² + NIC and local address.
    pub(crate) addrs: u64,
    /// Flags × 2³² + ports.
    pub(crate) rest: u64,
}

impl EntryKey {
    /// From what `Entry`'s fields of these names say; `meta` is [`key_meta`], and
    /// [`required_state_bits`] where a packet's short way is looked for.
    #[inline(always)]
    pub const fn new(addr: AddrId, remote: u32, ports: u32, meta: u32) -> EntryKey {
        EntryKey::of_packet(addr, remote, (meta as u64) << 32 | ports as u64)
    }

    /// The same with `meta` and `ports` put together.
    #[inline(always)]
    pub const fn of_packet(addr: AddrId, remote: u32, rest: u64) -> EntryKey {
        EntryKey { addrs: (remote as u64) << 32 | addr.0 as u64, rest }
    }

    /// See `Entry::addr`.
    #[inline]
    pub fn addr(&self) -> AddrId {
        AddrId(self.addrs as u32)
    }

    /// See `Entry::remote`.
    #[inline]
    pub fn remote(&self) -> u32 {
        (self.addrs >> 32) as u32
    }

    /// See `Entry::ports`.
    #[inline]
    pub fn ports(&self) -> u32 {
        self.rest as u32
    }

    /// See [`EntryKey::new`].
    #[inline]
    pub fn meta(&self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// The same key with other flags.
    pub fn with_meta(&self, meta: u32) -> EntryKey {
        EntryKey::new(self.addr(), self.remote(), self.ports(), meta)
    }

    /// True if it demands this state.
    #[inline]
    pub fn requires_state(&self, state: State) -> bool {
        self.meta() & 0xF << bit::STATE == required_state_bits(Some(state))
    }

    /// IPv6.
    #[inline]
    pub fn is_v6(&self) -> bool {
        self.meta() & bit::V6 != 0
    }
}

/// The part of an entry's flags that belongs to the key.
#[inline]
pub fn key_meta(protocol: u8, v6: bool) -> u32 {
    u32::from(protocol) | if v6 { bit::V6 } else { 0 }
}

/// Beside a key's flags: the state in which a connection must be for its packet to change nothing
/// but windows and deadline. `None` is a state that no connection has: the packet goes the long
/// way.
#[inline]
pub const fn required_state_bits(state: Option<State>) -> u32 {
    match state {
        Some(state) => (state as u32) << bit::STATE,
        None => 0xF << bit::STATE,
    }
}

/// A key's flags without what is demanded.
#[inline]
pub fn without_required_state(meta: u32) -> u32 {
    meta & (bit::PROTO | bit::V6)
}

const _: () = assert!(size_of::<EntryKey>() == 16);
const _: () = assert!(offset_of!(EntryKey, addrs) == 0 && offset_of!(EntryKey, rest) == 8);
