//! Why a packet passed or was dropped.

/// Exactly one of these belongs to every packet (semantics 6.4; names from the interfaces page).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Passed: a packet of a live connection.
    Established = 0,
    /// Passed: opened a connection.
    New,
    /// Passed: an ICMP error about a packet of a live connection.
    Related,
    /// Passed: behind a first fragment that passed.
    Fragment,
    /// Passed: not judged by rules (ARP, neighbour discovery, DHCP, …).
    Control,
    /// No rule of its direction matches.
    NoRule,
    /// A deny rule matches.
    Denied,
    /// Its connection was disconnected by a change of rules, and its timeout runs still.
    Tombstone,
    /// Fits no connection and can open none, or lies outside its connection's state or window.
    Invalid,
    /// A header is cut or contradicts itself.
    Malformed,
    /// A later fragment without a known first.
    FragmentNoFirst,
    /// No VPC has the segment.
    UnknownSegment,
    /// From inside, and no NIC has the source address.
    UnknownSource,
    /// From outside, and no NIC has the destination address.
    UnknownDestination,
    /// The source address, MAC or ARP sender is somebody else's.
    Spoofed,
    /// A router advertisement, redirect or DHCP server where none may be.
    Rogue,
    /// Neither IP nor ARP nor a listed ethertype.
    NotIp,
    /// The table of connections has no room.
    TableFull,
    /// The NIC has all the connections it may.
    NicLimit,
    /// The ring to the worker that owns the connection is full.
    HandoffFull,
    /// The port refused to send it: no room, or longer than the MTU.
    TxFull,
    /// The port it should leave by has nobody behind it: link down, interface gone, peer absent.
    TxDown,
}

/// How many reasons there are.
pub const REASONS: usize = 22;

impl Reason {
    /// All, in order of their number.
    pub const ALL: [Reason; REASONS] = [
        Reason::Established,
        Reason::New,
        Reason::Related,
        Reason::Fragment,
        Reason::Control,
        Reason::NoRule,
        Reason::Denied,
        Reason::Tombstone,
        Reason::Invalid,
        Reason::Malformed,
        Reason::FragmentNoFirst,
        Reason::UnknownSegment,
        Reason::UnknownSource,
        Reason::UnknownDestination,
        Reason::Spoofed,
        Reason::Rogue,
        Reason::NotIp,
        Reason::TableFull,
        Reason::NicLimit,
        Reason::HandoffFull,
        Reason::TxFull,
        Reason::TxDown,
    ];

    /// True for the reasons to pass.
    #[inline]
    pub fn passes(self) -> bool {
        (self as u8) <= Reason::Control as u8
    }

    /// As output spells it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Established => "established",
            Reason::New => "new",
            Reason::Related => "related",
            Reason::Fragment => "fragment",
            Reason::Control => "control",
            Reason::NoRule => "no-rule",
            Reason::Denied => "denied",
            Reason::Tombstone => "tombstone",
            Reason::Invalid => "invalid",
            Reason::Malformed => "malformed",
            Reason::FragmentNoFirst => "fragment-no-first",
            Reason::UnknownSegment => "unknown-segment",
            Reason::UnknownSource => "unknown-source",
            Reason::UnknownDestination => "unknown-destination",
            Reason::Spoofed => "spoofed",
            Reason::Rogue => "rogue",
            Reason::NotIp => "not-ip",
            Reason::TableFull => "table-full",
            Reason::NicLimit => "nic-limit",
            Reason::HandoffFull => "handoff-full",
            Reason::TxFull => "tx-full",
            Reason::TxDown => "tx-down",
        }
    }
}
