//! From the arguments to the exit status.

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pktgen::capture::{Capture, Writer};
use pktgen::core_use::Watch;
use pktgen::device::Devices;
use pktgen::memory::cable;
use pktgen::plan::Rate;
use pktgen::play::{Reels, Timing};
use pktgen::search::Search;
use pktgen::tap::Tapped;
use pktgen::{Generator, Monitor, Plan, Port, Ports, Report};

use crate::cli::{Args, OutputName, SearchName, TimingName};
use crate::output;

/// Frames that the cable of a dry run holds.
const CABLE: usize = 1024;
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(500);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// One clear line, and the exit status it comes with.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong.
    pub message: String,
    /// 1 for what failed, 2 for bad arguments.
    pub status: u8,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    fn input(message: impl std::fmt::Display) -> Failure {
        Failure { message: message.to_string(), status: 2 }
    }

    fn runtime(message: impl std::fmt::Display) -> Failure {
        Failure { message: message.to_string(), status: 1 }
    }
}

/// Does what the arguments say; the exit status.
pub fn start(args: &Args) -> Result<u8, Failure> {
    let plan = Plan::new(args.spec()).map_err(Failure::input)?;
    if args.print_policy {
        print(&pktgen::policy::policy(&plan));
        return Ok(0);
    }
    let search = search(args, &plan)?;
    let reels = reels(args)?;
    let core = core(args)?;
    let monitor = Arc::new(Monitor::default());
    catch_signals(&monitor)?;
    let job = Job { plan, search, reels, core };
    let mut report =
        if args.dry_run { job.over_cable(args, &monitor)? } else { job.over_devices(args, &monitor)? };
    report.warn();
    match args.output {
        OutputName::Json => print(&(serde_json::to_string(&report).map_err(Failure::runtime)? + "\n")),
        OutputName::Table => print(&output::table(&report)),
    }
    Ok(u8::from(args.max_loss.is_some_and(|most| report.loss > most)))
}

/// To standard output. A reader that has gone away is no failure of ours.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What a generating thread does.
struct Job {
    plan: Plan,
    search: Option<(Search, SearchName, Duration)>,
    reels: Option<Reels>,
    core: usize,
}

impl Job {
    fn over_cable(self, args: &Args, monitor: &Arc<Monitor>) -> Result<Report, Failure> {
        let (inside, outside) = cable(CABLE);
        self.run(args, monitor, Ports::pair(inside, outside), || Ok::<(), Failure>(()))
    }

    fn over_devices(self, args: &Args, monitor: &Arc<Monitor>) -> Result<Report, Failure> {
        let devices = devices(args, self.core)?;
        let (open, ports) = devices.open().map_err(|error| match &error {
            pmd::Error::NoSuchPort { reason: None, name, .. } => {
                let option = if args.inside.as_ref() == Some(name) { "--inside" } else { "--outside" };
                Failure::input(format!("{option} {name}: {error}"))
            }
            _ => Failure::runtime(error),
        })?;
        let eal = open.eal().clone();
        let mut report = self.run(args, monitor, ports, move || eal.register_thread())?;
        report.ports = open.counts();
        Ok(report)
    }

    /// Generates on a thread of its own, and shows progress on this one.
    fn run<P: Port + Send, G, E: std::fmt::Display + Send>(
        self,
        args: &Args,
        monitor: &Arc<Monitor>,
        ports: Ports<P>,
        enter: impl FnOnce() -> Result<G, E> + Send,
    ) -> Result<Report, Failure> {
        let mut taps = Taps::create(args)?;
        if taps.is_none() {
            return self.run_over(args, monitor, ports, enter, |_| Ok(()));
        }
        let is_pair = ports.is_pair();
        let mut ports = ports.into_ports();
        let mut tap = |[sent, received]: [Option<Writer>; 2]| {
            let port = ports.next().expect("the ports that were counted");
            Tapped::new(port, sent, received)
        };
        let tapped = match is_pair {
            true => Ports::pair(tap(taps.inside.each_mut().map(Option::take)), tap(taps.outside)),
            false => Ports::single(tap(taps.outside)),
        };
        self.run_over(args, monitor, tapped, enter, |ports| ports.into_ports().try_for_each(Tapped::finish))
    }

    fn run_over<P: Port + Send, G, E: std::fmt::Display + Send>(
        self,
        args: &Args,
        monitor: &Arc<Monitor>,
        mut ports: Ports<P>,
        enter: impl FnOnce() -> Result<G, E> + Send,
        finish: impl FnOnce(Ports<P>) -> std::io::Result<()> + Send,
    ) -> Result<Report, Failure> {
        let mut progress = output::Line::new(args.progress);
        thread::scope(|scope| {
            let generating = scope.spawn(|| {
                core_affinity::set_for_current(core_affinity::CoreId { id: self.core });
                let _entered = enter().map_err(Failure::runtime)?;
                let report = self.generate(args, &mut ports, monitor);
                // The frames of the thread's caches go back while it is registered.
                finish(ports)
                    .map_err(|error| Failure::runtime(format!("a capture cannot be written: {error}")))?;
                Ok(report)
            });
            let mut since = Duration::ZERO;
            while !generating.is_finished() {
                thread::sleep(LOOK);
                since += LOOK;
                if since >= TICK {
                    since = Duration::ZERO;
                    progress.show(&monitor.progress());
                }
            }
            progress.end();
            generating.join().unwrap_or_else(|_| Err(Failure::runtime("the generator's thread broke off")))
        })
    }

    fn generate<P: Port>(&self, args: &Args, ports: &mut Ports<P>, monitor: &Monitor) -> Report {
        let mut generator = match &self.reels {
            None => Generator::new(&self.plan),
            Some(reels) => {
                let original = args.captures.timing == TimingName::Original;
                let timing = if original { Timing::Original } else { Timing::Rate };
                Generator::play(&self.plan, reels.clone(), timing, args.captures.loops)
            }
        };
        generator.warm_up(ports, monitor);
        let watch = Watch::begin(self.core);
        let report = match &self.search {
            None => generator.measure(ports, monitor),
            Some((search, name, trial)) => {
                let (ndr, pdr) = (*name != SearchName::Pdr, *name != SearchName::Ndr);
                generator.search(ports, search, (ndr, pdr), *trial, monitor)
            }
        };
        Report { core: Some(watch.end()), ..report }
    }
}

/// Captures to be written, by side: what is sent, and what is received.
#[derive(Default)]
struct Taps {
    inside: [Option<Writer>; 2],
    outside: [Option<Writer>; 2],
}

impl Taps {
    fn create(args: &Args) -> Result<Taps, Failure> {
        let captures = &args.captures;
        let inside = [&captures.write_sent_inside, &captures.write_received_inside];
        let outside = [&captures.write_sent_outside, &captures.write_received_outside];
        let create = |path: &Option<std::path::PathBuf>| {
            let create = |path: &std::path::PathBuf| {
                Writer::create(path)
                    .map_err(|error| Failure::input(format!("{}: cannot write it: {error}", path.display())))
            };
            path.as_ref().map(create).transpose()
        };
        let both = |[sent, received]: [&Option<_>; 2]| Ok::<_, Failure>([create(sent)?, create(received)?]);
        Ok(Taps { inside: both(inside)?, outside: both(outside)? })
    }

    fn is_none(&self) -> bool {
        self.inside.iter().chain(&self.outside).all(Option::is_none)
    }
}

fn reels(args: &Args) -> Result<Option<Reels>, Failure> {
    let captures = &args.captures;
    if !captures.plays() {
        return Ok(None);
    }
    let read = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| Capture::read(path).map_err(Failure::input)).transpose()
    };
    Ok(Some(Reels { inside: read(&captures.play_inside)?, outside: read(&captures.play_outside)? }))
}

fn devices(args: &Args, core: usize) -> Result<Devices, Failure> {
    let (inside, outside) = match (args.inside.clone(), args.outside.clone()) {
        (inside, Some(outside)) => (inside, outside),
        (Some(inside), None) => (None, inside),
        (None, None) => {
            return Err(Failure::input(
                "--outside: no port was given; allowed: a DPDK port's name, with its device behind `--`, such as: --outside \
                 net_ring0 -- --no-pci --vdev=net_ring0 (or --dry-run, which needs none)",
            ));
        }
    };
    let captures = &args.captures;
    let of_inside = [
        ("--write-sent-inside", &captures.write_sent_inside),
        ("--write-received-inside", &captures.write_received_inside),
    ];
    if let Some((option, path)) =
        of_inside.into_iter().find_map(|(option, path)| Some((option, path.as_ref()?)))
        && inside.is_none()
    {
        let what = "there is one port only, and it is the outside; allowed: with --inside PORT";
        return Err(Failure::input(format!("{option} {}: {what}", path.display())));
    }
    if inside.as_ref() == Some(&outside) {
        let both = format!(
            "--inside {outside}: is the port of --outside; allowed: another port, or --outside alone"
        );
        return Err(Failure::input(both));
    }
    Ok(Devices { inside, outside, eal: args.eal.clone(), core, ring: args.ring, wait: args.wait })
}

fn search(args: &Args, plan: &Plan) -> Result<Option<(Search, SearchName, Duration)>, Failure> {
    let Some(name) = args.search else { return Ok(None) };
    let max_pps = match (args.max_rate, plan.rate) {
        (Some(pps), _) | (None, Rate::Pps(pps)) => pps,
        (None, Rate::Unlimited) => {
            return Err(Failure::input(
                "--max-rate: nothing was given; allowed: packets a second, such as 10Mpps",
            ));
        }
    };
    let min_pps = args.min_rate.unwrap_or(max_pps / 1000.0);
    if min_pps >= max_pps {
        return Err(Failure::input(format!("--min-rate {min_pps}: allowed: below --max-rate {max_pps}")));
    }
    if !(1e-6..=0.5).contains(&args.resolution) {
        return Err(Failure::input(format!("--resolution {}: allowed: 0.000001 to 0.5", args.resolution)));
    }
    if args.trial < Duration::from_millis(10) {
        return Err(Failure::input(format!("--trial {:?}: allowed: 10ms or more", args.trial)));
    }
    let search =
        Search { min_pps, max_pps, resolution: args.resolution, ndr_loss: 0.0, pdr_loss: args.pdr_loss };
    Ok(Some((search, name, args.trial)))
}

/// The core to poll on: one of those that this process may use.
fn core(args: &Args) -> Result<usize, Failure> {
    let there: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    match args.core {
        Some(core) if !there.contains(&core) => {
            let list: Vec<_> = there.iter().map(ToString::to_string).collect();
            Err(Failure::input(format!("--core {core}: is not there; allowed: {}", list.join(", "))))
        }
        Some(core) => Ok(core),
        None => Ok(there.last().copied().unwrap_or(0)),
    }
}

/// The first signal asks for the end, with the result; a second one ends the process.
fn catch_signals(monitor: &Monitor) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM] {
        let flag = monitor.stop_flag();
        signal_hook::flag::register_conditional_default(signal, flag.clone()).map_err(Failure::runtime)?;
        signal_hook::flag::register(signal, flag).map_err(Failure::runtime)?;
    }
    Ok(())
}
