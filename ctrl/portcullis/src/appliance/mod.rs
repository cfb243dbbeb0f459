//! `run`: the appliance. This file tells its life from top to bottom; each step has a file of its own.

mod assemble;
pub mod cores;
pub mod environment;
mod flows;
mod health;
mod log;
pub mod mtu;
mod persist;
pub mod ports;
pub mod preflight;
pub mod refusals;
mod reload;
mod sandbox;
mod service;
mod stats;
mod swap;
mod take_over;
mod telemetry;
mod watch;
mod workers;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use control::api::{self, Socket, Tcp, TcpError};
use control::config::{Config, LOG_LEVELS, Source};
use control::document::Parsed;
use control::health::Severity;
use control::live::{self, Live, Parts, PolicyFile, StartState, lenient_settings};
use control::persisted::PersistedState;
use control::source::{Diagnostic, input_name};
use control::store::{Missing, OpenOptions, Store};
use engine::conntrack::Secret;
use pmd::{Eal, Mempool};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::level_filters::LevelFilter;
use tracing::{debug, error, warn};

use crate::cli;
use crate::client::table;
use crate::failure::{Failure, print_patiently};
use crate::{input, memory};
use cores::Cores;
use environment::Environment;
use flows::FlowLogs;
use health::HealthWatch;
use log::LogWriter;
use persist::{KeptIn, StateKeeper};
use ports::claims::{self, Claims};
use ports::monitor::{MonitorContext, PortMonitor};
use ports::{Ports, Wires};
use service::{Signals, tell_reloading, tell_supervisor};
use take_over::{Fate, Giver, Grip, Heard, Line, Taking};
use watch::{Stamp, Watch};
use workers::Workers;

/// How often the workers are looked after.
const WATCH_EVERY: Duration = Duration::from_millis(25);
/// Threads that serve clients and make changes, all of them on the control core. What takes long gives its thread away; this thread,
/// which minds signals and looks after the workers, waits for none of them.
const CONTROL_THREADS: usize = 4;
/// What a restart means, told at the end of every run.
const FORGETS: &str = "a restart forgets all connections and tombstones: after it only opening packets pass, and what was disconnected \
                       may open again; with [conntrack] pickup_grace = SECONDS segments of older TCP connections may go on for so long \
                       after a start, where today's rules allow them";

/// The same where connections are kept.
const KEEPS: &str = "the next start takes its connections and tombstones up";

/// Where another process forwards now.
const RELIEVED: &str = "another process has taken its connections and tombstones over";

/// The command.
pub fn run(args: &cli::Run) -> Result<ExitCode, Failure> {
    // What comes into the file from here on is a change of it.
    let stamp = args.policy.as_deref().map(Stamp::of);
    let Input { config, policy, cores, warnings } = read_input(args)?;
    // Before there are threads of its own or of DPDK.
    cores.keep_to_control();
    let lines = log::start(&config.log).map_err(Failure::runtime)?;
    log::listen_to_dpdk();
    let of_policy = policy.iter().flat_map(|parsed| &parsed.warnings);
    warnings.iter().chain(of_policy).for_each(|warning| warn!("{warning}"));
    let ended = run_with(config, policy, (args, stamp), &cores, &lines);
    lines.flush();
    ended
}

fn run_with(
    config: Config,
    policy: Option<Parsed>,
    (args, stamp): (&cli::Run, Option<Stamp>),
    cores: &Cores,
    lines: &LogWriter,
) -> Result<ExitCode, Failure> {
    warn_of(&config, policy.as_ref(), args);
    let runtime = service::runtime(CONTROL_THREADS).map_err(Failure::runtime)?;
    let mut signals = {
        let _within = runtime.enter();
        Signals::new().map_err(Failure::runtime)?
    };
    let mut taking = args.take_over.then(|| Taking::begin(&config)).transpose()?;
    let mut doors = Listeners::open(&config, taking.as_mut())?;
    // Standard input is read once: it does not govern, it fills.
    let is_file = |path: &&Path| *path != Path::new("-");
    let policy_file = args.policy.as_deref().filter(is_file).zip(stamp);
    let policy_file = policy_file.filter(|_| config.source() == Source::File);
    let opening = opening(&config, args.new_store)?;
    let lock = taking.as_mut().and_then(Taking::lock);
    let mut keeping = StateKeeper::open(&config, args.cold, lock).map_err(Failure::runtime)?;
    doors.open_for_relief(&keeping, taking.as_mut())?;
    let former = keeping.state();
    let (first, path, goes_on) = (config.clone(), args.policy.clone(), args.take_over);
    let begin = move || begin_with(first, opening, (policy, path.as_deref()), former, goes_on);
    // A large store takes seconds to read: who wants to end it need not wait.
    let Some(beginning) = runtime.block_on(service::unless_ended(&mut signals, begin)) else {
        runtime.shutdown_background();
        return Ok(ExitCode::SUCCESS);
    };
    let beginning = beginning?;
    let dataplane = match &mut taking {
        None => Dataplane::open(&config, cores, None)?,
        Some(taking) => {
            if let Some(reason) = keeping.unfit(&beginning.former) {
                return Err(not_taken_up(&reason));
            }
            keeping.lay_out_ahead(&assemble::capacities(&config)).map_err(Failure::runtime)?;
            // While the ports are opened: the longer of the two is all that is waited for.
            let mut read = || keeping.read_connections(&beginning.former);
            Dataplane::open(&config, cores, Some((taking, &mut read)))?
        }
    };
    if taking.is_none() {
        keeping.read_connections(&beginning.former);
    }
    if taking.is_some() && !keeping.is_warm() {
        return Err(not_taken_up(keeping.reason()));
    }
    sandbox::confine(&config, args.policy.as_deref(), &dataplane.ports);
    dataplane.run((beginning, keeping, taking), policy_file, doors, runtime, signals, lines)
}

/// A take-over ends here, before or after the other process stands still.
fn not_taken_up(reason: &str) -> Failure {
    Failure::runtime(format!("--take-over: the connections cannot be taken up: {reason}"))
}

/// The store that the configuration names, if it does.
fn opening(config: &Config, new_store: bool) -> Result<Option<OpenOptions>, Failure> {
    let control::config::Store { path, witness, must_exist } = &config.store;
    let missing = match (new_store, must_exist) {
        (true, _) if path.is_none() => {
            return Err(Failure::input(
                "--new-store: the configuration names no store; required: [store] path",
            ));
        }
        (true, _) => Missing::New,
        (false, true) => Missing::Refuse,
        (false, false) => Missing::Make,
    };
    Ok(path.clone().map(|path| OpenOptions { path, witness: witness.clone(), missing }))
}

/// The first policy, from the store or the file.
fn begin_with(
    config: Config,
    opening: Option<OpenOptions>,
    (policy, path): (Option<Parsed>, Option<&Path>),
    former: Option<PersistedState>,
    goes_on: bool,
) -> Result<StartState, Failure> {
    let store = opening.as_ref().map(Store::open_as).transpose().map_err(Failure::runtime)?;
    let file = policy.zip(path).map(|(parsed, path)| {
        let name = if path == Path::new("-") {
            input_name(path)
        } else {
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
        };
        PolicyFile { path: name, policy: parsed.policy }
    });
    let beginning = live::begin(config, store, file, former, goes_on).map_err(Failure::input)?;
    beginning.warnings.iter().for_each(|warning| warn!("{warning}"));
    Ok(beginning)
}

/// What the files say.
struct Input {
    config: Config,
    policy: Option<Parsed>,
    cores: Cores,
    /// What in the configuration is likely a mistake.
    warnings: Vec<Diagnostic>,
}

/// Everything that can be wrong in the files is found here, before anything starts.
fn read_input(args: &cli::Run) -> Result<Input, Failure> {
    let checked = input::checked_config(&args.config).map_err(Failure::inputs)?;
    let mut config = checked.config.clone();
    config.log.level = log_level(config.log.level).map_err(Failure::input)?;
    let whole_file =
        |message: String| Failure::input(Diagnostic::whole_file(input_name(&args.config), message));
    config.require_wires().map_err(|message| whole_file(message.to_owned()))?;
    let mut found = preflight::look(&checked);
    let policy = match args.policy.as_deref().map(|path| input::checked_policy(path, &config)).transpose() {
        Ok(policy) => policy,
        Err(faults) => {
            found.faults.extend(faults);
            None
        }
    };
    if !found.faults.is_empty() {
        return Err(Failure::inputs(found.faults));
    }
    let cores = Cores::divide(&config).map_err(whole_file)?;
    Ok(Input { config, policy, cores, warnings: found.warnings })
}

/// `PORTCULLIS_LOG` comes before the configuration.
fn log_level(configured: LevelFilter) -> Result<LevelFilter, String> {
    let Some(given) = std::env::var_os("PORTCULLIS_LOG") else { return Ok(configured) };
    let known = LOG_LEVELS.iter().find(|(name, _)| given == *name);
    known.map(|(_, level)| *level).ok_or_else(|| {
        let allowed = LOG_LEVELS.map(|(name, _)| name).join(", ");
        format!("PORTCULLIS_LOG: {}; allowed: {allowed}", given.display())
    })
}

/// What an operator should know from the start.
fn warn_of(config: &Config, policy: Option<&Parsed>, args: &cli::Run) {
    let empty = control::model::Policy::default();
    for setting in lenient_settings(config, policy.map_or(&empty, |parsed| &parsed.policy)) {
        warn!("a setting is on that is not strict: {setting}");
    }
    match (policy, args.policy.as_deref()) {
        (Some(parsed), Some(path)) if parsed.policy.nics.is_empty() => {
            warn!("{}: the policy has no NICs, nobody is protected and nothing passes", path.display());
        }
        // A take-over goes on with the policy in force.
        (None, _) if config.store.path.is_none() && !args.take_over => {
            warn!("no --policy is given: nothing passes until one is applied");
        }
        _ => {}
    }
}

/// DPDK with its ports, and who gets which queue.
struct Dataplane {
    queues: Vec<Wires>,
    ports: Ports,
    secret: Secret,
    pool: Mempool,
    eal: Arc<Eal>,
    has_telemetry: bool,
    cores: Cores,
    claims: Option<Claims>,
}

impl Dataplane {
    /// With `taking`, ports that another process has are opened when it has let go of them: from then on nobody forwards. What comes with
    /// it is done meanwhile.
    fn open(
        config: &Config,
        cores: &Cores,
        taking: Option<(&mut Taking, &mut (dyn FnMut() + Send))>,
    ) -> Result<Dataplane, Failure> {
        let claim = || {
            let claims = claims::claim(config).map_err(Failure::runtime);
            claims.inspect(|_| claims::remove_stale_sockets(config))
        };
        let mut claims = if taking.is_none() { Some(claim()?) } else { None };
        let secret = assemble::random_secret()?;
        let mtus = mtu::resolve(config).map_err(Failure::runtime)?;
        let room = mtu::buffer_sizing(config, &mtus).map_err(Failure::runtime)?;
        let mut environment = Environment::new(config, &room, cores.control[0], Eal::has_hugepages());
        environment.look_for_a_place(&environment::runtime_directory());
        environment.warnings.iter().for_each(|warning| warn!("{warning}"));
        let args = match &taking {
            None => environment.args.clone(),
            Some(_) => take_over::beside_another(&environment.args, config),
        };
        let eal = Arc::new(Eal::init(&args).map_err(Failure::runtime)?);
        let pool = Mempool::new(&eal, "portcullis", environment.buffers, environment.data_room)
            .map_err(Failure::runtime)?;
        let open = || {
            ports::open(config, &environment.args, &mtus, &eal, &pool, secret.pattern())
                .map_err(Failure::runtime)
        };
        let (ports, queues) = match taking {
            None => open()?,
            Some((taking, meanwhile)) => {
                taking.let_go()?;
                std::thread::scope(|scope| {
                    scope.spawn(meanwhile);
                    claims = Some(claim()?);
                    take_over::plug_exclusive(&eal, &environment.args, config).map_err(Failure::runtime)?;
                    let (ports, mut queues) = open()?;
                    take_over::set_aside(&mut queues);
                    debug!("take-over: the ports are open after {:?}", taking.dark());
                    Ok((ports, queues))
                })?
            }
        };
        let has_telemetry = environment.has_telemetry();
        Ok(Dataplane { queues, ports, secret, pool, eal, has_telemetry, cores: cores.clone(), claims })
    }

    /// From the first frame to the last.
    fn run(
        self,
        (beginning, mut keeping, mut taking): (StartState, StateKeeper, Option<Taking>),
        policy_file: Option<(&Path, Stamp)>,
        doors: Listeners,
        runtime: Runtime,
        signals: Signals,
        lines: &LogWriter,
    ) -> Result<ExitCode, Failure> {
        let doors = Arc::new(doors);
        let Dataplane { queues, ports, secret, pool, eal, has_telemetry, cores, claims } = self;
        let start = keeping.start();
        let file_waits = beginning.file_waits;
        let (parts, jobs, told, hears) =
            assemble::assemble(beginning, queues, &cores, &ports, secret, (start, &mut keeping))?;
        let governing_file = policy_file.map(|(path, _)| path.display().to_string());
        let live = Live::new(Parts { governing_file, ..parts });
        live.trace().attach(told, live.config().trace.history);
        let is_kept = keeping.is_on();
        let mut kept = None;
        let mut is_ours = taking.as_mut().map(|taking| || taking.is_ours());
        let is_ours = is_ours.as_mut().map(|ask| ask as &mut dyn FnMut() -> bool);
        let settle = || kept = keeping.settle(&live, is_ours);
        let started = Workers::start(jobs, &eal, start, settle);
        if started.is_err() && taking.is_some() {
            return Err(Failure::runtime("--take-over: the running process goes on"));
        }
        let mut workers = started.map_err(Failure::runtime)?;
        if let Some(taking) = taking.take() {
            taking.supervisor().inherit();
            taking.wait_for_the_end();
            doors.own();
            kept.iter().for_each(KeptIn::remove_others);
        }
        let means = MonitorContext {
            eal: eal.clone(),
            pool: pool.clone(),
            exchange: workers.exchange(),
            board: live.board().clone(),
        };
        let keeper = PortMonitor::start(&ports, means.clone()).map_err(Failure::runtime)?;
        let flow_logs = FlowLogs::start(&live, hears, start).map_err(Failure::runtime)?;
        let (page, again) = {
            let _within = runtime.enter();
            (stats::start(&live), begin_tasks(&live, policy_file, file_waits))
        };
        if has_telemetry {
            telemetry::start(&eal, &live, page.is_some());
        }
        sandbox::lock_memory(&live.config());
        memory::wait_from_now_on();
        ready(&live, cores.workers.len());

        let looked_after = HealthWatch::new(&live, lines);
        let config = live.config();
        let mut grip =
            Grip { config: &config, live: &live, ports: &ports, means, keeper: Some(keeper), claims, kept };
        let ends = runtime.block_on(supervise(
            &mut grip,
            &doors,
            &mut workers,
            signals,
            again.as_deref(),
            looked_after,
        ));
        let is_relieved = matches!(ends, Ok(Ends::Relieved(_)));
        if is_relieved {
            doors.leave();
        } else {
            tell_supervisor("STOPPING=1");
        }
        let Grip { keeper, claims: _held, .. } = grip;
        keeper.into_iter().for_each(PortMonitor::stop);
        let stuck = workers.stop();
        flow_logs.stop();
        page.iter().for_each(|page| stats::end(&live, page));
        let meaning = match is_kept {
            _ if is_relieved => RELIEVED,
            true => KEEPS,
            false => FORGETS,
        };
        print_patiently(format!("{}portcullis: stopped; {meaning}\n", table::counters(&live.counters())));
        runtime.shutdown_background();
        drop(live);
        if !stuck.is_empty() {
            // Their ports are being polled still: nothing may be taken from under them.
            error!("workers {stuck:?} hang in their ports' drivers and were left behind");
            std::process::exit(1);
        }
        let keeps_buffers = ports.keep_buffers();
        ports.close();
        match pool.in_use() {
            0 => {}
            kept if keeps_buffers => debug!("{kept} packet buffers stay with a driver that gives none back"),
            leaked => error!("{leaked} packet buffers leaked"),
        }
        if let Ends::Relieved(line) = ends? {
            // It closes with the process, and with whatever that holds still.
            std::mem::forget(line);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where clients come in, and who wants to take over.
struct Listeners {
    socket: Socket,
    tcp: Option<Tcp>,
    giver: Option<Giver>,
}

/// Why a run ends.
enum Ends {
    /// A signal says so.
    Told,
    /// Another process forwards, and waits for the end of this one: for the end of the line.
    Relieved(Line),
}

/// Tokens are others in the file than those in force.
const TOKENS: (&str, &str) = ("tokens", "refused");

impl Listeners {
    /// By listeners of the process that is to be relieved, if there is one.
    fn open(config: &Config, mut taking: Option<&mut Taking>) -> Result<Listeners, Failure> {
        let api = &config.api;
        let inherited = taking.as_deref_mut().and_then(|taking| taking.socket(&api.socket));
        let socket = inherited.map_or_else(|| Socket::bind(&api.socket, api.socket_group.as_deref()), Ok);
        let socket = socket.map_err(Failure::runtime)?;
        let tcp = Tcp::bind_or_inherit(api, taking.and_then(Taking::tcp)).map_err(|error| match error {
            TcpError::Input(message) => Failure::input(message),
            TcpError::Address(message) => Failure::runtime(message),
        })?;
        Ok(Listeners { socket, tcp, giver: None })
    }

    /// Where connections are kept, another process can take over.
    fn open_for_relief(&mut self, keeping: &StateKeeper, taking: Option<&mut Taking>) -> Result<(), Failure> {
        let Some(place) = keeping.place() else { return Ok(()) };
        let own = taking.and_then(|taking| taking.own(self.socket.path()));
        let giver = Giver::new(own, &self.socket, self.tcp.as_ref(), place).map_err(Failure::runtime)?;
        self.giver = Some(giver);
        Ok(())
    }

    /// The process that lent them is gone.
    fn own(&self) {
        self.socket.own();
        self.giver.iter().for_each(Giver::own);
    }

    /// They are another process's from now on.
    fn leave(&self) {
        self.socket.leave();
        self.giver.iter().for_each(Giver::leave);
    }

    /// On SIGHUP. A file that is refused leaves the tokens as they were.
    fn read_tokens_again(&self, live: &Live) {
        let Some(tokens) = self.tcp.as_ref().and_then(Tcp::tokens) else { return };
        match tokens.read_again() {
            Ok(()) => live.board().clear(TOKENS),
            Err(error) => live.board().raise(
                TOKENS,
                Severity::Degraded,
                format!("{error}; the tokens in force are older ones"),
                "mend the file and send SIGHUP",
            ),
        }
    }

    /// Serves clients at all of them; ends when one of them fails.
    async fn serve(&self, live: &Live) -> std::io::Result<()> {
        match &self.tcp {
            None => api::serve(&self.socket, live.clone()).await,
            Some(tcp) => tokio::select! {
                ended = api::serve(&self.socket, live.clone()) => ended,
                ended = tcp.serve(live.clone()) => ended,
            },
        }
    }

    /// Hears who wants to take over.
    async fn hear(&self, live: &Live, heard: &mpsc::Sender<Heard>) {
        match &self.giver {
            Some(giver) => giver.serve(live, heard).await,
            None => std::future::pending().await,
        }
    }
}

/// Frames move: says so.
fn ready(live: &Live, workers: usize) {
    let plural = if workers == 1 { "" } else { "s" };
    print_patiently(format!(
        "portcullis: ready, {workers} worker{plural}, generation {}\n",
        live.generation()
    ));
    tell_supervisor("READY=1");
}

/// Starts what goes on beside the clients. The policy file is watched from here on: a change of it after "ready" is never missed.
/// Answers with what makes its task read it again, where it governs. Within a runtime.
fn begin_tasks(live: &Live, file: Option<(&Path, Stamp)>, file_waits: bool) -> Option<Arc<Notify>> {
    let traced = live.clone();
    health::supervised(live, "reading of what workers tell of packets", move || traced.clone().serve_trace());
    if live.awaits_confirmation() {
        live.watch_confirmation();
    }
    let (path, stamp) = file?;
    let again = Arc::new(Notify::new());
    if live.awaits_confirmation() || file_waits {
        // What the file says counts after that, or is refused into health.
        again.notify_one();
    }
    let watch = Watch::new(path, stamp);
    let (of_file, kept, path) = (live.clone(), again.clone(), path.to_owned());
    tokio::spawn(reload::watch(path.clone(), watch, stamp, again.clone(), live.board().clone()));
    health::supervised(live, "reload of the policy file", move || {
        reload::serve(of_file.clone(), path.clone(), kept.clone())
    });
    Some(again)
}

/// Serves clients until a signal, a failure or another process ends it.
async fn supervise(
    grip: &mut Grip<'_>,
    doors: &Arc<Listeners>,
    workers: &mut Workers,
    mut signals: Signals,
    again: Option<&Notify>,
    mut watchman: HealthWatch,
) -> Result<Ends, Failure> {
    let live = grip.live;
    let (hears, mut heard) = mpsc::channel(1);
    // By tasks of their own: they go on while this one waits for whoever takes over.
    let mut tasks = JoinSet::new();
    let (of_clients, of_relief) = ((doors.clone(), live.clone()), (doors.clone(), live.clone()));
    tasks.spawn(async move { of_clients.0.serve(&of_clients.1).await });
    tasks.spawn(async move {
        of_relief.0.hear(&of_relief.1, &hears).await;
        Err(std::io::Error::other("nobody hears who wants to take over"))
    });
    let mut tick = interval(WATCH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ends = signals.wait() => {
                if ends {
                    return Ok(Ends::Told);
                }
                tell_reloading();
                doors.read_tokens_again(live);
                // The file is applied, or refused into health, by a task of its own.
                again.iter().for_each(|again| again.notify_one());
                tell_supervisor("READY=1");
            }
            Some(failed) = tasks.join_next() => {
                let reason = match failed {
                    Ok(ended) => ended.err().map_or_else(|| "it has ended".to_owned(), |error| error.to_string()),
                    Err(error) => error.to_string(),
                };
                return Err(Failure::runtime(format!("the API failed: {reason}")));
            }
            Some(heard) = heard.recv() => match heard.map(|ask| ask.grant(grip, workers)) {
                Ok(Fate::Relieved(line)) => return Ok(Ends::Relieved(line)),
                Ok(Fate::GoesOn) => {}
                Err(()) => grip.kept.iter().for_each(KeptIn::remove_others),
            },
            _ = tick.tick() => {
                if !workers.watch() {
                    return Err(Failure::runtime("a worker has ended by itself"));
                }
                watchman.look(live, workers);
                live.reclaim();
            }
        }
    }
}
