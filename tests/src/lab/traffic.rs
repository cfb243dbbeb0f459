//! What happens in the lab: pings, bulk transfers, sessions, captures.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{At, Finished, Lab, Process};
use crate::{
    frame::Endpoint,
    pcap::{self, Record},
};

/// Which frames of an interface are captured, as the namespace that it is in sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Those that arrive: at the appliance, what a host sent.
    In,
    /// Those that leave.
    Out,
    /// Both.
    Both,
}

/// A tcpdump that writes a pcap file (nanoseconds).
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    path: PathBuf,
}

impl Capture {
    /// Ends it and reads what it captured.
    pub fn finish(self) -> io::Result<Vec<Record>> {
        self.tcpdump.interrupt(Duration::from_secs(10))?.success()?;
        Ok(pcap::read(&self.path)?.1)
    }
}

/// A server that sends back what it gets, over TCP and UDP, IPv4 and IPv6; its threads end with it.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// How often an idle server looks whether it shall stop.
const BEAT: Duration = Duration::from_millis(20);

/// A connected socket of either kind, seen as something that answers or does not.
pub trait Probe {
    /// Sends these bytes and waits for the same ones: `Ok(false)` if they did not come in time or
    /// the peer is gone.
    fn echo(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<bool>;
}

impl Probe for TcpStream {
    fn echo(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<bool> {
        self.set_read_timeout(Some(timeout))?;
        let mut back = vec![0; bytes.len()];
        answered(self.write_all(bytes).and_then(|()| self.read_exact(&mut back)).map(|()| back == bytes))
    }
}

impl Probe for UdpSocket {
    fn echo(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<bool> {
        self.set_read_timeout(Some(timeout))?;
        let mut back = vec![0; bytes.len() + 1];
        answered(self.send(bytes).and_then(|_| self.recv(&mut back)).map(|length| back[..length] == *bytes))
    }
}

/// A network that says no is an answer to the test; anything else is an error of the test.
fn answered(result: io::Result<bool>) -> io::Result<bool> {
    use io::ErrorKind as Kind;
    match result {
        Err(error)
            if matches!(
                error.kind(),
                Kind::WouldBlock
                    | Kind::TimedOut
                    | Kind::ConnectionReset
                    | Kind::ConnectionRefused
                    | Kind::ConnectionAborted
                    | Kind::BrokenPipe
                    | Kind::UnexpectedEof
                    | Kind::HostUnreachable
                    | Kind::NetworkUnreachable
            ) =>
        {
            Ok(false)
        }
        other => other,
    }
}

impl Lab {
    /// Pings `count` times, ten a second; each answer may take a second. The status is 0 if at
    /// least one came.
    pub fn ping(&self, from: At, to: &str, count: u32) -> io::Result<Finished> {
        let count = count.to_string();
        let command = ["ping", "-n", "-c", &count, "-i", "0.1", "-W", "1", to];
        self.run(from, command, Duration::from_secs(60))
    }

    /// A server for bulk transfers, ready for a client. It serves one after the other.
    pub fn iperf3_server(&self, at: At, port: u16) -> io::Result<Process> {
        let server = self.spawn(at, ["iperf3", "-s", "--forceflush", "-p", &port.to_string()])?;
        server.wait_for("listening", Duration::from_secs(10))?;
        Ok(server)
    }

    /// A bulk transfer to an [`iperf3_server`](Self::iperf3_server); `options` such as `-t 2`, `-n
    /// 20M`, `-R` (download), `-u`. Give it a timeout well above what it should take: `finish`.
    pub fn iperf3(&self, from: At, to: &str, port: u16, options: &[&str]) -> io::Result<Process> {
        let port = port.to_string();
        let command = ["iperf3", "-c", to, "-p", &port, "--forceflush", "--connect-timeout", "3000"];
        self.spawn(from, command.iter().chain(options))
    }

    /// Echoes on this port until it is dropped.
    pub fn echo_server(&self, at: At, port: u16) -> io::Result<EchoServer> {
        let (tcp, udp) = self.within(at, || -> io::Result<_> {
            // Linux serves IPv4 on an IPv6 socket too.
            let any = (Ipv6Addr::UNSPECIFIED, port);
            Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?))
        })??;
        tcp.set_nonblocking(true)?;
        udp.set_read_timeout(Some(BEAT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp_stop, udp_stop) = (stop.clone(), stop.clone());
        let threads = vec![
            thread::spawn(move || echo_tcp(&tcp, &tcp_stop)),
            thread::spawn(move || echo_udp(&udp, &udp_stop)),
        ];
        Ok(EchoServer { stop, threads })
    }

    /// A TCP connection from a place.
    pub fn connect(&self, from: At, to: impl Into<Endpoint>, timeout: Duration) -> io::Result<TcpStream> {
        let to = to.into().0;
        let stream = self.within(from, || TcpStream::connect_timeout(&to, timeout))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A UDP socket at a place, on this port (0 for any), connected to its peer.
    pub fn udp(&self, from: At, port: u16, to: impl Into<Endpoint>) -> io::Result<UdpSocket> {
        let to: SocketAddr = to.into().0;
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let socket = self.within(from, || UdpSocket::bind((any, port)))??;
        socket.connect(to)?;
        Ok(socket)
    }

    /// Captures an interface into a file, from now on. `filter` is tcpdump's, and may be empty.
    pub fn capture(
        &self,
        at: At,
        interface: &str,
        direction: Direction,
        path: impl AsRef<Path>,
        filter: &str,
    ) -> io::Result<Capture> {
        let path = path.as_ref().to_path_buf();
        let direction = match direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Both => "inout",
        };
        let mut command = self.command(at, "tcpdump");
        // Immediate mode: otherwise the kernel keeps the last block for up to a second, and it is
        // lost at the end.
        command.args(["-i", interface, "-Q", direction, "--immediate-mode", "-U", "-n", "-Z", "root"]);
        command.args(["-B", "16384", "--time-stamp-precision=nano", "-w"]).arg(&path).arg(filter);
        let tcpdump = Process::start(command)?;
        tcpdump.wait_for("listening on", Duration::from_secs(10))?;
        Ok(Capture { tcpdump, path })
    }
}

fn echo_tcp(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((connection, _)) => {
                let stop = stop.clone();
                thread::spawn(move || {
                    let _ = echo_connection(connection, &stop);
                });
            }
            Err(_) => thread::sleep(BEAT),
        }
    }
}

fn echo_connection(mut connection: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(BEAT))?;
    connection.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut data = [0; 65536];
    while !stop.load(Ordering::Relaxed) {
        match connection.read(&mut data) {
            Ok(0) => break,
            Ok(length) => connection.write_all(&data[..length])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn echo_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut data = [0; 65536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut data) {
            let _ = socket.send_to(&data[..length], peer);
        }
    }
}
