//! The kernel as a router, with nftables and connection tracking or with neither.
//!
//! ```text
//! core `others`                       core that is measured
//! questions -> client === outside -> (forward) -> to-inside     (swallowed)
//! answers   -> server === inside  -> (forward) -> to-outside    (swallowed)
//! ```
//!
//! Frames are sent into one end of a pair of virtual interfaces, and handed to the measured core's
//! queue where they come out (receive packet steering): allocation, copying and hand-off are the
//! sender's, everything from the queue on is measured. They leave by interfaces that swallow them,
//! as the DPDK programs' do. Much of what a real network card would cost is thus left out.
//!
//! All of it lies in a network that only a thread of ours is in: it goes with that thread, however
//! it ends.

use std::{
    fs,
    io::{self, Write},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use testkit::{lab::SERVER_V4, pcap};

use super::{
    Bench, Rate, Setting, lacks, rules,
    source::{self, Source},
};

/// What the kernel does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It forwards what belongs to connections, and what rules of nftables admit.
    Filter,
    /// It forwards.
    Forward,
}

/// The router's address and the next hop towards the clients: one neighbour, as behind a real
/// router, and not one a client.
const OWN: &str = "192.0.2.1";
const NEXT: &str = "192.0.2.2";
/// How long until every flow is established.
const PATIENCE: Duration = Duration::from_secs(40);

/// What this machine lacks for it.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if !fs::exists("/proc/sys/net/netfilter/nf_conntrack_max").unwrap_or(false) {
        return Some("this kernel tracks no connections".to_owned());
    }
    lacks(&["nft"], "nftables").or_else(|| lacks(&["ip", "tc"], "iproute2"))
}

/// Why the kernel cannot track so many flows: its limit is the machine's, and left alone.
pub fn left_out(setting: Setting) -> Option<String> {
    let limit: u32 = read("netfilter/nf_conntrack_max").ok()?;
    (setting.flows > limit).then(|| format!("nf_conntrack_max is {limit}"))
}

/// How fast it forwards over this time; an error if it refused a packet or, filtering, tracks
/// another number of connections.
pub fn measure(bench: &Bench<'_>, setting: Setting, work: Work, time: Duration) -> io::Result<Rate> {
    thread::scope(|scope| {
        let router = scope.spawn(|| {
            // SAFETY: only the network is this thread's own from here on; files, which other
            // threads use too, are not.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            route(bench, setting, work, time)
        });
        router.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// In a network of this thread's own.
fn route(bench: &Bench<'_>, setting: Setting, work: Work, time: Duration) -> io::Result<Rate> {
    let questions = pcap::read(&bench.captures.outside)?.1;
    let answers = pcap::read(&bench.captures.inside)?.1;
    set_up(bench.core, [&questions[0].data, &answers[0].data])?;
    if work == Work::Filter {
        feed("nft", &["-f", "-"], &rules::nftables(setting.rules))?;
    }
    let mut sources = [Source::open("client", questions)?, Source::open("server", answers)?];
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            core_affinity::set_for_current(core_affinity::CoreId { id: bench.others });
            source::run(&mut sources, &stop)
        });
        let measured = settle(setting, work).and_then(|()| sample_twice(bench, setting, work, time));
        stop.store(true, Relaxed);
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })
}

/// Interfaces, routes and steering. The frames say which addresses the router's interfaces must
/// have for it to take them.
fn set_up(core: usize, [question, answer]: [&[u8]; 2]) -> io::Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").or_else(absent)?;
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").or_else(absent)?;
    feed("ip", &["-batch", "-"], &links([mac(question), mac(answer)]))?;
    for interface in ["to-inside", "to-outside"] {
        feed("tc", &["qdisc", "replace", "dev", interface, "root", "noqueue"], "")?;
    }
    // The kernel's own advice for routers is not to look for a local socket first.
    for (key, value) in [("ip_forward", "1"), ("ip_early_demux", "0"), ("conf/all/rp_filter", "0")] {
        fs::write(format!("/proc/sys/net/ipv4/{key}"), value)?;
    }
    for interface in ["outside", "inside"] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "0")?;
    }
    // /sys shows the network that it was mounted in.
    let mask = format!("{:x}", 1u64 << core);
    let steer = "mount -t sysfs sys /sys && for i in outside inside; do \
                 echo $0 > /sys/class/net/$i/queues/rx-0/rps_cpus || exit 1; done";
    feed("unshare", &["--mount", "sh", "-c", steer, &mask], "")
}

/// A setting of a protocol that the kernel may lack.
fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn mac(frame: &[u8]) -> String {
    frame[..6].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Commands of ip(8).
fn links([outside, inside]: [String; 2]) -> String {
    format!(
        "link add outside address {outside} type veth peer name client\n\
         link add inside address {inside} type veth peer name server\n\
         link add to-inside type ifb\n\
         link add to-outside type ifb\n\
         link set outside up\nlink set client up\nlink set inside up\nlink set server up\n\
         link set to-inside up\nlink set to-outside up\n\
         route add {SERVER_V4}/32 dev to-inside\n\
         address add {OWN}/24 dev to-outside\n\
         route add 10.64.0.0/10 via {NEXT} dev to-outside\n"
    )
}

/// Waits until every flow is established, the captures have gone round, and nothing is refused any
/// more.
fn settle(setting: Setting, work: Work) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    if work == Work::Filter {
        let mut refused = refused()?;
        loop {
            thread::sleep(Duration::from_millis(300));
            let (tracked, now) = (tracked()?, self::refused()?);
            if tracked >= setting.flows && now == refused {
                break;
            }
            if Instant::now() > until {
                let wanted = setting.flows;
                return Err(io::Error::other(format!(
                    "{tracked} connections of {wanted}, {now} packets refused"
                )));
            }
            refused = now;
        }
    }
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// What has been forwarded, and how long the core was at it.
struct Sample {
    at: Instant,
    forwarded: u64,
    ticks: [u64; 2],
}

fn sample(core: usize) -> io::Result<Sample> {
    let at = Instant::now();
    let counters = fs::read_to_string("/proc/thread-self/net/dev")?;
    let stat = fs::read_to_string("/proc/stat")?;
    let forwarded = arrived(&counters, "to-inside").zip(arrived(&counters, "to-outside"));
    let (inside, outside) =
        forwarded.ok_or_else(|| io::Error::other(format!("no counters in {counters}")))?;
    let ticks = ticks(&stat, core).ok_or_else(|| io::Error::other(format!("no core {core} in {stat}")))?;
    Ok(Sample { at, forwarded: inside + outside, ticks })
}

fn sample_twice(bench: &Bench<'_>, setting: Setting, work: Work, time: Duration) -> io::Result<Rate> {
    let refusals = || if work == Work::Filter { refused() } else { Ok(0) };
    let (refused_before, before) = (refusals()?, sample(bench.core)?);
    thread::sleep(time);
    let (after, refused_after) = (sample(bench.core)?, refusals()?);
    let connections = if work == Work::Filter { tracked()? } else { setting.flows };
    if refused_after != refused_before || connections != setting.flows {
        return Err(io::Error::other(format!(
            "{} packets refused, {connections} connections",
            refused_after - refused_before
        )));
    }
    let [busy, all] = [0, 1].map(|n| after.ticks[n] - before.ticks[n]);
    Ok(Rate {
        mpps: (after.forwarded - before.forwarded) as f64 / (after.at - before.at).as_secs_f64() / 1e6,
        core_share: busy as f64 / all.max(1) as f64,
    })
}

/// Connections that the kernel tracks in this network.
fn tracked() -> io::Result<u32> {
    read("netfilter/nf_conntrack_count")
}

/// Packets that came behind all rules.
fn refused() -> io::Result<u64> {
    let listed = feed_and_read("nft", &["list", "chain", "ip", "compare", "forward"], "")?;
    counted(&listed).ok_or_else(|| io::Error::other(format!("no counter in {listed}")))
}

/// A number below `/proc/sys/net`, which is that of the network of who reads it.
fn read<T: std::str::FromStr>(key: &str) -> io::Result<T> {
    let text = fs::read_to_string(format!("/proc/sys/net/{key}"))?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{key}: {text:?}")))
}

fn feed(program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
    feed_and_read(program, arguments, input).map(|_| ())
}

/// Runs a program in this thread's network, with this input; what it printed.
fn feed_and_read(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // What it does not read it has not asked for; its status tells the rest. The pipe closes here.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{command:?}: {}: {complaint}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Packets that an `ifb` interface was given: it counts them as received, before it swallows them.
fn arrived(counters: &str, interface: &str) -> Option<u64> {
    let line =
        counters.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Ticks of a core in interrupts, which is where all of the forwarding is done, and all of them.
fn ticks(stat: &str, core: usize) -> Option<[u64; 2]> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
    // user nice system idle iowait irq softirq steal; what follows is part of the first two.
    let times: Vec<u64> =
        line.split_whitespace().skip(1).take(8).map_while(|time| time.parse().ok()).collect();
    let all = times.iter().sum::<u64>();
    (times.len() == 8).then(|| [times[5] + times[6], all])
}

fn counted(listed: &str) -> Option<u64> {
    listed.split_once("counter packets ")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_read() {
        let counters = "Inter-|   Receive                       |  Transmit\n face |bytes    packets errs\n\
                        to-inside:  600      10    0   10    0     0          0         0        0       0    0\n\
                        \x20   lo:       0       0    0    0\n";
        assert_eq!(arrived(counters, "to-inside"), Some(10));
        assert_eq!(arrived(counters, "lo"), Some(0));
        assert_eq!(arrived(counters, "to-outside"), None);
    }

    #[test]
    fn a_core_is_told_from_others() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 40 5 6 7 8 9 10\ncpu10 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(ticks(stat, 1), Some([13, 72]));
        assert_eq!(ticks(stat, 0), None);
    }

    #[test]
    fn refusals_are_counted() {
        assert_eq!(counted("  counter packets 17 bytes 816 drop\n"), Some(17));
        assert_eq!(counted("drop\n"), None);
    }

    #[test]
    fn the_routers_interfaces_have_the_addresses_that_frames_go_to() {
        let batch = links([mac(&[2, 0, 0, 0, 0, 1, 9, 9]), mac(&[2, 0, 0, 0, 0, 0x30])]);
        assert!(batch.contains("outside address 02:00:00:00:00:01 "));
        assert!(batch.contains("inside address 02:00:00:00:00:30 "));
    }
}
