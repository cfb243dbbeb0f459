//! TCP segments.

use std::net::IpAddr;

use super::{
    Endpoint, Packet, Transport,
    ip::{checksum, pseudo_header},
};

/// Flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// Flag: synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Flag: reset the connection.
pub const RST: u8 = 0x04;
/// Flag: push.
pub const PSH: u8 = 0x08;
/// Flag: the acknowledgment number counts.
pub const ACK: u8 = 0x10;
/// Flag: the urgent pointer counts.
pub const URG: u8 = 0x20;
/// Flag: congestion echo.
pub const ECE: u8 = 0x40;
/// Flag: congestion window reduced.
pub const CWR: u8 = 0x80;

/// A TCP segment; made by [`tcp`].
#[derive(Clone, Debug)]
pub struct Tcp {
    ports: (u16, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    data_offset: Option<u8>,
    checksum: Option<u16>,
}

/// A segment without flags, with sequence number 0 and a window of 65,535.
pub fn tcp(src: impl Into<Endpoint>, dst: impl Into<Endpoint>) -> Packet<Tcp> {
    let (src, dst) = (src.into().0, dst.into().0);
    let transport = Tcp {
        ports: (src.port(), dst.port()),
        seq: 0,
        ack: 0,
        flags: 0,
        window: u16::MAX,
        urgent: 0,
        options: vec![],
        payload: vec![],
        data_offset: None,
        checksum: None,
    };
    Packet::new(src.ip(), dst.ip(), transport)
}

impl Packet<Tcp> {
    /// Adds SYN.
    pub fn syn(self) -> Self {
        self.flag(SYN)
    }

    /// Adds FIN.
    pub fn fin(self) -> Self {
        self.flag(FIN)
    }

    /// Adds RST.
    pub fn rst(self) -> Self {
        self.flag(RST)
    }

    /// Adds PSH.
    pub fn psh(self) -> Self {
        self.flag(PSH)
    }

    /// Adds ACK with this number.
    pub fn ack(mut self, ack: u32) -> Self {
        self.transport.ack = ack;
        self.flag(ACK)
    }

    /// Adds flags.
    pub fn flag(mut self, flags: u8) -> Self {
        self.transport.flags |= flags;
        self
    }

    /// Exactly these flags, however impossible.
    pub fn flags(mut self, flags: u8) -> Self {
        self.transport.flags = flags;
        self
    }

    /// The sequence number.
    pub fn seq(mut self, seq: u32) -> Self {
        self.transport.seq = seq;
        self
    }

    /// The window field, unscaled.
    pub fn window(mut self, window: u16) -> Self {
        self.transport.window = window;
        self
    }

    /// The urgent pointer, with its flag.
    pub fn urgent(mut self, pointer: u16) -> Self {
        self.transport.urgent = pointer;
        self.flag(URG)
    }

    /// Option: maximum segment size.
    pub fn mss(self, mss: u16) -> Self {
        let [high, low] = mss.to_be_bytes();
        self.option(&[2, 4, high, low])
    }

    /// Option: window scale.
    pub fn wscale(self, shift: u8) -> Self {
        self.option(&[3, 3, shift])
    }

    /// Option: selective acknowledgments permitted.
    pub fn sack_permitted(self) -> Self {
        self.option(&[4, 2])
    }

    /// Option: timestamps.
    pub fn timestamps(self, value: u32, echo: u32) -> Self {
        self.option(&[&[8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat())
    }

    /// Any bytes in the options, which are padded with zeros (end of options) to a multiple of 4.
    pub fn option(mut self, bytes: &[u8]) -> Self {
        self.transport.options.extend(bytes);
        self
    }

    /// The data.
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.transport.payload = payload.as_ref().to_vec();
        self
    }

    /// Another data offset, in units of 4 bytes.
    pub fn lie_data_offset(mut self, words: u8) -> Self {
        self.transport.data_offset = Some(words);
        self
    }

    /// Another checksum.
    pub fn lie_checksum(mut self, checksum: u16) -> Self {
        self.transport.checksum = Some(checksum);
        self
    }
}

impl Transport for Tcp {
    fn protocol(&self, _: bool) -> u8 {
        6
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let header = 20 + self.options.len().next_multiple_of(4);
        let mut bytes = Vec::with_capacity(header + self.payload.len());
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([self.data_offset.unwrap_or((header / 4) as u8) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(&self.options);
        bytes.resize(header, 0);
        bytes.extend(&self.payload);
        let pseudo = pseudo_header(src, dst, 6, bytes.len());
        let sum = self.checksum.unwrap_or_else(|| checksum(&[&pseudo, &bytes]));
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}
