//! The running process: it hears whoever wants to take over, stands still for it, and goes on if that fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::api::{Socket, Tcp};
use control::config::Config;
use control::live::{Live, Standstill};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::super::persist::KeptIn;
use super::super::ports::claims::{self, Claims};
use super::super::ports::monitor::{MonitorContext, PortMonitor};
use super::super::ports::{Lent, Ports};
use super::super::service::{Supervisor, tell_supervisor};
use super::super::workers::Workers;
use super::line::words;
use super::{DARK, Line, PREPARES, PROTOCOL, Prepare, Word, beside};

/// A pause after a client could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Where whoever wants to take over comes in.
pub struct Giver {
    socket: Socket,
    folder: PathBuf,
    /// In the order of [`Word::Prepare`].
    descriptors: Arc<Vec<OwnedFd>>,
    has_tcp: bool,
}

/// Somebody who is prepared to forward, or has failed before.
pub type Heard = Result<Ask, ()>;

/// Somebody who is prepared to forward.
pub struct Ask {
    line: Line,
    still: Standstill,
    process: u32,
    version: String,
    /// When it is dropped, the next one is heard.
    _over: oneshot::Sender<()>,
}

/// What became of a take-over.
pub enum Fate {
    /// Another process is in charge. It waits for the end of this one, which is the end of the line.
    Relieved(Line),
    /// This one goes on.
    GoesOn,
}

/// What this process holds, and may have to take again.
pub struct Grip<'g> {
    /// Its configuration.
    pub config: &'g Config,
    /// The policy in force.
    pub live: &'g Live,
    /// Its ports.
    pub ports: &'g Ports,
    /// To look after them.
    pub means: MonitorContext,
    /// Who does.
    pub keeper: Option<PortMonitor>,
    /// Interfaces that are had by one process at a time.
    pub claims: Option<Claims>,
    /// Where its connections lie.
    pub kept: Option<KeptIn>,
}

impl Giver {
    /// At this socket, or at one beside the API's. `place` is where connections are kept, with the lock on it.
    pub fn new(
        own: Option<Socket>,
        api: &Socket,
        tcp: Option<&Tcp>,
        (folder, lock): (&Path, BorrowedFd<'_>),
    ) -> Result<Giver, String> {
        let socket = own.map_or_else(|| Socket::bind(&beside(api.path()), None), Ok);
        let socket = socket.map_err(|error| error.to_string())?;
        let mut all = vec![lock, api.as_fd(), socket.as_fd()];
        all.extend(tcp.map(Tcp::descriptor));
        let owned = all.into_iter().map(|one| one.try_clone_to_owned()).collect::<Result<_, _>>();
        let descriptors = Arc::new(owned.map_err(|error| error.to_string())?);
        Ok(Giver { socket, folder: folder.to_owned(), descriptors, has_tcp: tcp.is_some() })
    }

    /// The socket is this process's alone from now on.
    pub fn own(&self) {
        self.socket.own();
    }

    /// Another process has the socket from now on.
    pub fn leave(&self) {
        self.socket.leave();
    }

    /// Hears one after the other; those who are prepared come by `asks`.
    pub async fn serve(&self, live: &Live, asks: &mpsc::Sender<Heard>) {
        let Ok(listener) = self.socket.listener() else { return };
        loop {
            let accepted = listener.accept().await.and_then(|(stream, _)| stream.into_std());
            // A thread of its own waits for what comes by it.
            let accepted = accepted.and_then(|stream| stream.set_nonblocking(false).map(|()| stream));
            let Ok(stream) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (over, is_over) = oneshot::channel();
            let (live, descriptors, runtime) = (live.clone(), self.descriptors.clone(), Handle::current());
            let prepare = self.prepare();
            let talk = move || hear(Line::new(stream), prepare, &descriptors, &runtime, &live, over);
            let heard = tokio::task::spawn_blocking(talk).await;
            let heard = heard.unwrap_or_else(|error| Err(error.to_string()));
            if let Err(reason) = &heard {
                info!("no take-over: {reason}");
            }
            let has_asked = heard.is_ok();
            let _ = asks.send(heard.map_err(drop)).await;
            if has_asked {
                let _ = is_over.await;
            }
        }
    }

    fn prepare(&self) -> Prepare {
        let Supervisor { socket, watchdog } = Supervisor::of_process();
        Prepare {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            folder: self.folder.clone(),
            tcp: self.has_tcp,
            supervisor: socket,
            watchdog,
        }
    }
}

/// Up to the moment when the other is prepared. On a thread that may wait.
fn hear(
    mut line: Line,
    prepare: Prepare,
    descriptors: &[OwnedFd],
    runtime: &Handle,
    live: &Live,
    over: oneshot::Sender<()>,
) -> Result<Ask, String> {
    let (process, user) = line.peer().map_err(|error| error.to_string())?;
    let refuse = |line: &Line, reason: String| {
        let _ = line.say(&Word::No { reason: reason.clone() }, &[]);
        Err(reason)
    };
    let hello = line.hear(DARK).map_err(|error| words(&error))?;
    let Word::Hello { protocol, version } = hello else {
        return refuse(&line, "the first word is to be \"hello\"".to_owned());
    };
    if user != 0 && user != rustix::process::geteuid().as_raw() {
        return refuse(
            &line,
            format!("user {user} may not take over: allowed are root and this process's user"),
        );
    }
    if protocol != PROTOCOL {
        return refuse(
            &line,
            format!("version {version} speaks protocol {protocol}; spoken here: {PROTOCOL}"),
        );
    }
    info!("process {process} (version {version}) prepares to take over");
    let still = match runtime.block_on(live.stand_still()) {
        Ok(still) => still,
        Err(reason) => return refuse(&line, reason.to_string()),
    };
    let lent: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    line.say(&Word::Prepare(prepare), &lent).map_err(|error| words(&error))?;
    match line.hear(PREPARES) {
        Ok(Word::LetGo) => Ok(Ask { line, still, process, version, _over: over }),
        Ok(Word::No { reason }) => Err(format!("process {process}: {reason}")),
        Ok(word) => refuse(&line, format!("{word:?} is out of turn")),
        Err(error) => Err(format!("process {process}: {}", words(&error))),
    }
}

impl Ask {
    /// Stands still, lets the other go ahead, and goes on if it does not.
    pub fn grant(self, grip: &mut Grip<'_>, workers: &Workers) -> Fate {
        let Ask { mut line, still, process, version, _over } = self;
        // Nobody makes a port anew meanwhile.
        grip.keeper.take().into_iter().for_each(PortMonitor::stop);
        let mut lent = Lent::default();
        let agreed = grip.ports.lend(&grip.means, &mut lent).and_then(|()| {
            grip.claims = None;
            if workers.pause() { agree(&mut line) } else { Err("a worker does not stand still".to_owned()) }
        });
        let Err(reason) = agreed else {
            still.relieved();
            tell_supervisor(&format!("MAINPID={process}"));
            info!("process {process} (version {version}) has taken over");
            return Fate::Relieved(line);
        };
        let _ = line.say(&Word::No { reason: reason.clone() }, &[]);
        // It ends by that word; what it holds is free when its end of the line is.
        let _ = line.hear(DARK);
        grip.take_again(lent, workers);
        drop(still);
        warn!("process {process} (version {version}) has not taken over: {reason}; this one goes on");
        Fate::GoesOn
    }
}

/// From here until the other's answer nobody forwards.
fn agree(line: &mut Line) -> Result<(), String> {
    let told = |error: std::io::Error| words(&error);
    line.say(&Word::Gone, &[]).map_err(told)?;
    match line.hear(DARK).map_err(told)? {
        // From here on there is no way back: the other forwards as soon as it reads this.
        Word::Ready => line.say(&Word::Yours, &[]).map_err(told),
        Word::No { reason } => Err(reason),
        word => Err(format!("{word:?} is out of turn")),
    }
}

impl Grip<'_> {
    /// All of it as before.
    fn take_again(&mut self, lent: Lent, workers: &Workers) {
        match claims::claim(self.config) {
            Ok(claims) => self.claims = Some(claims),
            Err(reason) => warn!("{reason}"),
        }
        workers.resume();
        self.ports.take_back(lent, &self.means);
        // The other may have named tables of its own there.
        self.live.keep_again();
        if let Some(kept) = &self.kept {
            kept.remove_others();
        }
        match PortMonitor::start(self.ports, self.means.clone()) {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(error) => warn!("nobody looks after the ports: {error}"),
        }
    }
}
