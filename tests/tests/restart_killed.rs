//! A process that is killed between two instructions leaves every entry whole or unused: tried at each of them, by single steps.

use std::collections::BTreeSet;

use testkit::frame::*;
use testkit::scenario::{Scenario, policy, rule::*};

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";
const Q: &str = "[2001:db8:9::9]:5000";
const D: &str = "[2001:db8::1]:53";
const DNS6: &str = "{direction: inbound, ethertype: IPv6, protocol: udp, ports: 53}";
const CONFIG: &str = "[conntrack]\ncapacity = 4\n[policy]\non_flush = \"rejudge\"";

fn document(rules: &[&str]) -> String {
    policy(&[("web", rules)], &[("a", "10.0.0.1", &["web"]), ("b", "\"2001:db8::1\"", &["web"])])
}

/// What a connection is, but for its time and what data moves.
type Whole = (u32, u128, u32, String, bool, bool, bool, u32, u32);

fn whole(s: &Scenario) -> BTreeSet<Whole> {
    let reading = s.reading();
    assert_eq!((reading.unverifiable, reading.expired), (0, 0), "every entry is whole or unused");
    let one = |kept: &engine::conntrack::restore::SavedConnection| {
        let entry = kept.entry();
        (
            entry.addr.0,
            kept.remote(),
            entry.ports,
            entry.state().name().to_owned(),
            entry.is_inbound(),
            entry.is_dead(),
            entry.has_noted_syn(),
            entry.stamp.0,
            entry.syn_seq,
        )
    };
    reading.connections.iter().map(one).collect()
}

/// The life of some connections, a step at a time: opened in unused places and in those of others, moved, brought to their ends in
/// each way, opened again, killed and brought back by the rules. False once it is over.
fn step(s: &mut Scenario, number: usize) -> bool {
    match number {
        0 => drop(s.outside(tcp(C, S).syn().seq(1000).window(8000))),
        1 => drop(s.inside(tcp(S, C).syn().seq(5000).ack(1001).window(8000))),
        2 => drop(s.outside(tcp(C, S).seq(1001).ack(5001).window(8000))),
        3 => drop(s.outside(udp(Q, D))),
        4 => drop(s.inside(udp(D, Q))),
        5 => drop(s.outside(tcp(C, S).syn().seq(3000).window(8000))),
        6 => drop(s.outside(tcp(C, S).seq(1001).ack(5001).fin())),
        7 => drop(s.inside(tcp(S, C).seq(5001).ack(1002).fin())),
        8 => drop(s.outside(tcp(C, S).seq(1002).ack(5002))),
        9 => drop(s.outside(tcp(C, S).syn().seq(9_000_000).window(8000))),
        10 => drop(s.inside(tcp(S, C).syn().seq(5_000_000).ack(9_000_001).window(8000))),
        11 => drop(s.outside(tcp(C, S).seq(9_000_001).ack(5_000_001).window(8000))),
        // Re-judged and killed; brought back.
        13 => drop(s.outside(tcp(C, S).seq(9_000_001).ack(5_000_001).window(8000))),
        15 => drop(s.outside(tcp(C, S).seq(9_000_001).ack(5_000_001).window(8000))),
        16 => drop(s.inside(tcp(S, C).seq(5_000_001).ack(9_000_001).rst())),
        17 => drop(s.inside(udp("10.0.0.1:9", "192.0.2.1:53"))),
        18 => drop(s.inside(udp("10.0.0.1:10", "192.0.2.1:53"))),
        19 => drop(s.inside(udp("10.0.0.1:11", "192.0.2.1:53"))),
        // One has to go.
        20 => drop(s.inside(udp("10.0.0.1:12", "192.0.2.1:53"))),
        _ => return false,
    }
    true
}

/// Changes of the policy lie between steps: they write to no entry.
fn between(s: &mut Scenario, number: usize) -> bool {
    match number {
        12 => drop(s.apply(&document(&[DNS6, OUT]))),
        14 => drop(s.rollback(1)),
        _ => return false,
    }
    true
}

fn begun() -> Scenario {
    Scenario::kept(CONFIG, &document(&[SSH, DNS6, OUT])).unchecked()
}

#[test]
fn killed_between_any_two_instructions_every_entry_is_whole_or_unused() {
    // What there is when nothing is under way.
    let (mut s, mut sound) = (begun(), BTreeSet::new());
    for number in 0.. {
        if !between(&mut s, number) && !step(&mut s, number) {
            break;
        }
        sound.extend(whole(&s));
    }
    assert!(sound.len() > 12, "{sound:#?}");
    let mut s = begun();
    // SAFETY: the child goes on with this thread alone, and needs none of the others.
    let child = unsafe { libc::fork() };
    if child == 0 {
        live_step_by_step(&mut s);
    }
    let (mut seen, mut steps) = (BTreeSet::new(), 0u64);
    let mut is_stepping = false;
    loop {
        let mut status = 0;
        // SAFETY: the status is ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) }, child);
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0);
            break;
        }
        assert!(libc::WIFSTOPPED(status), "{status:x}");
        is_stepping ^= libc::WSTOPSIG(status) == libc::SIGSTOP;
        if is_stepping {
            steps += 1;
            let now = whole(&s);
            assert!(now.is_subset(&sound), "{steps}: {:?}", now.difference(&sound).collect::<Vec<_>>());
            seen.extend(now);
        }
        let how = if is_stepping { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_CONT };
        // SAFETY: the child is ours and stands still.
        assert_eq!(unsafe { libc::ptrace(how, child, 0, 0) }, 0);
    }
    assert_eq!(seen, sound, "all of it was come by");
    assert!(steps > 10_000, "{steps}");
}

/// Stops before and behind each step: whoever watches goes through it instruction by instruction.
fn live_step_by_step(s: &mut Scenario) -> ! {
    // SAFETY: calls of the system that take nothing but numbers.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    for number in 0.. {
        if between(s, number) {
            continue;
        }
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGSTOP) };
        let goes_on = step(s, number);
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGSTOP) };
        if !goes_on {
            break;
        }
    }
    // SAFETY: as above.
    unsafe { libc::_exit(0) }
}
