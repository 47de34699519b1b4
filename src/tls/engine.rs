//! Owns what both sides of a connection do alike: records into the library and their content out, in place; alerts and
//! handshake messages of the library into the output; plaintext into records.
//!
//! The library gets one record at a time. It decrypts in the memory it is given, so the content stands behind the record's
//! header afterwards, and a chunk of that memory is handed on. Handshake messages that end in a later record have to stay
//! with the library's marks on them: they are [`kept`](Engine::kept), and moved behind each other, until it lets them go.
//!
//! ```text
//! lease: | rest of a record | record | record | begin of a record |
//!          └> partial ─> open  └> open in place     └> partial
//! ```

use super::fault::{Fault, FaultKind, Side};
use super::records::{self, BadHeader, HEADER, Partial};
use super::seal;
use crate::http::Output;
use crate::limits::{TLS_BYTES_PER_EMPTY_RECORD, TLS_CLIENT_KEPT_BYTES, TLS_EMPTY_RECORDS, TLS_SERVER_KEPT_BYTES};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error};
use spooky_uring::{Chunk, Lease};
use std::ops::Range;

/// One side of the library's connections.
pub(super) trait Library {
    type Data;

    /// Bytes of records with incomplete handshake messages that are kept for it.
    const KEPT_BYTES_MAX: usize;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;
}

impl Library for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const KEPT_BYTES_MAX: usize = TLS_SERVER_KEPT_BYTES;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Library for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const KEPT_BYTES_MAX: usize = TLS_CLIENT_KEPT_BYTES;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

/// One connection's records.
pub(super) struct Engine<L> {
    library: L,
    /// The record that has come in part.
    partial: Partial,
    /// Records that the library wants to see again.
    kept: Vec<u8>,
    /// Records without content so far, and bytes of content: what tells a flood.
    empty_records: u32,
    received: u64,
    /// The peer said that it sends no more.
    peer_closed: bool,
    /// We said so, or nothing can be said any more.
    closed: bool,
}

/// What is left of a record once it was opened: where its content stands in it.
type Content = Range<usize>;

impl<L: Library> Engine<L> {
    pub(super) fn new(library: L) -> Self {
        Self {
            library,
            partial: Partial::default(),
            kept: Vec::new(),
            empty_records: 0,
            received: 0,
            peer_closed: false,
            closed: false,
        }
    }

    pub(super) fn state(&self) -> &CommonState {
        self.library.state()
    }

    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.library.state().is_handshaking()
    }

    /// Puts what the library has to say first into the output.
    pub(super) fn start(&mut self, out: &mut Output) -> Result<(), Fault> {
        self.run(&mut [], out).map(|_| ())
    }

    /// Takes bytes of the peer: content goes to `plain`, answers of the handshake to `out`. What came before a fault is
    /// handed on too.
    pub(super) fn receive(
        &mut self,
        mut lease: Lease,
        plain: &mut dyn FnMut(Chunk),
        out: &mut Output,
    ) -> Result<(), Fault> {
        let mut opened = Contents::default();
        let mut at = 0;
        let result = loop {
            if at == lease.len() || self.peer_closed {
                break Ok(());
            }
            let next = match self.partial.is_empty() {
                true => records::whole(&lease[at..]),
                false => Ok(None),
            };
            let record = match next {
                Ok(Some(length)) => {
                    at += length;
                    self.open(&mut lease[at - length..at], out).map(|content| {
                        opened.push(&mut lease, at - length + content.start..at - length + content.end);
                    })
                }
                Ok(None) => match self.partial.fill(&lease[at..]) {
                    Ok((taken, record)) => {
                        at += taken;
                        match record {
                            Some(record) => self.open_alone(record, plain, out),
                            None => Ok(()),
                        }
                    }
                    Err(bad) => Err(self.refuse(bad, out)),
                },
                Err(bad) => Err(self.refuse(bad, out)),
            };
            if let Err(fault) = record {
                break Err(fault);
            }
        };
        opened.hand_on(lease, plain);
        result
    }

    /// A record with memory of its own.
    fn open_alone(&mut self, mut record: Vec<u8>, plain: &mut dyn FnMut(Chunk), out: &mut Output) -> Result<(), Fault> {
        let content = self.open(&mut record, out)?;
        if !content.is_empty() {
            record.truncate(content.end);
            let mut chunk = Chunk::from_vec(record);
            chunk.advance(content.start);
            plain(chunk);
        }
        Ok(())
    }

    /// Gives the library one whole record.
    fn open(&mut self, record: &mut [u8], out: &mut Output) -> Result<Content, Fault> {
        let content = if self.kept.is_empty() {
            let (used, content) = self.run(record, out)?;
            if used < record.len() && !self.peer_closed {
                self.keep(&record[used..])?;
            }
            content
        } else {
            self.keep(record)?;
            let mut kept = std::mem::take(&mut self.kept);
            let (used, content) = self.run(&mut kept, out)?;
            if !content.is_empty() {
                return Err(Fault::of(&Error::General("content inside a message".to_owned()), false));
            }
            if used < kept.len() {
                kept.drain(..used);
                self.kept = kept;
            }
            content
        };
        if content.is_empty() {
            self.empty_records += 1;
            let most = u64::from(TLS_EMPTY_RECORDS) + self.received / TLS_BYTES_PER_EMPTY_RECORD;
            if u64::from(self.empty_records) > most {
                return Err(Fault::flood());
            }
        } else {
            self.received += content.len() as u64;
        }
        Ok(content)
    }

    /// Copies, because the message ends in a record that has not come: only those of a handshake, and few.
    fn keep(&mut self, records: &[u8]) -> Result<(), Fault> {
        if self.kept.len() + records.len() > L::KEPT_BYTES_MAX {
            return Err(Fault::too_long(L::KEPT_BYTES_MAX));
        }
        self.kept.extend_from_slice(records);
        Ok(())
    }

    /// Lets the library tell the peer what is wrong with a header, where it agrees that something is.
    fn refuse(&mut self, bad: BadHeader, out: &mut Output) -> Fault {
        let (BadHeader::Unknown(mut header) | BadHeader::TooLong(mut header)) = bad;
        let mut fault = Fault::bad_header(bad);
        if self.kept.is_empty()
            && let Err(told) = self.run(&mut header, out)
        {
            fault.tells = told.tells;
        }
        fault
    }

    /// Runs the library until it wants more bytes: how many of these it is done with, and where the content of the one
    /// record among them stands.
    fn run(&mut self, records: &mut [u8], out: &mut Output) -> Result<(usize, Content), Fault> {
        let mut used = 0;
        let mut content = 0..0;
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.library.process(&mut records[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut print = None;
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| Fault::of(&error, false))?;
                        discard += record.discard;
                        if print.replace(Print::of(record.payload)).is_some() {
                            return Err(misplaced());
                        }
                    }
                    if let Some(print) = print.filter(|print| print.length > 0) {
                        let place = used + HEADER..used + HEADER + print.length;
                        if !content.is_empty() || !records.get(place.clone()).is_some_and(|bytes| print.is_of(bytes)) {
                            return Err(misplaced());
                        }
                        content = place;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, out),
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    return Ok((used + discard, content));
                }
                Ok(_) => return Err(misplaced()),
                Err(error) => {
                    self.closed = true;
                    used += discard;
                    return Err(Fault::of(&error, self.tell(&mut records[used..], out)));
                }
            }
            used += discard;
        }
    }

    /// Puts what the library still wants to say into the output, the alert that goes with an error last.
    fn tell(&mut self, records: &mut [u8], out: &mut Output) -> bool {
        let mut told = false;
        // Not one call more: with nothing to say it would look at the same bytes again, and panic over a second alert.
        while self.library.state().wants_write() {
            let Ok(ConnectionState::EncodeTlsData(message)) = self.library.process(records).state else { break };
            encode(message, out);
            told = true;
        }
        told
    }

    /// Seals all of `plain` into `out`; nothing while the handshake runs.
    pub(super) fn send(&mut self, plain: &mut Output, out: &mut Output) -> Result<(), Fault> {
        if plain.is_empty() || self.closed || self.is_handshaking() {
            return Ok(());
        }
        loop {
            match self.library.process(&mut self.kept).state {
                Ok(ConnectionState::WriteTraffic(mut writer)) => {
                    return seal::all(&mut writer, plain, out).map_err(|error| {
                        self.closed = true;
                        let text = format!("a record cannot be sealed: {error}");
                        Fault::new(Side::Us, FaultKind::Internal, text)
                    });
                }
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, out),
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(_) => return Ok(()),
                Err(error) => return Err(Fault::of(&error, false)),
            }
        }
    }

    /// Says that nothing follows (RFC 8446 §6.1). During the handshake there is nothing to end.
    pub(super) fn close(&mut self, out: &mut Output) {
        if self.closed || self.is_handshaking() {
            return;
        }
        self.closed = true;
        loop {
            match self.library.process(&mut self.kept).state {
                Ok(ConnectionState::WriteTraffic(mut writer)) => {
                    // Where the keys are used up nothing can be said: the FIN has to do.
                    let _ = seal::into_gathered(out, seal::OVERHEAD + 2, |room| writer.queue_close_notify(room));
                    return;
                }
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, out),
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// The peer's FIN.
    pub(super) fn receive_end(&mut self) -> Result<(), Fault> {
        if self.peer_closed {
            return Ok(());
        }
        Err(if self.is_handshaking() {
            Fault::new(Side::Peer, FaultKind::Closed, "the peer closed the connection during the handshake")
        } else {
            let cut = if self.partial.is_empty() { "" } else { ", in the middle of a record" };
            let text = format!("the peer closed the connection without a close_notify{cut}");
            Fault::new(Side::Peer, FaultKind::Truncated, text)
        })
    }

    /// Has the next record announce other keys.
    #[cfg(test)]
    pub(super) fn update_keys(&mut self) {
        if let Ok(ConnectionState::WriteTraffic(writer)) = self.library.process(&mut self.kept).state {
            writer.refresh_traffic_keys().expect("TLS 1.3");
        }
    }

    /// Bytes of incomplete records and messages, for tests.
    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.partial.len() + self.kept.len()
    }
}

fn misplaced() -> Fault {
    Fault::of(&Error::General("the library put a record's content elsewhere".to_owned()), false)
}

fn encode<D>(mut message: EncodeTlsData<'_, D>, out: &mut Output) {
    // The library says how much it needs when it gets nothing.
    let encoded = seal::into_gathered(out, 0, |room| match message.encode(room) {
        Ok(written) => Ok(written),
        Err(EncodeError::InsufficientSize(size)) => Err(EncryptError::InsufficientSize(size)),
        Err(EncodeError::AlreadyEncoded) => Ok(0),
    });
    debug_assert!(encoded.is_ok(), "it got the room it asked for");
}

/// The ends of a record's content. The library hands a copy out, while the bytes themselves stand in the record: this tells
/// that they do, which no promise of the library's says. Tests compare every byte.
struct Print {
    length: usize,
    first: [u8; 16],
    last: [u8; 16],
    #[cfg(debug_assertions)]
    all: Vec<u8>,
}

impl Print {
    fn of(content: &[u8]) -> Self {
        let (mut first, mut last) = ([0; 16], [0; 16]);
        let ends = content.len().min(16);
        first[..ends].copy_from_slice(&content[..ends]);
        last[..ends].copy_from_slice(&content[content.len() - ends..]);
        Self {
            length: content.len(),
            first,
            last,
            #[cfg(debug_assertions)]
            all: content.to_vec(),
        }
    }

    fn is_of(&self, bytes: &[u8]) -> bool {
        #[cfg(debug_assertions)]
        assert!(self.all == bytes, "a record is opened in place");
        let ends = bytes.len().min(16);
        bytes[..ends] == self.first[..ends] && bytes[bytes.len() - ends..] == self.last[..ends]
    }
}

/// Where the contents of records stand in a lease, in order. Small ones are moved behind the one before, so that there are
/// not more pieces than a machine above would hold; a first one needs no memory.
#[derive(Default)]
struct Contents {
    first: Range<usize>,
    more: Vec<Range<usize>>,
}

/// Contents up to this size are moved, for the price of what [`Output`] copies.
const MOVED_BYTES_MAX: usize = 512;

impl Contents {
    fn push(&mut self, lease: &mut Lease, content: Range<usize>) {
        if content.is_empty() {
            return;
        }
        if self.first.is_empty() {
            self.first = content;
            return;
        }
        let last = self.more.last_mut().unwrap_or(&mut self.first);
        if content.len() <= MOVED_BYTES_MAX {
            // Copy: see MOVED_BYTES_MAX. The headers between them are read already.
            lease.copy_within(content.clone(), last.end);
            last.end += content.len();
        } else {
            self.more.push(content);
        }
    }

    fn hand_on(self, mut lease: Lease, plain: &mut dyn FnMut(Chunk)) {
        if self.first.is_empty() {
            return;
        }
        let start = self.first.start;
        lease.truncate(self.more.last().unwrap_or(&self.first).end);
        lease.advance(start);
        let chunk = lease.into_chunk();
        if self.more.is_empty() {
            return plain(chunk);
        }
        for content in std::iter::once(self.first).chain(self.more) {
            plain(chunk.slice(content.start - start..content.end - start));
        }
    }
}
