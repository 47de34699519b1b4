//! One connection over TCP, with TLS or without: the socket, the proxy's own TLS below its own HTTP/2 or HTTP/1.1.
//!
//! The protocols are those of the proxy, so what both sides misunderstand alike goes unseen here: whether they are right is
//! for tests with other people's clients and servers to say. The sockets are not the proxy's: no ring, plain calls, driven by
//! readiness like those of the HTTP/3 side.
//!
//! [`dial`] is what connections have in common, [`machine`] the protocol; start reading at [`Tcp::progress`].

mod dial;
mod machine;

pub use dial::Dialer;

use super::body;
use super::exchange::{Ending, Exchanges, Run};
use super::plan::Plan;
use super::tally::Fault;
use dial::Terms;
use machine::{Machine, Told};
use spooky::http::{Event, Output, ResponseHead};
use spooky::tls::ClientSession;
use spooky_uring::{Chunk, Lease};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Instant;

/// Reads before the next connection has its turn.
const READS_PER_TURN: usize = 16;
/// Bytes on their way to the socket before more are made.
const OUTPUT_BYTES: usize = 128 << 10;
/// Pieces handed to the kernel at once.
const PIECES_PER_WRITE: usize = 16;

/// A slow reader takes so many a second at most.
const HELPINGS_PER_SECOND: f64 = 50.0;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The socket is not connected yet.
    Connecting,
    /// Bytes can move; requests, when there is a machine.
    Open,
    /// Nothing more comes, and nothing is heard.
    Over,
}

/// One connection.
pub struct Tcp {
    terms: Rc<Terms>,
    socket: TcpStream,
    stage: Stage,
    tls: Option<Box<ClientSession>>,
    /// Speaks, once the handshake is done.
    machine: Option<Machine>,
    resumed: bool,
    /// The socket may have something to read.
    readable: bool,
    /// The socket may take something.
    writable: bool,
    /// An end or a failure is behind what can be read.
    gone: bool,
    /// Content of records, on its way to the machine.
    came: Vec<Chunk>,
    /// What the machine says.
    plain: Output,
    /// What TLS made of it.
    sealed: Output,
    /// What the socket gets next, and how many bytes that are.
    leaving: VecDeque<Chunk>,
    leaving_bytes: usize,
}

impl Tcp {
    /// Begins to connect. What fails later shows as a closed connection.
    pub fn connect(dialer: &Dialer) -> io::Result<Self> {
        let (terms, tls) = (Rc::clone(&dialer.terms), dialer.session()?);
        let (socket, stage) = match dial::connect(terms.to) {
            Ok(socket) => (socket, Stage::Connecting),
            Err(dial::NotBegun::Refused(socket)) => (socket, Stage::Over),
            Err(dial::NotBegun::NoSocket(error)) => return Err(error),
        };
        Ok(Self {
            terms,
            socket,
            stage,
            tls,
            machine: None,
            resumed: false,
            readable: false,
            writable: false,
            gone: false,
            came: Vec::new(),
            plain: Output::new(),
            sealed: Output::new(),
            leaving: VecDeque::new(),
            leaving_bytes: 0,
        })
    }

    /// The socket, to be watched.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The socket became readable, writable, or ended.
    pub fn wake(&mut self, readable: bool, writable: bool, gone: bool) {
        self.readable |= readable || gone;
        self.writable |= writable || gone;
        self.gone |= gone;
    }

    /// Whether requests can be sent.
    pub fn is_ready(&self) -> bool {
        self.machine.is_some()
    }

    /// Whether the handshake resumed a session.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether no further request is of use here.
    pub fn is_retiring(&self) -> bool {
        self.is_closed() || self.machine.as_ref().is_some_and(Machine::is_retiring)
    }

    /// Whether one more request may be sent.
    pub fn can_open(&self) -> bool {
        self.machine.as_ref().is_some_and(Machine::can_open)
    }

    /// Starts a request; `None`: there is no room yet.
    pub fn open(&mut self, plan: &Plan) -> Option<u64> {
        let machine = self.machine.as_mut()?;
        let stream = machine.open(&self.terms.head, plan.body == 0, &mut self.plain)?;
        if plan.options.read_rate.is_none() {
            machine.grant(stream, usize::MAX);
        }
        Some(stream)
    }

    /// Does all that the socket and the passed time allow, but for sending.
    pub fn progress(&mut self, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        if self.stage == Stage::Connecting && self.writable {
            self.connected(now);
        }
        if self.stage == Stage::Connecting {
            return;
        }
        if let Some(rate) = run.plan.options.read_rate {
            self.read_slowly(rate, now, exchanges);
        }
        self.read(now, run);
        self.judge(now, exchanges, run);
        if run.plan.body > 0 {
            self.upload(now, exchanges, run);
        }
    }

    fn connected(&mut self, now: Instant) {
        let begun = match (self.socket.take_error(), &mut self.tls) {
            (Ok(None), Some(session)) => session.start(&mut self.sealed).is_ok(),
            (Ok(None), None) => {
                self.machine = Some(Machine::new(&self.terms, now));
                true
            }
            (Ok(Some(_)) | Err(_), _) => false,
        };
        self.stage = if begun { Stage::Open } else { Stage::Over };
    }

    fn read(&mut self, now: Instant, run: &mut Run<'_>) {
        for _ in 0..READS_PER_TURN {
            if !self.readable || !self.wants_read() {
                return;
            }
            match self.socket.read(run.scratch) {
                Ok(0) => self.receive_end(true),
                Ok(len) => {
                    run.tally.receives += 1;
                    // A short read was all there was; what comes later is told again. An end that was told is not.
                    self.readable = len == run.scratch.len() || self.gone;
                    self.receive(&run.scratch[..len], now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.receive_end(false),
            }
        }
    }

    fn wants_read(&self) -> bool {
        self.stage == Stage::Open && self.machine.as_ref().is_none_or(Machine::wants_read)
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) {
        let Some(session) = &mut self.tls else {
            if let Some(machine) = &mut self.machine {
                // Copy: the machine keeps what it gets, and the next connection reads into the same buffer.
                machine.receive(Chunk::copy_from(bytes), now);
            }
            return;
        };
        // Copy: as above.
        let lease = Lease::from_vec(bytes.to_vec());
        let received = session.receive(lease, |content| self.came.push(content), &mut self.sealed);
        if self.machine.is_none() && received.is_ok() && !session.is_handshaking() {
            if !self.terms.takes(session.alpn()) {
                self.stage = Stage::Over;
                return;
            }
            self.resumed = session.handshake().resumed;
            self.machine = Some(Machine::new(&self.terms, now));
        }
        if let Some(machine) = &mut self.machine {
            self.came.drain(..).for_each(|content| machine.receive(content, now));
        }
        if received.is_err() {
            self.receive_end(false);
        }
    }

    /// The socket ended: `cleanly`, or not.
    fn receive_end(&mut self, cleanly: bool) {
        self.readable = false;
        self.stage = Stage::Over;
        // Without a goodbye of TLS the end may be forged, and what came be cut.
        let cleanly = cleanly && self.tls.as_mut().is_none_or(|session| session.receive_end().is_ok());
        if let Some(machine) = &mut self.machine {
            machine.receive_end(cleanly);
        }
    }

    /// Tells the exchanges what came for them.
    fn judge(&mut self, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        while let Some(machine) = &mut self.machine {
            let (stream, event) = match machine.next_event() {
                Told::Event(stream, event) => (stream, event),
                Told::Nothing => return,
                Told::Broken(stream, fault) => {
                    exchanges.fail(stream, fault, run);
                    self.stage = Stage::Over;
                    return;
                }
            };
            match event {
                Event::Informational(head) => self.receive_head(stream, &head, now, exchanges, run),
                Event::Head { head, end } => {
                    self.receive_head(stream, &head, now, exchanges, run);
                    if end {
                        self.finish(stream, now, exchanges, run);
                    }
                }
                Event::Body(bytes) => {
                    if let Some(exchange) = exchanges.find(stream) {
                        exchange.receive_body(&bytes, now, run.tally);
                    }
                }
                Event::End => self.finish(stream, now, exchanges, run),
                Event::Reset(_) => {
                    let lost = self.stage == Stage::Over || machine.is_over();
                    exchanges.fail(stream, if lost { Fault::ConnectionLost } else { Fault::Reset }, run);
                }
                Event::Refused(_) => exchanges.fail(stream, Fault::Protocol, run),
                Event::Stop(_) => {
                    // The server stopped reading: its answer says why.
                    if let Some(exchange) = exchanges.find(stream) {
                        exchange.upload_left = 0;
                    }
                }
                Event::Trailers(_) | Event::Room => {}
            }
        }
    }

    fn receive_head(
        &mut self,
        stream: u64,
        head: &ResponseHead,
        now: Instant,
        exchanges: &mut Exchanges,
        run: &mut Run<'_>,
    ) {
        if let Some(exchange) = exchanges.find(stream)
            && !exchange.receive_head(head.status, head.content_length, now, run.tally)
        {
            exchanges.fail(stream, Fault::Protocol, run);
            self.cancel(stream);
        }
    }

    fn finish(&mut self, stream: u64, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        // A failed one has nothing left to be given up but the rest of its request: the response is whole.
        let is_open = exchanges.find(stream).is_some_and(|exchange| exchange.upload_left > 0);
        if exchanges.finish(stream, now, run) == Ending::Early || is_open {
            self.cancel(stream);
        }
    }

    fn read_slowly(&mut self, rate: f64, now: Instant, exchanges: &mut Exchanges) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        // In helpings: byte by byte, each would get a window update of its own.
        let helping = (rate * 1024.0 / HELPINGS_PER_SECOND).max(1.0);
        for exchange in exchanges.iter_mut() {
            exchange.refill(rate, now);
            if exchange.allowance >= helping {
                // Whole bytes of a number that is bounded below and above.
                let bytes = exchange.allowance as usize;
                exchange.allowance -= bytes as f64;
                machine.grant(exchange.stream, bytes);
            }
        }
    }

    fn upload(&mut self, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        for exchange in exchanges.iter_mut() {
            while exchange.upload_left > 0 && self.stage == Stage::Open {
                let room =
                    machine.room(exchange.stream, OUTPUT_BYTES.saturating_sub(self.plain.len() + self.leaving_bytes));
                let sent = run.plan.body - exchange.upload_left;
                let piece = body::chunk(sent, exchange.upload_left.min(room as u64));
                if piece.is_empty() {
                    break;
                }
                exchange.note_sent(piece.len() as u64, now, run.tally);
                machine.send_body(exchange.stream, piece, &mut self.plain);
                if exchange.upload_left == 0 {
                    machine.end(exchange.stream, &mut self.plain);
                }
            }
        }
    }

    /// Gives a stream up.
    pub fn cancel(&mut self, stream: u64) {
        if let Some(machine) = &mut self.machine {
            machine.cancel(stream);
        }
    }

    /// Says goodbye; [`Tcp::flush`] sends it.
    pub fn close(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.close();
            machine.transmit(&mut self.plain);
        }
        if let Some(session) = &mut self.tls {
            let _ = session.send(&mut self.plain, &mut self.sealed);
            session.close_notify(&mut self.sealed);
        }
    }

    /// Whether there is more to do at once: no readiness will be told of it.
    pub fn is_eager(&self, exchanges: &Exchanges) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        let reads = self.readable && self.wants_read();
        let Some(machine) = &self.machine else {
            return reads;
        };
        let has_room = self.writable && self.leaving.is_empty();
        let uploads = || exchanges.iter().any(|e| e.upload_left > 0 && machine.room(e.stream, OUTPUT_BYTES) > 0);
        reads || machine.has_events() || has_room && (machine.has_output() || uploads())
    }

    /// Sends what the machine has to say, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.stage == Stage::Connecting {
            return Ok(());
        }
        if let Some(machine) = &mut self.machine
            && self.leaving_bytes < OUTPUT_BYTES
        {
            machine.transmit(&mut self.plain);
        }
        let from = match &mut self.tls {
            Some(session) => {
                if session.send(&mut self.plain, &mut self.sealed).is_err() {
                    self.stage = Stage::Over;
                }
                &mut self.sealed
            }
            None => &mut self.plain,
        };
        while let Some(chunk) = from.pop() {
            self.leaving_bytes += chunk.len();
            self.leaving.push_back(chunk);
        }
        while self.writable && !self.leaving.is_empty() {
            self.write();
        }
        Ok(())
    }

    fn write(&mut self) {
        let mut pieces = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let mut count = 0;
        for (piece, chunk) in pieces.iter_mut().zip(&self.leaving) {
            *piece = IoSlice::new(chunk);
            count += 1;
        }
        match self.socket.write_vectored(&pieces[..count]) {
            Ok(len) => self.written(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing more leaves; what the server said before it closed may still be read.
            Err(_) => self.written(self.leaving_bytes),
        }
    }

    fn written(&mut self, len: usize) {
        self.leaving_bytes -= len;
        let mut left = len;
        while let Some(chunk) = self.leaving.front_mut() {
            if left < chunk.len() {
                chunk.advance(left);
                return;
            }
            left -= chunk.len();
            self.leaving.pop_front();
        }
    }
}
