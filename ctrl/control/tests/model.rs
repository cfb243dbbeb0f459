//! Names, prefixes, MAC addresses, and the places that diagnostics name.

use control::config::parse_config;
use control::document::{Limits, parse_policy};
use control::model::{Key, Mac, Prefix};
use control::source::read_file;
use std::net::IpAddr;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|_| panic!("{text} is a prefix"))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_prefix_keeps_no_host_bits() {
    assert_eq!(prefix("10.255.255.255/8"), prefix("10.0.0.0/8"));
    assert_eq!(prefix("255.255.255.255/0").to_string(), "0.0.0.0/0");
    assert_eq!(prefix("ffff::1/1").to_string(), "8000::/1");
    assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::1/128"));
    assert!(prefix("::/0").is_everything() && prefix("1.2.3.4").is_host());
}

#[test]
fn what_is_no_prefix_is_none() {
    for text in [
        "",
        "/",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0/8",
        "1.2.3.4/-1",
    ] {
        assert!(text.parse::<Prefix>().is_err(), "{text}");
    }
    assert_eq!(Prefix::new(address("10.0.0.0"), 33), None);
    assert_eq!(Prefix::new(address("::"), 255), None);
}

#[test]
fn a_prefix_holds_addresses_of_its_family() {
    for (text, inside, outside) in [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("0.0.0.0/0", "255.255.255.255", "::"),
        ("::/0", "ffff::", "0.0.0.0"),
        ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
    ] {
        assert!(prefix(text).contains(address(inside)), "{text} {inside}");
        assert!(!prefix(text).contains(address(outside)), "{text} {outside}");
    }
}

#[test]
fn a_mac_is_that_of_one_station() {
    assert_eq!(
        "02:00:5E:00:00:ff".parse().map(|mac: Mac| mac.to_string()).as_deref(),
        Ok("02:00:5e:00:00:ff")
    );
    assert_eq!("02-00-5e-00-00-01".parse().map(|mac: Mac| mac.bytes()), Ok([2, 0, 0x5e, 0, 0, 1]));
    for text in [
        "",
        "02",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00",
        "02:00:00:00:00:0g",
        "2:0:0:0:0:1",
        "02:00-00:00:00:01",
    ] {
        assert!(text.parse::<Mac>().is_err(), "{text}");
    }
    assert_eq!(Mac::new([0; 6]), None);
    assert_eq!(Mac::new([0xff; 6]), None);
}

#[test]
fn a_key_is_read_as_it_is_shown() {
    for (text, project, name) in
        [("web", "default", "web"), ("blue/web", "blue", "web"), ("default/web", "default", "web")]
    {
        assert_eq!(Key::parse(text), Some(Key::new(project, name)));
    }
    for text in ["", "/", "a/", "/a", "a/b/c", "a#1", "a\n"] {
        assert_eq!(Key::parse(text), None, "{text:?}");
    }
}

#[test]
fn columns_count_characters_whatever_ends_the_lines() {
    let told = parse_policy(
        "\u{feff}vpcs:\r\n  - { name: \"äöü😀\", segment: { vlan: 0 } }\r\n",
        "p",
        &Limits::default(),
    );
    let told = told.expect_err("a bad VLAN");
    assert_eq!((told.line, told.column), (2, 38));
    let told = parse_config("[eal]\r\nargs = [\"äöü😀\", 1]\r\n", "c").expect_err("a bad argument");
    assert_eq!((told.line, told.column), (2, 17));
}

#[test]
fn numbers_of_a_configuration_may_be_spelled_in_any_way_of_toml() {
    let read = parse_config(
        "[conntrack]\ncapacity = 1_000\npickup_grace = 1_0.5\n[policy]\npass_ethertypes = [0x88_CC, 0b1000100001100011]\n",
        "c",
    )
    .unwrap_or_else(|d| panic!("{d}"));
    assert_eq!(read.conntrack.capacity, 1000);
    assert_eq!(read.conntrack.pickup_grace.as_millis(), 10_500);
    assert_eq!(read.policy.pass_ethertypes, [0x88cc, 0x8863]);
}

#[test]
fn a_file_that_is_no_text_is_told_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("p.yaml");
    std::fs::write(&path, b"vpcs: []\n# \xc3\xa4 \xff\n").expect("written");
    let told = read_file(&path).expect_err("no UTF-8");
    assert_eq!((told.line, told.column), (2, 5));
    let told = read_file(&dir.path().join("nowhere")).expect_err("no file").to_string();
    assert!(told.ends_with("nowhere: No such file or directory (os error 2)"), "{told}");
}
