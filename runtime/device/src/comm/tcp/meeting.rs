//! How ranks that know one address find each other: rank 0 listens there, hears from each where it listens itself, and tells
//! all of them. Then each two are connected.
//!
//! The port that a launcher names may be taken: `torchrun` keeps a store of its own there. So rank 0 takes the first free one from
//! there on, and says who it is before others say anything to it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::{CommError, Environment, Place};

/// What rank 0 says first.
const GREETING: [u8; 16] = *b"linc ranks meet\n";
/// Bytes of the number of a run.
const RUN: usize = 8;
/// With the number of the run behind it.
const GREETING_BYTES: usize = GREETING.len() + RUN;
/// Bytes of what a rank says of itself.
const HELLO: usize = 6;
/// Ports from the launcher's on, of which rank 0 takes one.
const PORTS: usize = 16;
/// Whoever speaks and is no rank has so long.
const STRANGER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// The address at which ranks meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meeting {
    host: String,
    ports: Vec<u16>,
    /// Sets ranks of this run apart from those of others.
    run: u64,
}

impl Meeting {
    /// As an environment says, in torchrun's words.
    ///
    /// # Errors
    /// [`CommError::Meeting`]: no port, or what is none.
    pub(super) fn of(place: &Place, environment: &Environment<'_>) -> Result<Meeting, CommError> {
        let host = environment("MASTER_ADDR").unwrap_or_default();
        let port = environment("MASTER_PORT");
        let Some(first) = port.as_ref().and_then(|port| port.trim().parse::<u16>().ok()).filter(|p| *p > 0)
        else {
            let port = port.unwrap_or_else(|| "not set".into());
            return Err(CommError::Meeting(format!(
                "MASTER_PORT is {port}; expected a port from 1 to 65535, at which the {} ranks meet",
                place.world
            )));
        };
        let is_taken = environment("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
        // Below it, where there are not enough above.
        let above = (first..=u16::MAX).skip(usize::from(is_taken));
        let ports = above.chain((1..first).rev()).take(PORTS).collect();
        let words = ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"];
        let words = words.map(|name| environment(name).unwrap_or_default());
        let run = format!("{first} {} {}", place.world, words.join(" "));
        Ok(Meeting { host, ports, run: fnv(run.as_bytes()) })
    }

    /// Connections to all others by their ranks, and none to this one.
    ///
    /// # Errors
    /// [`CommError::Missing`] where ranks do not come within `timeout`, [`CommError::Meeting`] where rank 0 cannot listen or be
    /// reached.
    pub(super) fn connect(
        &self,
        place: &Place,
        timeout: Duration,
    ) -> Result<Vec<Option<TcpStream>>, CommError> {
        let attempt = Attempt { meeting: self, place, timeout, begun: Instant::now() };
        if place.rank == 0 { attempt.invite() } else { attempt.join() }
    }

    /// Whether all ranks are on this machine, by the name of the address.
    fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Listens to this machine alone, where all ranks are on it.
    fn listen(&self, like: IpAddr, port: u16) -> io::Result<TcpListener> {
        let ip: IpAddr = match (self.is_local(), like) {
            (true, like) => like,
            (false, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (false, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        TcpListener::bind((ip, port))
    }

    fn addresses(&self, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), port).to_socket_addrs()?.collect())
    }

    /// The ports, for people.
    fn port_words(&self) -> String {
        let (first, last) = (self.ports.iter().min(), self.ports.iter().max());
        format!("ports {} to {}", first.copied().unwrap_or(0), last.copied().unwrap_or(0))
    }

    fn greeting(&self) -> [u8; GREETING_BYTES] {
        let mut greeting = [0; GREETING_BYTES];
        greeting[..GREETING.len()].copy_from_slice(&GREETING);
        greeting[GREETING.len()..].copy_from_slice(&self.run.to_le_bytes());
        greeting
    }
}

/// One rank's way to the others.
struct Attempt<'a> {
    meeting: &'a Meeting,
    place: &'a Place,
    timeout: Duration,
    begun: Instant,
}

/// What a rank says of itself: its number, and the port at which it listens.
type Hello = (usize, u16);

impl Attempt<'_> {
    fn is_late(&self) -> bool {
        self.begun.elapsed() > self.timeout
    }

    fn missing(&self, connections: &[Option<TcpStream>]) -> CommError {
        let rank = self.place.rank;
        let missing = (0..connections.len()).filter(|other| *other != rank && connections[*other].is_none());
        CommError::Missing {
            rank,
            label: "the start".into(),
            group: format!("all {} ranks", self.place.world),
            missing: missing.filter(|other| rank == 0 || *other > rank).collect(),
            timeout: self.timeout,
            option: "the timeout",
        }
    }

    fn nobody(&self) -> Vec<Option<TcpStream>> {
        (0..self.place.world).map(|_| None).collect()
    }

    /// Rank 0: waits for all, and tells them of each other.
    fn invite(&self) -> Result<Vec<Option<TcpStream>>, CommError> {
        let meeting = self.meeting;
        let failed = |error: &io::Error| {
            CommError::Meeting(format!(
                "rank 0 cannot listen at {} on any of the {}: {error}",
                meeting.host,
                meeting.port_words()
            ))
        };
        let mut refused = io::Error::from(ErrorKind::AddrNotAvailable);
        let listener = meeting.ports.iter().find_map(|port| {
            let own = meeting.addresses(*port).and_then(|all| {
                let first = all.first().ok_or(ErrorKind::AddrNotAvailable)?;
                meeting.listen(first.ip(), *port)
            });
            own.map_err(|error| refused = error).ok()
        });
        let listener = listener.ok_or_else(|| failed(&refused))?;
        let mut connections = self.nobody();
        let mut ports = vec![0; self.place.world];
        let greeting = meeting.greeting();
        let who = |hello: &[u8; HELLO]| Some(read_hello(hello).0);
        self.accept(&listener, &mut connections, 1, &greeting, who, |rank, hello| {
            ports[rank] = read_hello(hello).1;
        })?;
        let lost = |error: io::Error| CommError::Meeting(format!("a rank was lost at the start: {error}"));
        let mut table = String::new();
        for (stream, port) in connections.iter().zip(&ports).skip(1) {
            let ip =
                stream.as_ref().map_or(Ok(Ipv4Addr::LOCALHOST.into()), |s| s.peer_addr().map(|a| a.ip()));
            table.push_str(&format!("{}\n", SocketAddr::new(ip.map_err(lost)?, *port)));
        }
        for stream in connections.iter_mut().flatten() {
            let text = [&(table.len() as u32).to_le_bytes(), table.as_bytes()].concat();
            stream.write_all(&text).map_err(lost)?;
        }
        Ok(connections)
    }

    /// Other ranks: go to rank 0, then to those before this one, and wait for those behind it.
    fn join(&self) -> Result<Vec<Option<TcpStream>>, CommError> {
        let unreachable = |error: io::Error| {
            CommError::Meeting(format!(
                "rank {} cannot reach rank 0 at {}, {}, {}: {error}",
                self.place.rank,
                self.meeting.host,
                self.meeting.port_words(),
                if self.is_late() {
                    format!("within {} seconds", self.timeout.as_secs_f64())
                } else {
                    "which is gone".into()
                }
            ))
        };
        let mut first = self.reach_first().map_err(unreachable)?;
        let own = first.local_addr().and_then(|own| self.meeting.listen(own.ip(), 0));
        let own = own.and_then(|own| Ok((own.local_addr()?.port(), own)));
        let (port, own) = own.map_err(|error| {
            CommError::Meeting(format!("rank {} cannot listen to the others: {error}", self.place.rank))
        })?;
        let address = first.peer_addr().map_err(unreachable)?;
        let table = loop {
            match self.introduce(&mut first, port) {
                Ok(table) => break table,
                Err(error) if self.is_late() => return Err(unreachable(error)),
                // Rank 0 sends away whom something keeps from speaking in time. It listens until all are there.
                Err(_) => first = self.reach_again(address).map_err(unreachable)?,
            }
        };
        let host = address.ip();
        let mut connections = self.nobody();
        for (other, address) in (1..self.place.rank).zip(&table) {
            // Whom rank 0 sees on its own machine is where rank 0 is.
            let ip = if address.ip().is_loopback() { host } else { address.ip() };
            let reached = self.reach(SocketAddr::new(ip, address.port()));
            connections[other] = Some(reached.map_err(|error| {
                CommError::Meeting(format!(
                    "rank {} cannot reach rank {other} at {address}: {error}",
                    self.place.rank
                ))
            })?);
        }
        connections[0] = Some(first);
        let who = |said: &[u8; RUN + HELLO]| {
            let (run, hello) = said.split_first_chunk::<RUN>()?;
            let (rank, _) = read_hello(hello.try_into().ok()?);
            (*run == self.meeting.run.to_le_bytes()).then_some(rank)
        };
        self.accept(&own, &mut connections, self.place.rank + 1, &[], who, |_, _| ())?;
        Ok(connections)
    }

    /// Takes connections until those of all ranks from `from` on are there, and greets each. `who` knows a rank by the bytes that it
    /// says; who is none of them, or is there already, is sent away. `taken` hears what a rank said whose connection is kept.
    /// Nobody waits for another who does not speak.
    fn accept<const BYTES: usize>(
        &self,
        listener: &TcpListener,
        connections: &mut [Option<TcpStream>],
        from: usize,
        greeting: &[u8],
        who: impl Fn(&[u8; BYTES]) -> Option<usize>,
        mut taken: impl FnMut(usize, &[u8; BYTES]),
    ) -> Result<(), CommError> {
        let failed = |error: io::Error| CommError::Meeting(format!("rank {}: {error}", self.place.rank));
        listener.set_nonblocking(true).map_err(failed)?;
        let mut callers: Vec<(TcpStream, Instant)> = vec![];
        let from = from.min(connections.len());
        loop {
            if connections[from..].iter().all(Option::is_some) {
                connections[from..]
                    .iter_mut()
                    .filter(|place| is_closed(place.as_ref()))
                    .for_each(|place| *place = None);
                if connections[from..].iter().all(Option::is_some) {
                    return Ok(());
                }
            }
            if self.is_late() {
                return Err(self.missing(connections));
            }
            while let Ok((mut stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).and_then(|()| stream.write_all(greeting)).is_ok() {
                    callers.push((stream, Instant::now()));
                }
            }
            for (mut stream, since) in std::mem::take(&mut callers) {
                let mut said = [0; BYTES];
                match stream.peek(&mut said) {
                    Ok(bytes) if bytes == BYTES => {
                        let is_read =
                            stream.read_exact(&mut said).is_ok() && stream.set_nonblocking(false).is_ok();
                        let Some(rank) = who(&said).filter(|rank| is_read && *rank >= from) else { continue };
                        // A rank that was cut off comes again.
                        if let Some(place) =
                            connections.get_mut(rank).filter(|place| is_closed(place.as_ref()))
                        {
                            *place = Some(stream);
                            taken(rank, &said);
                        }
                    }
                    // Closed.
                    Ok(0) => {}
                    Err(error) if error.kind() != ErrorKind::WouldBlock => {}
                    _ if since.elapsed() > STRANGER => {}
                    _ => callers.push((stream, since)),
                }
            }
            sleep(PAUSE);
        }
    }

    /// A connection to the rank 0 of this run, which may start later than this one.
    fn reach_first(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(ErrorKind::NotFound);
        while !self.is_late() {
            for port in &self.meeting.ports {
                let found = self.meeting.addresses(*port).and_then(|all| {
                    let mut refused = io::Error::from(ErrorKind::AddrNotAvailable);
                    let mut found = all
                        .iter()
                        .filter_map(|address| self.greeted(*address).map_err(|error| refused = error).ok());
                    let found = found.next();
                    found.ok_or(refused)
                });
                match found {
                    Ok(stream) => return Ok(stream),
                    // Ports that nobody listens at say nothing new.
                    Err(error) if error.kind() != ErrorKind::ConnectionRefused => last = error,
                    Err(error) if last.kind() == ErrorKind::NotFound => last = error,
                    Err(_) => {}
                }
            }
            sleep(PAUSE);
        }
        Err(last)
    }

    /// Another connection to the rank 0 that was found before, as long as it listens.
    fn reach_again(&self, address: SocketAddr) -> io::Result<TcpStream> {
        loop {
            match self.greeted(address) {
                Ok(stream) => return Ok(stream),
                Err(error) if self.is_late() || error.kind() == ErrorKind::ConnectionRefused => {
                    return Err(error);
                }
                Err(_) => sleep(PAUSE),
            }
        }
    }

    /// A connection to whoever greets as rank 0 of this run does.
    fn greeted(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&address, STRANGER)?;
        stream.set_read_timeout(Some(STRANGER))?;
        let mut greeting = [0; GREETING_BYTES];
        stream.read_exact(&mut greeting)?;
        let is_ours = greeting == self.meeting.greeting();
        is_ours.then_some(stream).ok_or_else(|| io::Error::other("another run listens there"))
    }

    /// Says to rank 0 where this one listens; where the others do, from rank 1 on.
    fn introduce(&self, first: &mut TcpStream, port: u16) -> io::Result<Vec<SocketAddr>> {
        first.write_all(&hello(self.place.rank, port))?;
        // All have to come before rank 0 answers.
        let left = self.timeout.saturating_sub(self.begun.elapsed()).max(PAUSE);
        first.set_read_timeout(Some(left))?;
        let mut length = [0; 4];
        first.read_exact(&mut length)?;
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        first.read_exact(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let addresses = text.lines().map(|line| line.parse().map_err(io::Error::other));
        addresses.collect()
    }

    /// A connection to a rank that listens already.
    fn reach(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let left = self.timeout.saturating_sub(self.begun.elapsed()).max(PAUSE);
        let mut stream = TcpStream::connect_timeout(&address, left)?;
        stream.write_all(&self.meeting.run.to_le_bytes())?;
        stream.write_all(&hello(self.place.rank, 0))?;
        Ok(stream)
    }
}

fn hello(rank: usize, port: u16) -> [u8; HELLO] {
    let ([a, b, c, d], [low, high]) = ((rank as u32).to_le_bytes(), port.to_le_bytes());
    [a, b, c, d, low, high]
}

fn read_hello(hello: &[u8; HELLO]) -> Hello {
    let [rank @ .., low, high] = *hello;
    (u32::from_le_bytes(rank) as usize, u16::from_le_bytes([low, high]))
}

/// Whether nobody is at the other end of a connection any more, or there is none.
fn is_closed(stream: Option<&TcpStream>) -> bool {
    let Some(stream) = stream else { return true };
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let is_open = match looked {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    !is_open || stream.set_nonblocking(false).is_err()
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
