//! Numbers as people write them on a command line. Each error says what is allowed.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use pktgen::plan::{IMIX, Rate};

/// `150000`, `150k`, `2Mpps`, `1.5M`, or `unlimited`.
pub fn rate(text: &str) -> Result<Rate, String> {
    if text == "unlimited" {
        return Ok(Rate::Unlimited);
    }
    pps(text).map(Rate::Pps)
}

/// As [`rate`], but always a number.
pub fn pps(text: &str) -> Result<f64, String> {
    let allowed = || "allowed: packets a second above 0, such as 150000, 150kpps or 2Mpps".to_owned();
    let bare = text.strip_suffix("pps").unwrap_or(text);
    let (digits, unit) = match bare.as_bytes().last() {
        Some(b'k' | b'K') => (&bare[..bare.len() - 1], 1e3),
        Some(b'M') => (&bare[..bare.len() - 1], 1e6),
        Some(b'G') => (&bare[..bare.len() - 1], 1e9),
        _ => (bare, 1.0),
    };
    let pps = plain(digits).ok_or_else(allowed)? * unit;
    if pps.is_finite() && pps > 0.0 { Ok(pps) } else { Err(allowed()) }
}

/// `0.1`, or `10%`.
pub fn share(text: &str) -> Result<f64, String> {
    let value = match text.strip_suffix('%') {
        Some(percent) => plain(percent).map(|percent| percent / 100.0),
        None => plain(text),
    };
    value
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "allowed: a share from 0 to 1, or 0% to 100%".to_owned())
}

/// `10`, `10s`, `200ms`, `5m`.
pub fn time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = if let Some(digits) = text.strip_suffix("ms") {
        (digits, 1e-3)
    } else if let Some(digits) = text.strip_suffix("us") {
        (digits, 1e-6)
    } else if let Some(digits) = text.strip_suffix('m') {
        (digits, 60.0)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    let seconds = plain(digits).map(|number| number * unit).filter(|seconds| *seconds < 1e7);
    let allowed = || "allowed: seconds, or a number with ms, s or m, such as 200ms".to_owned();
    seconds.map(Duration::from_secs_f64).ok_or_else(allowed)
}

/// `10000`, `10k`, `10M`.
pub fn count(text: &str) -> Result<u64, String> {
    let allowed = || "allowed: a whole number, such as 5000, 10k or 2M".to_owned();
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(allowed)
}

/// As [`count`], of 32 bits.
pub fn count32(text: &str) -> Result<u32, String> {
    u32::try_from(count(text)?).map_err(|_| "allowed: up to 4294967295".to_owned())
}

/// `64`, `64,512,1518`, or `imix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<u16>);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Sizes(IMIX.to_vec()));
        }
        let allowed = |_| "allowed: bytes from 64 to 1518, several with commas, or imix".to_owned();
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Sizes).map_err(allowed)
    }
}

/// TCP's flags by name, with commas.
pub fn tcp_flags(text: &str) -> Result<u8, String> {
    const NAMES: [&str; 6] = ["fin", "syn", "rst", "psh", "ack", "urg"];
    let bit = |name: &str| NAMES.iter().position(|known| *known == name).map(|at| 1 << at);
    let bits = text.split(',').map(bit).collect::<Option<Vec<u8>>>();
    bits.map(|bits| bits.into_iter().fold(0, |all, bit| all | bit))
        .ok_or_else(|| "allowed: fin, syn, rst, psh, ack, urg, several with commas".to_owned())
}

/// `198.18.0.0/16`; the prefix is always 16 bits.
pub fn network_v4(text: &str) -> Result<Ipv4Addr, String> {
    network(text, "/16", "198.18.0.0/16")
}

/// `2001:2::/96`; the prefix is always 96 bits.
pub fn network_v6(text: &str) -> Result<Ipv6Addr, String> {
    network(text, "/96", "2001:2:0:1::/96")
}

fn network<A: FromStr>(text: &str, prefix: &str, example: &str) -> Result<A, String> {
    let address = text.strip_suffix(prefix).unwrap_or(text).parse();
    address.map_err(|_| format!("allowed: a network of {prefix}, such as {example}"))
}

/// `02:00:00:00:00:01`.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2)).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "allowed: six bytes such as 02:00:00:00:00:01".to_owned())
}

/// Digits with or without a point, and nothing else: no sign, exponent, or name.
fn plain(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        assert_eq!(rate("150000"), Ok(Rate::Pps(150_000.0)));
        assert_eq!(rate("2Mpps"), Ok(Rate::Pps(2e6)));
        assert_eq!(rate("1.5k"), Ok(Rate::Pps(1500.0)));
        assert_eq!(rate("unlimited"), Ok(Rate::Unlimited));
        assert_eq!((share("0.25"), share("10%")), (Ok(0.25), Ok(0.1)));
        assert_eq!(
            (time("10"), time("200ms")),
            (Ok(Duration::from_secs(10)), Ok(Duration::from_millis(200)))
        );
        assert_eq!(
            (time("1.5s"), time("2m")),
            (Ok(Duration::from_millis(1500)), Ok(Duration::from_secs(120)))
        );
        assert_eq!((count("10M"), count("7"), count32("3k")), (Ok(10_000_000), Ok(7), Ok(3000)));
        assert_eq!("imix".parse::<Sizes>().unwrap().0.len(), 12);
        assert_eq!("64,1518".parse(), Ok(Sizes(vec![64, 1518])));
        assert_eq!(tcp_flags("syn,ack"), Ok(0x12));
        assert_eq!(network_v4("10.0.0.0/16"), Ok(Ipv4Addr::new(10, 0, 0, 0)));
        assert_eq!(mac("02:00:00:00:00:ff"), Ok([2, 0, 0, 0, 0, 255]));
    }

    #[test]
    fn what_is_no_number_is_refused_with_what_is_allowed() {
        for refused in [
            rate("").err(),
            rate("-5").err(),
            rate("0").err(),
            rate("2Mbps").err(),
            rate("inf").err(),
            rate("1e6").err(),
            share("1.1").err(),
            share("101%").err(),
            share("nan").err(),
            time("5h").err(),
            time("ms").err(),
            count("1.5").err(),
            count("99999999999999999999").err(),
            count32("5000M").err(),
            "64,".parse::<Sizes>().err(),
            "70000".parse::<Sizes>().err(),
            tcp_flags("syn,no").err(),
            network_v4("10.0.0.0/8").err(),
            network_v6("1.2.3.4").err(),
            mac("02:00:00:00:00").err(),
            mac("2:0:0:0:0:1").err(),
        ] {
            assert!(
                refused.as_deref().is_some_and(|message| message.starts_with("allowed: ")),
                "{refused:?}"
            );
        }
    }
}
