//! A restart that keeps connections: what goes on, what stays shut, what is mistrusted.

use engine::Generation;
use engine::conntrack::persist::RestoreError;
use engine::conntrack::restore::{self, ExpectedTable, RestoreCounts};
use testkit::frame::*;
use testkit::rng::Rng;
use testkit::scenario::{RestartOutcome, Scenario, one, policy, rule::*};

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";
const Q: &str = "198.51.100.9:5000";
const D: &str = "10.0.0.1:53";
const SHORT: &str = "tcp_syn = 5\ntcp_established = 5\ntcp_fin = 5\ntcp_half_closed = 5\ntcp_reset = 5\nicmp = 5\none_way = 5\ntwo_way = 5";
const SMALL: &str = "[conntrack]\ncapacity = 64";

fn again(s: Scenario, policy: &str) -> (Scenario, RestartOutcome) {
    s.restart(0.3, (SMALL, policy), |_| ())
}

/// A packet of the connection that [`Scenario::connect`] opened.
fn data(s: &mut Scenario) -> String {
    s.outside(tcp(C, S).seq(1001).ack(5001))
}

#[test]
fn connections_tombstones_and_what_is_left_of_their_time_survive() {
    let rules = one(&[SSH, DNS, OUT]);
    let mut s = Scenario::kept(SMALL, &rules);
    s.connect(C, S);
    s.outside(udp(Q, D));
    s.wait(10.0);
    // Outbound connections live on; what came in is disconnected.
    s.apply(&one(&[SSH, OUT]));
    assert_eq!(s.inside(udp("10.0.0.1:9", "192.0.2.1:53")), "new by web#1");
    assert_eq!(s.outside(tcp("198.51.100.9:41000", S).syn().seq(7)), "new by web#0");
    assert_eq!(data(&mut s), "tombstone");
    let before = s.connections();
    let generation = s.generation();
    let (mut s, came) = s.restart(0.0, (SMALL, &one(&[SSH, OUT])), |_| ());
    assert_eq!(s.connections(), before, "states, deadlines, tombstones");
    let taken_up = RestoreCounts { live: 2, tombstones: 2, ..RestoreCounts::default() };
    assert_eq!(came, RestartOutcome { read: 4, taken_up, ..RestartOutcome::default() });
    assert_eq!(s.generation(), generation, "generations go on");
    assert_eq!(data(&mut s), "tombstone");
    assert_eq!(s.outside(udp(Q, D)), "tombstone");
    assert_eq!(s.outside(udp("192.0.2.1:53", "10.0.0.1:9")), "established");
    // The handshake goes on where it was: without another SYN.
    assert_eq!(s.inside(tcp(S, "198.51.100.9:41000").syn().seq(1).ack(8)), "established");
    assert_eq!(s.live_inbound("a"), 1);
    assert_eq!(s.connection_counts("a"), 4);
}

#[test]
fn windows_are_checked_as_before() {
    let rules = one(&[SSH]);
    let mut s = Scenario::kept(SMALL, &rules);
    s.connect(C, S);
    let (mut s, _) = again(s, &rules);
    assert_eq!(s.outside(tcp(C, S).seq(1_000_000).ack(5001)), "invalid");
    assert_eq!(data(&mut s), "established");
}

#[test]
fn time_goes_on_while_nobody_runs() {
    let rules = one(&[DNS]);
    let mut s = Scenario::kept(SMALL, &rules);
    s.outside(udp(Q, D));
    s.wait(5.0);
    s.outside(udp("198.51.100.9:5001", D));
    let (mut s, came) = s.restart(26.0, (SMALL, &rules), |_| ());
    assert_eq!((came.read, came.expired), (1, 1));
    let left = s.connections();
    assert_eq!(left, ["a inbound 17 10.0.0.1:53 198.51.100.9:5001 one-way 4.0"]);
    s.wait(4.2);
    assert!(s.connections().is_empty());
}

/// Each restart falls somewhere between two ticks; what one of them rounds, fifty would have summed up.
#[test]
fn a_deadline_stays_where_it_was_however_often_it_is_taken_up() {
    let rules = one(&[DNS]);
    let mut s = Scenario::kept(SMALL, &rules);
    s.wait(0.03);
    s.outside(udp(Q, D));
    for _ in 0..50 {
        s.wait(0.11);
        (s, _) = s.restart(0.27, (SMALL, &rules), |_| ());
    }
    // 19 s have gone by, and 30 are its time, rounded up once to an eighth.
    s.wait(10.95);
    assert_eq!(s.connections().len(), 1);
    s.wait(0.2);
    assert_eq!(s.connections(), [""; 0]);
}

#[test]
fn a_clock_that_leapt_moves_no_deadline() {
    // A wait beyond the longest timeout is cut short in ticks.
    let config = format!("{SMALL}\n[timeouts]\n{SHORT}");
    let rules = one(&[DNS]);
    let mut s = Scenario::kept(&config, &rules);
    for _ in 0..3 {
        s.wait(1000.0);
        s.outside(udp("198.51.100.9:4999", D));
    }
    s.wait(1000.0);
    s.outside(udp(Q, D));
    let before = s.connections();
    let (mut s, came) = s.restart(2.0, (&config, &rules), |_| ());
    assert_eq!((came.read, came.expired, came.unverifiable), (1, 0, 0), "{before:?}");
    assert_eq!(s.connections(), ["a inbound 17 10.0.0.1:53 198.51.100.9:5000 one-way 3.0"]);
}

#[test]
fn nothing_lasts_longer_than_its_state_does_today() {
    let rules = one(&[DNS]);
    let mut s = Scenario::kept(SMALL, &rules);
    s.outside(udp(Q, D));
    let (mut s, _) = s.restart(1.0, (&format!("{SMALL}\n[timeouts]\n{SHORT}"), &rules), |_| ());
    assert_eq!(s.connections(), ["a inbound 17 10.0.0.1:53 198.51.100.9:5000 one-way 5.0"]);
}

#[test]
fn an_entry_of_a_generation_that_never_was_is_not_taken_up() {
    let rules = one(&[SSH, DNS]);
    let mut s = Scenario::kept(SMALL, &rules);
    s.outside(udp(Q, D));
    let mut kept = s.reading();
    assert_eq!(kept.connections.len(), 1);
    let birth = s.birth();
    let belongs = |generation| ExpectedTable { set: birth.set, boot: birth.boot, generation };
    let now_ns = birth.epoch_ns + 1_000_000;
    let stamp = kept.connections.remove(0).entry().stamp;
    let of = |generation| restore::read(&s.bytes_kept(), &belongs(generation), now_ns).unwrap();
    assert_eq!(of(stamp).connections.len(), 1);
    let before = of(Generation(stamp.0 - 1));
    assert_eq!((before.connections.len(), before.unverifiable), (0, 1));
    for other in
        [ExpectedTable { set: 1, ..belongs(stamp) }, ExpectedTable { boot: [1, 1], ..belongs(stamp) }]
    {
        assert_eq!(restore::read(&s.bytes_kept(), &other, now_ns).unwrap_err(), RestoreError::NoTable);
    }
}

#[test]
fn a_policy_that_changed_meanwhile_ends_what_an_apply_would_have_ended() {
    let before = policy(
        &[("web", &[SSH, DNS, OUT]), ("other", &[SSH, OUT])],
        &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["other"]), ("c", "10.0.0.3", &["other"])],
    );
    let changes = [
        before.clone(),
        // Rules, members, a NIC gone, another address, nobody.
        policy(
            &[("web", &[SSH, OUT]), ("other", &[SSH, OUT])],
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["other"]), ("c", "10.0.0.3", &["other"])],
        ),
        policy(
            &[("web", &[SSH, DNS, OUT]), ("other", &[SSH, OUT])],
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"]), ("c", "10.0.0.3", &["other"])],
        ),
        policy(
            &[("web", &[SSH, DNS, OUT]), ("other", &[SSH, OUT])],
            &[("a", "10.0.0.1", &["web"]), ("c", "10.0.0.3", &["other"])],
        ),
        policy(
            &[("web", &[SSH, DNS, OUT]), ("other", &[SSH, OUT])],
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.7", &["other"]), ("c", "10.0.0.3", &["other"])],
        ),
        policy(&[("web", &[SSH, DNS, OUT])], &[("z", "10.0.0.9", &["web"])]),
    ];
    for flush in ["tombstone", "rejudge"] {
        let config = format!("{SMALL}\n[policy]\non_flush = \"{flush}\"");
        for after in &changes {
            let mut pair = [(); 2].map(|()| Scenario::kept(&config, &before));
            for s in &mut pair {
                for server in ["10.0.0.1:22", "10.0.0.2:22", "10.0.0.3:22"] {
                    s.connect(C, server);
                }
                s.outside(udp(Q, D));
                for nic in ["10.0.0.1:9", "10.0.0.2:9", "10.0.0.3:9"] {
                    s.inside(udp(nic, "192.0.2.1:53"));
                }
                // An earlier change, and its undoing.
                s.apply(&changes[1]);
                s.wait(1.0);
                s.rollback(1);
                s.connect("198.51.100.9:40001", "10.0.0.1:22");
            }
            let [mut running, down] = pair;
            running.apply(after);
            let (mut down, came) = down.restart(0.0, (&config, after), |_| ());
            assert_eq!(came.unverifiable, 0);
            assert_eq!(down.connections(), running.connections(), "{after}");
            assert_eq!(down.generation(), running.generation());
            for s in [&mut running, &mut down] {
                s.wait(0.5);
            }
            for server in ["10.0.0.1:22", "10.0.0.2:22", "10.0.0.3:22"] {
                for client in [C, "198.51.100.9:40001"] {
                    let [one, other] =
                        [&mut running, &mut down].map(|s| s.outside(tcp(client, server).seq(1001).ack(5001)));
                    assert_eq!(one, other, "{client} {server} {after}");
                }
            }
            assert_eq!(down.connections(), running.connections(), "after a packet of each: {after}");
        }
    }
}

#[test]
fn what_was_flushed_comes_back_with_a_rollback_across_the_restart_of_the_same_rules_alone() {
    // The history of a policy without a store is not kept; a rollback within the new process is as ever.
    let rules = one(&[SSH, OUT]);
    let mut s = Scenario::kept(SMALL, &rules);
    s.connect(C, S);
    let (mut s, _) = again(s, &rules);
    let before = s.generation();
    s.apply(&one(&[SSH]));
    assert_eq!(data(&mut s), "tombstone");
    s.rollback(before);
    assert_eq!(data(&mut s), "established");
}

#[test]
fn with_less_room_tombstones_come_first_and_what_is_unconfirmed_last() {
    let rules = one(&[SSH, DNS, OUT]);
    let mut s = Scenario::kept(SMALL, &rules);
    for port in 0..10 {
        s.connect(&format!("198.51.100.9:{}", 40000 + port), S);
    }
    s.apply(&one(&[SSH, OUT]));
    for port in 0..10 {
        s.connect(&format!("198.51.100.9:{}", 41000 + port), S);
        s.inside(udp(format!("10.0.0.1:{}", 9 + port).as_str(), "192.0.2.1:53"));
    }
    let small = "[conntrack]\ncapacity = 16";
    let (mut s, came) = s.restart(0.1, (small, &one(&[SSH, OUT])), |_| ());
    let taken_up = RestoreCounts { live: 6, tombstones: 10, left_out: 14, ..RestoreCounts::default() };
    assert_eq!(came.taken_up, taken_up);
    assert_eq!(s.outside(tcp("198.51.100.9:40003", S).seq(1001).ack(5001)), "tombstone");
    assert!(s.connections().iter().all(|line| line.contains("established")), "{:?}", s.connections());
}

#[test]
fn of_damaged_bytes_nothing_opens_and_nothing_panics() {
    let before = policy(
        &[("web", &[SSH, DNS, OUT, OUT6, "{direction: inbound, ethertype: IPv6, protocol: udp}"])],
        &[("a", "10.0.0.1", &["web"]), ("b", "\"2001:db8::1\"", &["web"])],
    );
    let open = |s: &mut Scenario| {
        for port in 0..8 {
            s.connect(&format!("198.51.100.9:{}", 40000 + port), S);
            s.outside(udp(format!("198.51.100.9:{}", 5000 + port).as_str(), D));
            s.outside(udp(format!("[2001:db8:9::9]:{}", 5000 + port).as_str(), "[2001:db8::1]:53"));
            s.inside(udp(format!("10.0.0.1:{}", 9 + port).as_str(), "192.0.2.1:53"));
        }
    };
    let named = |s: &mut Scenario| -> Vec<String> {
        // NIC, who opened it, protocol, local, remote; and whether it is shut.
        let line = |line: &String| {
            let words: Vec<_> = line.split(' ').collect();
            format!("{} {}", words[..5].join(" "), words.contains(&"tombstone"))
        };
        s.connections().iter().map(line).collect()
    };
    let mut rng = Rng::new(7);
    let rounds = if std::env::var_os("PORTCULLIS_DAMAGED_FILES").is_some() { 10_000 } else { 500 };
    let mut lost = 0;
    for round in 0..rounds {
        let mut s = Scenario::kept(SMALL, &before);
        open(&mut s);
        let whole = named(&mut s);
        let (mut s, came) = s.restart(0.1, (SMALL, &before), |bytes| {
            for _ in 0..=rng.below(8) {
                let at = rng.below(bytes.len());
                // Mostly where entries are.
                let at = if rng.below(4) > 0 { 4096 + at % (32 * 64) } else { at };
                match rng.below(4) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes[at] = rng.u8(),
                    2 => {
                        let end = (at + rng.below(200)).min(bytes.len());
                        bytes[at..end].fill(rng.u8());
                    }
                    _ => {
                        // A line in another's place.
                        let (from, to) = (at & !63, rng.below(bytes.len() - 64) & !63);
                        let from = from.min(bytes.len() - 64);
                        bytes.copy_within(from..from + 64, to);
                    }
                }
            }
            if rng.below(50) == 0 {
                bytes.truncate(rng.below(bytes.len()));
            }
        });
        for line in named(&mut s) {
            assert!(whole.contains(&line), "round {round}: {line}");
        }
        lost += whole.len() as u64 - u64::from(s.len());
        let of_all = came.read as u64 + came.expired + came.unverifiable;
        assert!(of_all <= 64 && u64::from(s.len()) <= of_all, "{came:?}");
        for port in 0..12 {
            let verdict =
                s.outside(tcp(format!("198.51.100.9:{}", 40000 + port).as_str(), S).seq(1001).ack(5001));
            assert!(port < 8 || verdict == "invalid", "round {round}: {verdict}");
        }
    }
    assert!(lost > 0, "some of it did damage");
}

#[test]
fn no_bit_of_what_a_permission_rests_on_may_be_another() {
    let mut s = Scenario::kept(SMALL, &one(&[SSH, DNS]));
    s.outside(udp(Q, D));
    let birth = s.birth();
    let belongs = ExpectedTable { set: birth.set, boot: birth.boot, generation: Generation(u32::MAX) };
    let read = |bytes: &[u8]| restore::read(bytes, &belongs, birth.epoch_ns + 1_000_000).unwrap();
    let rests_on = |kept: &restore::SavedConnection| {
        let entry = *kept.entry();
        let ends = (entry.addr, kept.remote(), entry.ports, entry.protocol());
        (ends, entry.is_inbound(), entry.is_dead(), entry.stamp, entry.rule())
    };
    let sound = s.bytes_kept();
    let [before] = &read(&sound).connections[..] else { panic!("one connection") };
    let mut mistrusted = 0;
    // The first place, behind the head.
    for bit in 4096 * 8..(4096 + 64) * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let reading = read(&bytes);
        mistrusted += reading.unverifiable;
        for kept in &reading.connections {
            assert_eq!(rests_on(kept), rests_on(before), "bit {bit}");
        }
    }
    assert!(mistrusted > 100, "{mistrusted}");
}
