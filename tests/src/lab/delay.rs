//! Way between the hosts and the appliance's place: frames take their time, as no kernel of ours
//! need know how to hold them up.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{At, INSIDE, Lab, OUTSIDE, Wire};

/// How often who carries nothing looks whether it shall stop.
const BEAT: Duration = Duration::from_millis(50);

/// The way of both wires; its threads end with it. To be dropped before its lab, whose namespaces
/// it holds.
#[derive(Debug)]
pub struct Delay {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Lab {
    /// Lets every frame of a lab, which has no appliance yet, take so long between a host and the
    /// appliance's place.
    pub fn delayed(&self, delay: Duration) -> io::Result<Delay> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for port in [INSIDE, OUTSIDE] {
            let (far, near) = (format!("{port}-far"), format!("{port}-near"));
            self.lengthen(port, &far, &near)?;
            let ends =
                [Arc::new(self.wire(At::Appliance, &far)?), Arc::new(self.wire(At::Appliance, &near)?)];
            for (from, to) in [(0, 1), (1, 0)] {
                let (from, to, stop) = (ends[from].clone(), ends[to].clone(), stop.clone());
                threads.push(thread::spawn(move || carry(&from, &to, delay, &stop)));
            }
        }
        Ok(Delay { stop, threads })
    }

    /// Joins the appliance's two interfaces by a bridge, as [`Lab::bridged`] does.
    pub fn bridge(&self) -> io::Result<()> {
        self.at_the_appliance(&format!(
            "ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
            echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6
            ip link set {INSIDE} master br0
            ip link set {OUTSIDE} master br0
            ip link set br0 up"
        ))
    }

    /// Puts another wire between what the host's wire ends in, called `far` from now on, and an
    /// interface of the old name.
    fn lengthen(&self, port: &str, far: &str, near: &str) -> io::Result<()> {
        self.at_the_appliance(&format!(
            "ip link set {port} down
            ip link set {port} name {far}
            ip link add {port} type veth peer name {near}
            for dev in {port} {near}; do
                echo 1 >/proc/sys/net/ipv6/conf/$dev/disable_ipv6
                ethtool -K $dev rx off tx off sg off tso off gso off gro off >/dev/null
                ip link set $dev mtu 1500 promisc on
            done
            ip link set {far} up
            ip link set {port} up
            ip link set {near} up"
        ))
    }

    fn at_the_appliance(&self, commands: &str) -> io::Result<()> {
        let finished = self.run(At::Appliance, ["sh", "-ec", commands], Duration::from_secs(10))?;
        finished.success().map(drop).map_err(io::Error::other)
    }
}

/// Takes frames from one wire to the other, each so long after it came.
fn carry(from: &Wire, to: &Wire, delay: Duration, stop: &AtomicBool) {
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        while under_way.front().is_some_and(|(due, _)| *due <= now) {
            // A wire that was cut carries nothing.
            let _ = under_way.pop_front().map(|(_, frame)| to.send(&frame));
        }
        let until = under_way.front().map_or(now + BEAT, |(due, _)| *due);
        if let Ok(Some(frame)) = from.next(until) {
            under_way.push_back((Instant::now() + delay, frame));
        }
    }
}
