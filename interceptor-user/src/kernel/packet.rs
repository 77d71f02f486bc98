//! What a refused packet was, read from its first bytes.
//!
//! The programs show the head of what egress and ingress dropped. From it comes what an
//! operator asks: from where to where, over what, and how a connection was begun. What it
//! carried is told by its length alone: that could be a secret, and is thrown away here.
//!
//! Formats: RFC 791, RFC 8200 (section 4 for extension headers), RFC 9293, RFC 768,
//! RFC 792, RFC 4443.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nom::IResult;
use nom::Parser as _;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32, be_u128};
use serde::Serialize;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMP_V6: u8 = 58;
const DESTINATION: u8 = 60;
const UDP_LITE: u8 = 136;

/// Extension headers that are read; no honest packet has as many.
const MOST_EXTENSIONS: usize = 8;

/// What a refused packet was, as far as its first bytes say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// Bytes of it, headers included.
    pub length: u32,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Where it was going.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// The protocol's number, behind extension headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Port that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Port that it was going to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// TCP's flags, by their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
    /// ICMP's type and code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// Options of IPv4 and extension headers of IPv6: what can lead a packet elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<&'static str>,
    /// Bytes that it carried, where its headers were seen whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<u32>,
}

impl Packet {
    /// Reads a packet's first bytes; what is cut off stays unsaid.
    #[must_use]
    pub fn read(head: &[u8], length: u32) -> Self {
        let mut packet = Self {
            length,
            ..Self::default()
        };
        // As far as it goes: each part notes what it has read before it reads on.
        let rest = match head.first().map(|byte| byte >> 4) {
            Some(4) => packet.read_v4(head),
            Some(6) => packet.read_v6(head),
            _ => return packet,
        };
        if let Ok((rest, Some(protocol))) = rest {
            packet.protocol = Some(protocol);
            if let Ok((rest, ())) = packet.read_transport(protocol, rest) {
                let headers = head.len().checked_sub(rest.len());
                packet.payload = headers
                    .and_then(|headers| u32::try_from(headers).ok())
                    .and_then(|headers| length.checked_sub(headers));
            }
        }
        packet
    }

    /// What the protocol is called.
    #[must_use]
    pub fn protocol_name(protocol: u32) -> String {
        match protocol {
            0 => "an unknown protocol".to_owned(),
            1 => "ICMP".to_owned(),
            2 => "IGMP".to_owned(),
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            58 => "ICMPv6".to_owned(),
            132 => "SCTP".to_owned(),
            136 => "UDP-Lite".to_owned(),
            255 => "raw".to_owned(),
            262 => "MPTCP".to_owned(),
            other => format!("protocol {other}"),
        }
    }

    fn read_v4<'a>(&mut self, head: &'a [u8]) -> IResult<&'a [u8], Option<u8>> {
        let (rest, (first, _, _, _, fragment)) =
            (be_u8, be_u8, be_u16, be_u16, be_u16).parse(head)?;
        let (rest, (_, protocol, _, source, destination)) =
            (be_u8, be_u8, be_u16, be_u32, be_u32).parse(rest)?;
        self.source = Some(Ipv4Addr::from_bits(source).into());
        self.destination = Some(Ipv4Addr::from_bits(destination).into());
        self.protocol = Some(protocol);
        let options = usize::from(first & 0xf).saturating_sub(5) * 4;
        if options > 0 {
            self.options.push("ipv4-options");
        }
        let (rest, _) = take(options)(rest)?;
        if fragment & 0x1fff != 0 {
            // Ports stand in the first fragment alone.
            self.options.push("fragment");
            return Ok((rest, None));
        }
        Ok((rest, Some(protocol)))
    }

    fn read_v6<'a>(&mut self, head: &'a [u8]) -> IResult<&'a [u8], Option<u8>> {
        let (rest, (_, _, next, _)) = (be_u32, be_u16, be_u8, be_u8).parse(head)?;
        let (mut rest, (source, destination)) = (be_u128, be_u128).parse(rest)?;
        self.source = Some(Ipv6Addr::from_bits(source).into());
        self.destination = Some(Ipv6Addr::from_bits(destination).into());
        let mut next = next;
        for _ in 0..MOST_EXTENSIONS {
            let name = match next {
                HOP_BY_HOP => "hop-by-hop",
                ROUTING => "routing",
                FRAGMENT => "fragment",
                DESTINATION => "destination-options",
                _ => break,
            };
            self.options.push(name);
            let (after, (following, units)) = (be_u8, be_u8).parse(rest)?;
            let length = match next {
                FRAGMENT => 6,
                _ => usize::from(units) * 8 + 6,
            };
            let (after, _) = take(length)(after)?;
            (next, rest) = (following, after);
        }
        Ok((rest, Some(next)))
    }

    fn read_transport<'a>(&mut self, protocol: u8, head: &'a [u8]) -> IResult<&'a [u8], ()> {
        match protocol {
            TCP => {
                let (rest, (source, destination)) = (be_u16, be_u16).parse(head)?;
                self.source_port = Some(source);
                self.destination_port = Some(destination);
                let (rest, (_, _, offset, bits, _)) =
                    (be_u32, be_u32, be_u8, be_u8, take(6usize)).parse(rest)?;
                self.flags = flags(bits);
                let options = usize::from(offset >> 4).saturating_sub(5) * 4;
                let (rest, _) = take(options)(rest)?;
                Ok((rest, ()))
            }
            UDP | UDP_LITE => {
                let (rest, (source, destination)) = (be_u16, be_u16).parse(head)?;
                self.source_port = Some(source);
                self.destination_port = Some(destination);
                let (rest, _) = be_u32(rest)?;
                Ok((rest, ()))
            }
            ICMP | ICMP_V6 => {
                let (rest, (kind, code, _)) = (be_u8, be_u8, be_u16).parse(head)?;
                self.icmp = Some((kind, code));
                let (rest, _) = be_u32(rest)?;
                Ok((rest, ()))
            }
            _ => Ok((head, ())),
        }
    }
}

fn flags(bits: u8) -> Vec<&'static str> {
    [
        (0x02, "SYN"),
        (0x10, "ACK"),
        (0x01, "FIN"),
        (0x04, "RST"),
        (0x08, "PSH"),
        (0x20, "URG"),
    ]
    .into_iter()
    .filter(|(bit, _)| bits & bit != 0)
    .map(|(_, name)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN of TCP Fast Open with five bytes in it, behind a routing header.
    fn routed_syn() -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 49, 43, 64];
        bytes.extend([0; 15]);
        bytes.push(1);
        bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        bytes.extend([6, 2, 4, 1, 0, 0, 0, 0]);
        bytes.extend([9; 16]);
        bytes.extend([0x9c, 0x40, 0x15, 0x38, 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(b"hello");
        bytes
    }

    #[test]
    fn a_packet_is_told_by_its_headers_and_never_by_what_it_carries() {
        let bytes = routed_syn();
        let length = u32::try_from(bytes.len()).unwrap();
        let packet = Packet::read(&bytes, length);
        assert_eq!(packet.destination, Some("2001:db8::7".parse().unwrap()));
        assert_eq!(packet.options, ["routing"]);
        assert_eq!(packet.flags, ["SYN"]);
        assert_eq!(
            (packet.source_port, packet.destination_port),
            (Some(40_000), Some(5432))
        );
        assert_eq!(packet.payload, Some(5));
        let told = serde_json::to_string(&packet).unwrap();
        assert!(
            !told.contains("hello") && !told.contains("104,101"),
            "{told}"
        );
    }

    #[test]
    fn what_is_cut_off_stays_unsaid() {
        let bytes = routed_syn();
        for cut in 0..bytes.len() {
            let packet = Packet::read(&bytes[..cut], 1_500);
            assert_eq!(packet.length, 1_500);
            if cut < 84 {
                assert_eq!(packet.payload, None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_ping_is_told_by_its_type() {
        let mut bytes = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0];
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0, 0, 0, 1, 0, 1]);
        bytes.extend(*b"a secret");
        let packet = Packet::read(&bytes, 36);
        assert_eq!(packet.icmp, Some((8, 0)));
        assert_eq!(packet.protocol, Some(1));
    }

    #[test]
    fn no_bytes_make_it_fail() {
        for seed in 0..2_000u32 {
            let bytes: Vec<u8> = (0..128)
                .map(|at| (seed.wrapping_mul(2_654_435_761).wrapping_add(at * 97) >> 7) as u8)
                .collect();
            for version in [0x40, 0x45, 0x4f, 0x60] {
                let mut bytes = bytes.clone();
                bytes[0] = version | bytes[0] & 0xf;
                let _ = Packet::read(&bytes, seed);
            }
        }
    }
}
