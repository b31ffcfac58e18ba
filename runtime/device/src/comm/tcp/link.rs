//! A connection to another rank: messages, each behind a head that says its group and its length.
//!
//! Nothing here waits: what the system does not take or give now is tried again the next time. A message that comes before
//! somebody asks for it is kept, so that a rank never fills the line of one that is waited for elsewhere.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::super::Ticket;

/// Kind, tag and length of what follows, with room between them.
const HEAD: usize = 16;

const MESSAGE: u8 = 0;
const ABORT: u8 = 1;
const LEAVE: u8 = 2;

/// What came of a connection since it was looked at last.
#[derive(Debug)]
pub(super) enum Event {
    /// A message of this ticket is out.
    Sent(Ticket),
    /// A message of this ticket is in.
    Received(Ticket),
    /// What came for this ticket has another length.
    Length { ticket: Ticket, expected: usize, found: usize },
    /// The other rank ends all, with an exit code and its reason.
    Abort { code: u8, message: String },
}

/// A message on its way out: its head, with what is behind it where that is not somebody else's memory.
struct Outgoing {
    head: Vec<u8>,
    from: *const u8,
    bytes: usize,
    /// Of both.
    done: usize,
    ticket: Option<Ticket>,
}

/// Where a message is to go.
struct Expected {
    ticket: Ticket,
    to: *mut u8,
    bytes: usize,
}

/// What the bytes behind a head are for.
enum Body {
    /// A place that somebody waits at.
    Placed(Expected),
    /// Nobody waits yet.
    Kept(u16, Vec<u8>),
    /// The reason of an end.
    Reason(u8, Vec<u8>),
    /// Of a length that was not expected.
    Dropped(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Open,
    /// The other rank has said that it leaves.
    Left,
    /// The other rank is gone without a word.
    Gone,
}

/// This rank's end of a connection.
pub(super) struct Link {
    stream: TcpStream,
    pub(super) state: State,
    outgoing: VecDeque<Outgoing>,
    head: [u8; HEAD],
    /// Bytes of the head that have come.
    headed: usize,
    /// What is coming, and how much of it is there.
    body: Option<(Body, usize)>,
    expected: HashMap<u16, VecDeque<Expected>>,
    kept: HashMap<u16, VecDeque<Vec<u8>>>,
}

impl Link {
    /// # Errors
    /// What the system says of the connection.
    pub(super) fn new(stream: TcpStream) -> io::Result<Link> {
        stream.set_read_timeout(None)?;
        stream.set_nonblocking(true)?;
        // Handshakes are small messages that somebody waits for.
        stream.set_nodelay(true)?;
        Ok(Link {
            stream,
            state: State::Open,
            outgoing: VecDeque::new(),
            head: [0; HEAD],
            headed: 0,
            body: None,
            expected: HashMap::new(),
            kept: HashMap::new(),
        })
    }

    /// Queues a message.
    ///
    /// # Safety
    /// The bytes stay as they are until it is sent, or the connection is dropped.
    pub(super) unsafe fn send(&mut self, tag: u16, from: *const u8, bytes: usize, ticket: Ticket) {
        let head = head(MESSAGE, tag, bytes);
        self.outgoing.push_back(Outgoing { head, from, bytes, done: 0, ticket: Some(ticket) });
    }

    /// Queues the end of all ranks.
    pub(super) fn send_abort(&mut self, code: u8, message: &str) {
        let mut head = head(ABORT, code.into(), message.len());
        head.extend(message.as_bytes());
        self.queue_own(head);
    }

    /// Queues that this rank leaves in order.
    pub(super) fn send_leave(&mut self) {
        self.queue_own(head(LEAVE, 0, 0));
    }

    fn queue_own(&mut self, head: Vec<u8>) {
        self.outgoing.push_back(Outgoing { head, from: std::ptr::null(), bytes: 0, done: 0, ticket: None });
    }

    /// Whether all that was queued is out, or can never be.
    pub(super) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty() || self.state == State::Gone
    }

    /// Has the next message of a tag come to a place.
    ///
    /// # Safety
    /// Nobody else touches the place until the message is received, or the connection is dropped.
    pub(super) unsafe fn receive(
        &mut self,
        tag: u16,
        to: *mut u8,
        bytes: usize,
        ticket: Ticket,
        events: &mut Vec<Event>,
    ) {
        let expected = Expected { ticket, to, bytes };
        match self.kept.get_mut(&tag).and_then(VecDeque::pop_front) {
            // SAFETY: as the caller vouches.
            Some(message) => events.push(unsafe { expected.take(&message) }),
            None => self.expected.entry(tag).or_default().push_back(expected),
        }
    }

    /// Sends and receives what can be now.
    pub(super) fn progress(&mut self, events: &mut Vec<Event>) {
        if self.state == State::Gone {
            return;
        }
        let written = self.write(events);
        // Whoever is gone may have said why before, and nothing can be written to it any more.
        let read = self.read(events);
        if written.and(read).is_err() && self.state == State::Open {
            self.state = State::Gone;
        }
    }

    fn write(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        while let Some(first) = self.outgoing.front_mut() {
            let headed = first.head.len();
            let rest = match first.done.checked_sub(headed) {
                None => &first.head[first.done..],
                // SAFETY: whoever queued it vouches for the bytes until it is sent.
                Some(done) => unsafe { std::slice::from_raw_parts(first.from.add(done), first.bytes - done) },
            };
            match self.stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => first.done += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if first.done == headed + first.bytes {
                events.extend(first.ticket.map(Event::Sent));
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        loop {
            if let Some((body, filled)) = &mut self.body {
                let rest = &mut body.bytes()[*filled..];
                if !rest.is_empty() {
                    match some(&mut self.stream, rest)? {
                        Some(read) => *filled += read,
                        None => return Ok(()),
                    }
                    continue;
                }
                if let Some((body, _)) = self.body.take() {
                    self.complete(body, events);
                }
                continue;
            }
            match some(&mut self.stream, &mut self.head[self.headed..])? {
                Some(read) => self.headed += read,
                None => return Ok(()),
            }
            if self.headed == HEAD {
                self.headed = 0;
                self.begin(events);
            }
        }
    }

    /// What a head that is whole announces.
    fn begin(&mut self, events: &mut Vec<Event>) {
        let [kind, _, low, high, _, _, _, _, length @ ..] = self.head;
        let (tag, bytes) = (u16::from_le_bytes([low, high]), u64::from_le_bytes(length) as usize);
        let body = match kind {
            LEAVE => {
                self.state = State::Left;
                return;
            }
            ABORT => Body::Reason(low, vec![0; bytes]),
            _ => match self.expected.get_mut(&tag).and_then(VecDeque::pop_front) {
                Some(expected) if expected.bytes == bytes => Body::Placed(expected),
                Some(Expected { ticket, bytes: expected, .. }) => {
                    events.push(Event::Length { ticket, expected, found: bytes });
                    Body::Dropped(vec![0; bytes])
                }
                None => Body::Kept(tag, vec![0; bytes]),
            },
        };
        self.body = Some((body, 0));
    }

    /// What a message that is whole is good for.
    fn complete(&mut self, body: Body, events: &mut Vec<Event>) {
        match body {
            Body::Placed(expected) => events.push(Event::Received(expected.ticket)),
            Body::Kept(tag, message) => match self.expected.get_mut(&tag).and_then(VecDeque::pop_front) {
                // SAFETY: whoever expects it vouches for the place.
                Some(expected) => events.push(unsafe { expected.take(&message) }),
                None => self.kept.entry(tag).or_default().push_back(message),
            },
            Body::Reason(code, message) => {
                events.push(Event::Abort { code, message: String::from_utf8_lossy(&message).into_owned() });
            }
            Body::Dropped(_) => {}
        }
    }
}

impl Expected {
    /// A message that came before it was expected.
    ///
    /// # Safety
    /// The place is nobody else's.
    unsafe fn take(self, message: &[u8]) -> Event {
        let Expected { ticket, to, bytes } = self;
        if message.len() != bytes {
            return Event::Length { ticket, expected: bytes, found: message.len() };
        }
        // SAFETY: as the caller vouches, for as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), to, bytes) };
        Event::Received(ticket)
    }
}

impl Body {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Body::Placed(Expected { bytes: 0, .. }) => &mut [],
            // SAFETY: whoever expects it vouches for the place until the message is received.
            Body::Placed(expected) => unsafe { std::slice::from_raw_parts_mut(expected.to, expected.bytes) },
            Body::Kept(_, bytes) | Body::Reason(_, bytes) | Body::Dropped(bytes) => bytes,
        }
    }
}

fn head(kind: u8, tag: u16, bytes: usize) -> Vec<u8> {
    let mut head = vec![kind, 0];
    head.extend(tag.to_le_bytes());
    head.extend([0; 4]);
    head.extend((bytes as u64).to_le_bytes());
    head
}

/// How many bytes came; nothing where none is there now.
fn some(stream: &mut TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        return match stream.read(into) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        };
    }
}
