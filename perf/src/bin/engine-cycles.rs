//! Cycles a packet of the whole worker (in-memory rx and tx included) on one core: established TCP by number of
//! flows, denied packets, new connections. Prints one JSON object.

use engine::{Reason, Side};
use perf::memory::{Pool, PoolFrame};
use perf::rig::Rig;
use testkit::frame::{Build, tcp, udp};
use testkit::rng::Rng;

const NICS: u32 = 1000;

fn nic_address(n: u32) -> String {
    format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)
}

fn policy(rules: usize) -> String {
    let mut text = String::from("vpcs: [{name: prod, segment: {untagged: true}}]\nsecurity_groups:\n");
    for group in 0..rules.div_ceil(50).max(1) {
        text += &format!("  - name: g{group}\n    rules:\n");
        for n in 0..50.min(rules) {
            let rule = group * 50 + n;
            text += &match rule {
                0 => "      - {direction: inbound, protocol: tcp, ports: 22}\n".to_owned(),
                1 => "      - {direction: outbound}\n".to_owned(),
                _ => format!(
                    "      - {{direction: inbound, protocol: tcp, ports: {}-{}, remote: 172.{}.{}.0/24}}\n",
                    1000 + rule,
                    1010 + rule,
                    16 + rule / 256,
                    rule % 256
                ),
            };
        }
    }
    text += "nics:\n";
    for n in 1..=NICS {
        let groups: Vec<String> = (0..rules.div_ceil(50).clamp(1, 5)).map(|g| format!("g{g}")).collect();
        text += &format!(
            "  - {{name: n{n}, vpc: prod, mac: \"02:00:00:00:{:02x}:{:02x}\", addresses: [{}], security_groups: [{}]}}\n",
            n >> 8,
            n & 255,
            nic_address(n),
            groups.join(", ")
        );
    }
    text
}

fn client(flow: u32) -> (String, u16) {
    (
        format!("198.{}.{}.{}", 18 + (flow >> 22 & 1), flow >> 14 & 255, flow >> 6 & 255),
        1024 + (flow & 63) as u16,
    )
}

fn mac(n: u32) -> [u8; 6] {
    [2, 0, 0, 0, (n >> 8) as u8, n as u8]
}

struct Flows {
    syn: Vec<Vec<u8>>,
    syn_ack: Vec<Vec<u8>>,
    ack: Vec<Vec<u8>>,
    inbound: Vec<Vec<u8>>,
    outbound: Vec<Vec<u8>>,
}

fn flows(count: u32) -> Flows {
    let mut all = Flows { syn: vec![], syn_ack: vec![], ack: vec![], inbound: vec![], outbound: vec![] };
    for flow in 0..count {
        let nic = flow % NICS + 1;
        let (addr, port) = client(flow);
        let (c, s) = ((addr.as_str(), port), (nic_address(nic), 22u16));
        let s = (s.0.as_str(), s.1);
        all.syn.push(tcp(c, s).syn().seq(1000).window(60_000).frame());
        all.syn_ack.push(tcp(s, c).syn().seq(5000).ack(1001).window(60_000).src_mac(mac(nic)).frame());
        all.ack.push(tcp(c, s).seq(1001).ack(5001).window(60_000).frame());
        all.inbound.push(tcp(c, s).seq(1001).ack(5001).window(60_000).payload([0; 6]).frame());
        all.outbound
            .push(tcp(s, c).seq(5001).ack(1001).window(60_000).payload([0; 6]).src_mac(mac(nic)).frame());
    }
    all
}

fn in_order(pool: &Pool) -> Vec<PoolFrame> {
    (0..pool.len()).map(|at| pool.frame(at)).collect()
}

fn shuffled(pool: &Pool, seed: u64) -> Vec<PoolFrame> {
    let mut frames = in_order(pool);
    let mut rng = Rng::new(seed);
    for at in (1..frames.len()).rev() {
        frames.swap(at, rng.below(at + 1));
    }
    frames
}

/// Median cycles of established packets, both ways, over random permutations of `count` flows.
fn established(count: u32) -> f64 {
    let mut rig = Rig::new(&policy(50), (count * 2).max(1024));
    let all = flows(count);
    let n = count as usize;
    rig.play(vec![], in_order(&Pool::new(&all.syn)), n);
    rig.play(in_order(&Pool::new(&all.syn_ack)), vec![], n);
    rig.play(vec![], in_order(&Pool::new(&all.ack)), n);
    assert_eq!(rig.count(Reason::New), u64::from(count));
    let (inside, outside) = (shuffled(&Pool::new(&all.outbound), 1), shuffled(&Pool::new(&all.inbound), 2));
    let per_run = std::env::var("PERF_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(n.max(1_000_000));
    let (before, sent) = (rig.count(Reason::Established), rig.sent(Side::Inside) + rig.sent(Side::Outside));
    let mut runs: Vec<f64> = (0..9).map(|_| rig.play(inside.clone(), outside.clone(), per_run)).collect();
    let played = 9 * 2 * per_run;
    assert_eq!(rig.count(Reason::Established) - before, played as u64, "every frame counts as established");
    assert_eq!(rig.sent(Side::Inside) + rig.sent(Side::Outside) - sent, played, "and leaves");
    runs.sort_by(f64::total_cmp);
    runs[4]
}

fn denied(rules: usize) -> f64 {
    let mut rig = Rig::new(&policy(rules), 1024);
    let mut rng = Rng::new(9);
    let frames: Vec<Vec<u8>> = (0..100_000u32)
        .map(|n| {
            let source = std::net::Ipv4Addr::from(0xB000_0000 | rng.u32() >> 6).to_string();
            udp((source.as_str(), rng.u16()), (nic_address(n % NICS + 1).as_str(), rng.u16())).frame()
        })
        .collect();
    let frames = in_order(&Pool::new(&frames));
    let mut runs: Vec<f64> = (0..9).map(|_| rig.play(vec![], frames.clone(), 200_000)).collect();
    assert_eq!(rig.count(Reason::NoRule), 9 * 200_000);
    runs.sort_by(f64::total_cmp);
    runs[4]
}

fn new_connections() -> f64 {
    let count = 1_000_000;
    let mut rig = Rig::new(&policy(50), count * 2);
    let syns = Pool::new(&flows(count).syn);
    rig.play(vec![], in_order(&syns), count as usize)
}

fn main() {
    // One case alone, for a profiler: `--established N`.
    let args: Vec<String> = std::env::args().collect();
    if let [_, case, count] = args.as_slice()
        && case == "--established"
    {
        println!("{}", established(count.parse().unwrap_or(10_000)));
        return;
    }
    let counts: Vec<u32> = match std::env::args().nth(1).as_deref() {
        Some("--quick") => vec![1, 10_000],
        _ => vec![1, 10_000, 100_000, 1_000_000],
    };
    let engine: serde_json::Map<_, _> =
        counts.iter().map(|count| (count.to_string(), established(*count).into())).collect();
    let denied: serde_json::Map<_, _> =
        [50, 250].map(|n| (n.to_string(), denied(n).into())).into_iter().collect();
    let result = serde_json::json!({
        "engine_cycles": engine,
        "denied_cycles": denied,
        "new_connection_cycles": new_connections(),
    });
    println!("{result}");
}
