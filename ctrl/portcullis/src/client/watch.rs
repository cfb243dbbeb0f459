//! `show --watch`: again and again, with what has happened in between by the second.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use control::api::types::{Bytes, Counters, NicCounters, Packets};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::http::request;
use super::{parsed, show_once, table};
use crate::cli::{self, Output, Subject};
use crate::failure::{Failure, print};

/// Home, and what was there is gone.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Until it is interrupted or the appliance is gone.
pub fn watch(args: &cli::Show, interval: Duration) -> Result<ExitCode, Failure> {
    if args.subject != Subject::Counters {
        loop {
            if args.output == Output::Table {
                print(CLEAR, false);
            }
            show_once(args)?;
            std::thread::sleep(interval);
        }
    }
    let mut before = sample(args)?;
    loop {
        std::thread::sleep(interval);
        let now = sample(args)?;
        let seconds = (now.at - before.at).as_secs_f64();
        let (old, new) = (parsed::<Counters>(&before.text)?, parsed::<Counters>(&now.text)?);
        match args.output {
            Output::Table => {
                print(&format!("{CLEAR}{}{}", table::counters(&new), rates(&old, &new, seconds)), false)
            }
            Output::Json => {
                let mut told: Map<String, Value> = parsed(&now.text)?;
                told.insert("per_second".to_owned(), per_second(&old, &new, seconds));
                print(&format!("{}\n", Value::Object(told)), false);
            }
        }
        before = now;
    }
}

struct Sample {
    at: Instant,
    text: Vec<u8>,
}

fn sample(args: &cli::Show) -> Result<Sample, Failure> {
    let text = request(&args.client, Method::GET, "/v1/counters", Vec::new())?.success()?.to_vec();
    Ok(Sample { at: Instant::now(), text })
}

/// How much more there is now, by the second. After a restart counters begin anew.
fn rate(old: u64, new: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (new.saturating_sub(old) as f64 / seconds).round() } else { 0.0 }
}

/// Names with their rates, of what has moved.
type Rates = Vec<(String, Vec<f64>)>;

fn of_reasons(old: &Counters, new: &Counters, seconds: f64) -> Rates {
    let before = |reason: &str| old.reasons.get(reason).copied().unwrap_or(0);
    new.reasons.iter().map(|(reason, n)| (reason.clone(), vec![rate(before(reason), *n, seconds)])).collect()
}

/// Frames and bytes that came in and went out.
fn of_ports(old: &Counters, new: &Counters, seconds: f64) -> Rates {
    let rates = new.ports.iter().map(|port| {
        let was = old.ports.iter().find(|was| was.name == port.name);
        let rate =
            |of: fn(&control::api::types::PortCounters) -> u64| rate(was.map_or(0, of), of(port), seconds);
        let all =
            vec![rate(|p| p.rx_packets), rate(|p| p.rx_bytes), rate(|p| p.tx_packets), rate(|p| p.tx_bytes)];
        (port.name.clone(), all)
    });
    rates.collect()
}

fn of_packets(old: &Packets, new: &Packets, seconds: f64) -> [f64; 3] {
    [(old.received, new.received), (old.pass, new.pass), (old.drop, new.drop)]
        .map(|(old, new)| rate(old, new, seconds))
}

fn of_bytes(old: &Bytes, new: &Bytes, seconds: f64) -> [f64; 3] {
    [(old.received, new.received), (old.pass, new.pass), (old.drop, new.drop)]
        .map(|(old, new)| rate(old, new, seconds))
}

/// Packets and bytes of NICs, both directions together: in, passed and dropped.
fn of_nics(old: &Counters, new: &Counters, seconds: f64) -> Rates {
    let rates = new.nics.iter().map(|nic| {
        let was = old.nics.iter().find(|was| was.nic == nic.nic).cloned().unwrap_or_default();
        let sum =
            |of: fn(&NicCounters) -> [u64; 2]| rate(of(&was).iter().sum(), of(nic).iter().sum(), seconds);
        let all = vec![
            sum(|nic| [nic.inbound.packets.pass, nic.outbound.packets.pass]),
            sum(|nic| [nic.inbound.packets.drop, nic.outbound.packets.drop]),
            sum(|nic| [nic.inbound.bytes.pass, nic.outbound.bytes.pass]),
            sum(|nic| [nic.inbound.bytes.drop, nic.outbound.bytes.drop]),
        ];
        (nic.nic.clone().unwrap_or_else(|| "-".to_owned()), all)
    });
    rates.filter(|(_, rates)| rates.iter().any(|rate| *rate > 0.0)).collect()
}

fn rates(old: &Counters, new: &Counters, seconds: f64) -> String {
    let [received, pass, drop] = of_packets(&old.packets, &new.packets, seconds);
    let mut text = format!("\nby the second: in {received}, pass {pass}, drop {drop}\n");
    let [received, pass, drop] = of_bytes(&old.bytes, &new.bytes, seconds);
    let _ = writeln!(text, "  bytes: in {received}, pass {pass}, drop {drop}");
    for (reason, rates) in of_reasons(old, new, seconds).into_iter().filter(|(_, rates)| rates[0] > 0.0) {
        let _ = writeln!(text, "  {reason:<20}{}", rates[0]);
    }
    for (nic, rates) in of_nics(old, new, seconds) {
        let [pass, drop, bytes, _] = rates[..] else { continue };
        let _ = writeln!(text, "  {nic:<20}pass {pass} ({:.3} Mbit/s), drop {drop}", bytes * 8e-6);
    }
    for (port, rates) in of_ports(old, new, seconds) {
        let [rx, rx_bytes, tx, tx_bytes] = rates[..] else { continue };
        let _ = writeln!(
            text,
            "  {port:<20}received {rx} ({:.3} Mbit/s), sent {tx} ({:.3} Mbit/s)",
            rx_bytes * 8e-6,
            tx_bytes * 8e-6
        );
    }
    text
}

fn per_second(old: &Counters, new: &Counters, seconds: f64) -> Value {
    let [received, pass, drop] = of_packets(&old.packets, &new.packets, seconds);
    let reasons: Map<String, Value> =
        of_reasons(old, new, seconds).into_iter().map(|(reason, rates)| (reason, json!(rates[0]))).collect();
    let ports: Vec<Value> = of_ports(old, new, seconds)
        .into_iter()
        .map(|(name, rates)| {
            json!({"name": name, "rx_packets": rates[0], "rx_bytes": rates[1], "tx_packets": rates[2], "tx_bytes": rates[3]})
        })
        .collect();
    let nics: Vec<Value> = of_nics(old, new, seconds)
        .into_iter()
        .map(|(name, rates)| {
            json!({"nic": name, "pass": rates[0], "drop": rates[1], "bytes_pass": rates[2], "bytes_drop": rates[3]})
        })
        .collect();
    let [of_all, of_passed, of_dropped] = of_bytes(&old.bytes, &new.bytes, seconds);
    json!({
        "packets": {"in": received, "pass": pass, "drop": drop},
        "bytes": {"in": of_all, "pass": of_passed, "drop": of_dropped},
        "reasons": reasons, "nics": nics, "ports": ports
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::api::types::Tallied;

    fn counters(received: u64, pass: u64, new: u64) -> Counters {
        let packets = Packets { received, pass, drop: received - pass, observed: 0 };
        let bytes = Bytes { received: received * 100, pass: pass * 100, drop: (received - pass) * 100 };
        let tallied = Tallied { packets, bytes, ..Tallied::default() };
        let nics =
            vec![NicCounters { nic: Some("web".to_owned()), inbound: tallied, ..NicCounters::default() }];
        Counters { packets, bytes, nics, reasons: [("new".to_owned(), new)].into(), ..Counters::default() }
    }

    #[test]
    fn rates_are_what_came_in_between() {
        let (old, new) = (counters(100, 90, 5), counters(300, 190, 25));
        let told = per_second(&old, &new, 2.0);
        assert_eq!(told["packets"], json!({"in": 100.0, "pass": 50.0, "drop": 50.0}));
        assert_eq!(told["reasons"]["new"], json!(10.0));
        assert_eq!(told["bytes"], json!({"in": 10_000.0, "pass": 5_000.0, "drop": 5_000.0}));
        let nic =
            json!({"nic": "web", "pass": 50.0, "drop": 50.0, "bytes_pass": 5_000.0, "bytes_drop": 5_000.0});
        assert_eq!(told["nics"], json!([nic]));
        // A restart in between is no negative rate.
        assert_eq!(per_second(&new, &old, 2.0)["packets"]["in"], json!(0.0));
        assert!(rates(&old, &new, 2.0).contains("by the second: in 100, pass 50, drop 50"));
    }
}
