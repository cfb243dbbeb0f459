//! What a stats page says, in the shape in which it is shown; and how much of it came by the second.

use std::collections::{BTreeMap, HashMap};

use control::name::Key;
use stats::{Listed, PREFIX, Page};

/// Numbers that only grow, and how fast they did: `None` where nothing earlier is known, or the page is no longer written.
#[derive(Clone, Copy, Debug)]
pub struct Counts<const N: usize> {
    pub total: [u64; N],
    pub rate: Option<[f64; N]>,
}

impl<const N: usize> Default for Counts<N> {
    fn default() -> Counts<N> {
        Counts { total: [0; N], rate: None }
    }
}

impl<const N: usize> Counts<N> {
    fn rated(&mut self, before: &Counts<N>, seconds: f64) {
        let rate = |at: usize| self.total[at].saturating_sub(before.total[at]) as f64 / seconds;
        self.rate = Some(std::array::from_fn(rate));
    }

    /// Of these, by the second, together.
    pub fn rate_of(&self, which: &[usize]) -> Option<f64> {
        self.rate.map(|rate| which.iter().map(|at| rate[*at]).sum())
    }

    /// Of these, since the start, together.
    pub fn total_of(&self, which: &[usize]) -> u64 {
        which.iter().fold(0, |sum, at| sum.wrapping_add(self.total[*at]))
    }
}

/// The places of a port's counts.
pub mod port {
    pub const RECEIVED: usize = 0;
    pub const SENT: usize = 1;
    pub const LOST_RX: usize = 2;
    pub const LOST_TX: usize = 3;
    pub const RX_BYTES: usize = 4;
    pub const TX_BYTES: usize = 5;
    pub const ALL: usize = 6;
}

/// Those of a worker.
pub mod worker {
    pub const PASS: usize = 0;
    pub const DROP: usize = 1;
    pub const BYTES: usize = 2;
    pub const BUSY: usize = 3;
    pub const IDLE: usize = 4;
    pub const BURSTS: usize = 5;
    pub const FRAMES: usize = 6;
    pub const OPENED: usize = 7;
    pub const ALL: usize = 8;
}

/// Those of a NIC.
pub mod nic {
    pub const PASS: usize = 0;
    pub const DROP: usize = 1;
    pub const IN_BYTES: usize = 2;
    pub const OUT_BYTES: usize = 3;
    pub const ALL: usize = 4;
}

/// Those of a rule.
pub mod rule {
    pub const OPENED: usize = 0;
    pub const DENIED: usize = 1;
    /// Packets about which a staged one would decide.
    pub const STAGED: usize = 2;
    /// Those of them that got the other verdict.
    pub const DIFFERING: usize = 3;
    pub const ALL: usize = 4;
}

/// Those of a reason to drop.
pub mod reason {
    pub const DROPPED: usize = 0;
    pub const OBSERVED: usize = 1;
    pub const ALL: usize = 2;
}

#[derive(Clone, Debug, Default)]
pub struct Port {
    pub name: String,
    /// The wire and the side of it.
    pub wire: Option<(String, String)>,
    pub up: bool,
    pub counts: Counts<{ port::ALL }>,
}

#[derive(Clone, Debug, Default)]
pub struct Worker {
    pub id: String,
    pub core: String,
    /// Live connections, tombstones, and how many fit.
    pub connections: u64,
    pub tombstones: u64,
    pub capacity: u64,
    pub generation: u64,
    pub counts: Counts<{ worker::ALL }>,
}

#[derive(Clone, Debug, Default)]
pub struct Nic {
    pub name: String,
    pub connections: u64,
    pub counts: Counts<{ nic::ALL }>,
}

#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The group and its place in it, as everywhere else.
    pub name: String,
    pub group: String,
    pub id: String,
    pub description: String,
    /// It is judged beside the others, and decides nothing.
    pub is_staged: bool,
    pub counts: Counts<{ rule::ALL }>,
}

#[derive(Clone, Debug, Default)]
pub struct Reason {
    pub name: String,
    pub direction: String,
    pub counts: Counts<{ reason::ALL }>,
}

#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub generation: u64,
    /// Seconds since 1970.
    pub at: f64,
    pub by: String,
    pub origin: String,
    pub state: String,
    pub what: String,
    pub disconnected: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Problem {
    pub what: String,
    pub since: u64,
    pub ended: Option<u64>,
    pub problem: String,
    pub cure: String,
}

/// All of it. Times are in nanoseconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub version: String,
    pub written: u64,
    pub started: u64,
    pub ended: Option<u64>,
    pub process: u32,
    pub generation: u64,
    /// Between the two moments that rates are of.
    pub seconds: Option<f64>,
    pub ports: Vec<Port>,
    pub workers: Vec<Worker>,
    pub nics: Vec<Nic>,
    /// NICs of the policy: more than are listed, where `[metrics] nics` leaves some out.
    pub all_nics: Option<u64>,
    pub rules: Vec<Rule>,
    pub reasons: Vec<Reason>,
    /// Connections by state, tombstones too.
    pub states: BTreeMap<String, u64>,
    /// Connections that ended, by how.
    pub ends: BTreeMap<String, Counts<1>>,
    /// Changes by what became of them.
    pub outcomes: BTreeMap<String, u64>,
    pub disconnected: u64,
    pub commits: Vec<Commit>,
    pub problems: Vec<Problem>,
    /// What is not strict.
    pub settings: Vec<String>,
}

/// What has a name by which it is found again, and counts.
trait Counted<const N: usize> {
    fn key(&self) -> (&str, &str);
    fn counts(&mut self) -> &mut Counts<N>;
    fn counted(&self) -> &Counts<N>;
}

macro_rules! counted {
    ($($what:ty, $count:expr, $first:ident, $second:ident;)*) => {$(
        impl Counted<{ $count }> for $what {
            fn key(&self) -> (&str, &str) {
                (&self.$first, &self.$second)
            }
            fn counts(&mut self) -> &mut Counts<{ $count }> {
                &mut self.counts
            }
            fn counted(&self) -> &Counts<{ $count }> {
                &self.counts
            }
        }
    )*};
}

counted! {
    Port, port::ALL, name, name;
    Worker, worker::ALL, id, id;
    Nic, nic::ALL, name, name;
    // It keeps its counts where its place in the group changes.
    Rule, rule::ALL, group, id;
    Reason, reason::ALL, name, direction;
}

/// What is new since then has no rate: it may have counted for longer than it is known.
fn rated<const N: usize>(now: &mut [impl Counted<N>], before: &[impl Counted<N>], seconds: f64) {
    let known: HashMap<_, _> = before.iter().map(|old| (old.key(), old.counted())).collect();
    for new in now {
        if let Some(old) = known.get(&new.key()).copied().copied() {
            new.counts().rated(&old, seconds);
        }
    }
}

/// Pages are written by a process that this one need not trust: nothing of theirs may steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Where in a list something of a key is: found, or added.
struct Places(HashMap<(String, String), usize>);

impl Places {
    fn new() -> Places {
        Places(HashMap::new())
    }

    fn of<'l, T: Default>(
        &mut self,
        list: &'l mut Vec<T>,
        a: &str,
        b: &str,
        made: impl FnOnce() -> T,
    ) -> &'l mut T {
        let at = *self.0.entry((a.to_owned(), b.to_owned())).or_insert(list.len());
        if at == list.len() {
            list.push(made());
        }
        &mut list[at]
    }
}

fn number<T: std::str::FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}

/// A page as it is read, family by family.
struct Gathering {
    figures: Figures,
    ports: Places,
    workers: Places,
    nics: Places,
    rules: Places,
    reasons: Places,
    wires: HashMap<String, (String, String)>,
}

impl Figures {
    /// What a page says; without rates.
    pub fn of(page: &Page) -> Figures {
        let figures = Figures {
            written: page.written,
            started: page.started,
            ended: page.ended,
            process: page.process,
            ..Figures::default()
        };
        let [ports, workers, nics, rules, reasons] = std::array::from_fn(|_| Places::new());
        let mut gathering =
            Gathering { figures, ports, workers, nics, rules, reasons, wires: HashMap::new() };
        for (family, labels, values) in page.series() {
            gathering.take(family, labels, values);
        }
        let Gathering { mut figures, mut wires, .. } = gathering;
        for port in &mut figures.ports {
            port.wire = wires.remove(&port.name);
        }
        figures
    }

    /// The same with rates since an earlier moment of the same start. Where that is the same moment, there are none.
    pub fn since(mut self, before: &Figures) -> Figures {
        if before.started != self.started || before.written >= self.written {
            return self;
        }
        let seconds = (self.written - before.written) as f64 / 1e9;
        self.seconds = Some(seconds);
        rated(&mut self.ports, &before.ports, seconds);
        rated(&mut self.workers, &before.workers, seconds);
        rated(&mut self.nics, &before.nics, seconds);
        rated(&mut self.rules, &before.rules, seconds);
        rated(&mut self.reasons, &before.reasons, seconds);
        for (how, counts) in &mut self.ends {
            if let Some(before) = before.ends.get(how) {
                counts.rated(before, seconds);
            }
        }
        self
    }

    /// The same without rates: they are of a time that is over.
    pub fn stale(mut self) -> Figures {
        self.seconds = None;
        self.ports.iter_mut().for_each(|port| port.counts.rate = None);
        self.workers.iter_mut().for_each(|worker| worker.counts.rate = None);
        self.nics.iter_mut().for_each(|nic| nic.counts.rate = None);
        self.rules.iter_mut().for_each(|rule| rule.counts.rate = None);
        self.reasons.iter_mut().for_each(|reason| reason.counts.rate = None);
        self.ends.values_mut().for_each(|counts| counts.rate = None);
        self
    }

    /// Workers' counts, together.
    pub fn all_workers(&self) -> Counts<{ worker::ALL }> {
        let mut all = Counts { rate: self.seconds.map(|_| [0.0; worker::ALL]), ..Counts::default() };
        for worker in &self.workers {
            for at in 0..worker::ALL {
                all.total[at] = all.total[at].wrapping_add(worker.counts.total[at]);
                if let (Some(sum), Some(rate)) = (&mut all.rate, worker.counts.rate) {
                    sum[at] += rate[at];
                }
            }
        }
        all
    }

    /// NICs that the page does not list.
    pub fn nics_left_out(&self) -> u64 {
        self.all_nics.map_or(0, |all| all.saturating_sub(self.nics.len() as u64))
    }
}

impl Gathering {
    fn take(&mut self, family: &Listed, labels: &[String], values: &[u64]) {
        let (Some(name), [value]) = (family.name.strip_prefix(PREFIX), values) else { return };
        let value = *value;
        let labels: Vec<String> = labels.iter().map(|label| printable(label)).collect();
        let words: Vec<&str> = labels.iter().map(String::as_str).collect();
        let known = self.of_appliance(name, &words, value)
            || self.of_port(name, &words, value)
            || self.of_worker(name, &words, value)
            || self.of_policy(name, &words, value);
        // Families of a later version are left alone.
        let _ = known;
    }

    fn of_appliance(&mut self, name: &str, labels: &[&str], value: u64) -> bool {
        let figures = &mut self.figures;
        match (name, labels) {
            ("build_info", [version]) => figures.version = (*version).to_owned(),
            ("generation", []) => figures.generation = value,
            ("nics", []) => figures.all_nics = Some(value),
            ("disconnected_total", []) => figures.disconnected = value,
            ("setting_info", [setting]) => figures.settings.push((*setting).to_owned()),
            ("commits_total", [outcome]) => _ = figures.outcomes.insert((*outcome).to_owned(), value),
            ("commit", [generation, at, by, origin, state, what]) => figures.commits.push(Commit {
                generation: number(generation),
                at: number(at),
                by: (*by).to_owned(),
                origin: (*origin).to_owned(),
                state: (*state).to_owned(),
                what: (*what).to_owned(),
                disconnected: value,
            }),
            ("problem", [what, since, ended, problem, cure]) => figures.problems.push(Problem {
                what: (*what).to_owned(),
                since: number(since),
                ended: ended.parse().ok(),
                problem: (*problem).to_owned(),
                cure: (*cure).to_owned(),
            }),
            _ => return false,
        }
        true
    }

    fn of_port(&mut self, name: &str, labels: &[&str], value: u64) -> bool {
        if let ("wire_info", [wire, side, port]) = (name, labels) {
            self.wires.insert((*port).to_owned(), ((*wire).to_owned(), (*side).to_owned()));
            return true;
        }
        let ("port_packets_total" | "port_bytes_total" | "port_up", [its, way @ ..]) = (name, labels) else {
            return false;
        };
        let made = || Port { name: (*its).to_owned(), ..Port::default() };
        let found = self.ports.of(&mut self.figures.ports, its, "", made);
        let at = match (name, way) {
            ("port_up", []) => {
                found.up = value != 0;
                return true;
            }
            ("port_packets_total", ["received"]) => port::RECEIVED,
            ("port_packets_total", ["sent"]) => port::SENT,
            ("port_packets_total", ["lost-rx"]) => port::LOST_RX,
            ("port_packets_total", ["lost-tx"]) => port::LOST_TX,
            ("port_bytes_total", ["received"]) => port::RX_BYTES,
            ("port_bytes_total", ["sent"]) => port::TX_BYTES,
            _ => return true,
        };
        found.counts.total[at] = value;
        true
    }

    fn of_worker(&mut self, name: &str, labels: &[&str], value: u64) -> bool {
        let [id, rest @ ..] = labels else { return false };
        let made = || Worker { id: (*id).to_owned(), ..Worker::default() };
        let is_of_workers = name.starts_with("worker_")
            || name.starts_with("connections")
            || matches!(name, "packets_total" | "bytes_total");
        if !is_of_workers {
            return false;
        }
        let found = self.workers.of(&mut self.figures.workers, id, "", made);
        let total = &mut found.counts.total;
        match (name, rest) {
            ("worker_info", [core]) => found.core = (*core).to_owned(),
            ("worker_generation", []) => found.generation = value,
            ("worker_cycles_total", ["busy"]) => total[worker::BUSY] = value,
            ("worker_cycles_total", ["idle"]) => total[worker::IDLE] = value,
            ("worker_bursts_total", []) => total[worker::BURSTS] = value,
            ("worker_burst_frames_total", []) => total[worker::FRAMES] = value,
            ("connections_capacity", []) => found.capacity = value,
            ("connections_opened_total", []) => total[worker::OPENED] = value,
            ("connections", [state]) => {
                let sum = if *state == "tombstone" { &mut found.tombstones } else { &mut found.connections };
                *sum += value;
                *self.figures.states.entry((*state).to_owned()).or_default() += value;
            }
            ("connections_ended_total", [how]) => {
                self.figures.ends.entry((*how).to_owned()).or_default().total[0] += value;
            }
            ("bytes_total", [_, "pass"]) => total[worker::BYTES] += value,
            ("packets_total", [direction, verdict, reason]) => {
                total[if *verdict == "pass" { worker::PASS } else { worker::DROP }] += value;
                self.of_reason(direction, verdict, reason, value);
            }
            _ => {}
        }
        true
    }

    /// What passes for another reason than one to drop is no drop.
    fn of_reason(&mut self, direction: &str, verdict: &str, name: &str, value: u64) {
        let is_a_drop = engine::Reason::ALL.iter().all(|known| known.name() != name || !known.passes());
        if !is_a_drop {
            return;
        }
        let made = || Reason { name: name.to_owned(), direction: direction.to_owned(), ..Reason::default() };
        let found = self.reasons.of(&mut self.figures.reasons, name, direction, made);
        let at = if verdict == "pass" { reason::OBSERVED } else { reason::DROPPED };
        found.counts.total[at] += value;
    }

    fn of_policy(&mut self, name: &str, labels: &[&str], value: u64) -> bool {
        match (name, labels) {
            ("nic_packets_total" | "nic_bytes_total" | "nic_connections", [project, its, rest @ ..]) => {
                let made = || Nic { name: Key::new(*project, *its).to_string(), ..Nic::default() };
                let found = self.nics.of(&mut self.figures.nics, project, its, made);
                let at = match (name, rest) {
                    ("nic_connections", []) => {
                        found.connections = value;
                        return true;
                    }
                    ("nic_packets_total", [_, "pass"]) => nic::PASS,
                    ("nic_packets_total", [_, "drop"]) => nic::DROP,
                    ("nic_bytes_total", ["inbound", "pass"]) => nic::IN_BYTES,
                    ("nic_bytes_total", ["outbound", "pass"]) => nic::OUT_BYTES,
                    _ => return true,
                };
                found.counts.total[at] += value;
            }
            (
                "rule_connections_total"
                | "rule_denied_packets_total"
                | "rule_staged_packets_total"
                | "rule_info",
                [project, group, id, rest @ ..],
            ) => {
                let group = Key::new(*project, *group).to_string();
                let made = || Rule {
                    name: group.clone(),
                    group: group.clone(),
                    id: (*id).to_owned(),
                    ..Rule::default()
                };
                let found = self.rules.of(&mut self.figures.rules, &group, id, made);
                match (name, rest) {
                    ("rule_connections_total", []) => found.counts.total[rule::OPENED] = value,
                    ("rule_denied_packets_total", []) => found.counts.total[rule::DENIED] = value,
                    ("rule_staged_packets_total", [would, verdict]) => {
                        found.is_staged = true;
                        found.counts.total[rule::STAGED] += value;
                        found.counts.total[rule::DIFFERING] += if would == verdict { 0 } else { value };
                    }
                    ("rule_info", [position, description]) => {
                        found.name = format!("{group}#{position}");
                        found.description = (*description).to_owned();
                    }
                    _ => {}
                }
            }
            _ => return false,
        }
        true
    }
}
