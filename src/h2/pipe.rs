//! Owns the bytes between the library and the worker: the transport that the library reads from and writes to, in memory,
//! and the body pieces that it holds.
//!
//! Everything is polled at known places, so nothing is ever woken: reading finds what was received before, or nothing;
//! writing takes everything until [`OUTPUT_BYTES`] wait for the socket. What leaves is read as it passes: that is how the
//! connection learns which streams ended.

use super::frames::{Frame, Scanner, kind};
use super::glitches::Glitches;
use crate::http::Output;
use crate::limits::h2::OUTPUT_BYTES;
use bytes::Buf;
use spooky_uring::Chunk;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Body pieces from this size on are handed on by reference; smaller ones are copied behind their frame's header: one
/// buffer less in the vectored send.
const BY_REFERENCE: usize = 4096;

/// Something of ours that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The end of our direction of a stream.
    End(u32),
    /// RST_STREAM with its code.
    Reset(u32, u32),
}

#[derive(Debug, Default)]
struct Input {
    chunks: VecDeque<Chunk>,
    /// Invariant: the bytes of `chunks`.
    bytes: usize,
    /// How the other side's direction ended, if it did.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Cleanly,
    Reset,
}

#[derive(Debug)]
struct Written {
    out: Output,
    /// Bytes of `out` above which nothing more is taken.
    limit: usize,
    scanner: Scanner,
    sent: Vec<Sent>,
    /// Something was not taken.
    blocked: bool,
}

/// What the library's side and ours share.
#[derive(Debug)]
pub(super) struct Pipe {
    input: RefCell<Input>,
    written: RefCell<Written>,
    pub(super) glitches: RefCell<Glitches>,
    /// Bytes of body pieces that left the library's queues, by stream, since the last look.
    drained: RefCell<Vec<(u32, usize)>>,
    /// Bytes of the worker's receive pool in the library's queues.
    pooled: Cell<usize>,
    /// The body piece that the library is about to write, to be recognised by its address.
    offered: RefCell<Option<Chunk>>,
}

impl Pipe {
    /// `preface`: ours is the side that sends it.
    pub(super) fn new(preface: bool) -> Rc<Self> {
        Rc::new(Self {
            input: RefCell::default(),
            written: RefCell::new(Written {
                out: Output::new(),
                limit: OUTPUT_BYTES,
                scanner: Scanner::new(preface),
                sent: Vec::new(),
                blocked: false,
            }),
            glitches: RefCell::default(),
            drained: RefCell::default(),
            pooled: Cell::new(0),
            offered: RefCell::default(),
        })
    }

    /// Takes bytes for the library to read.
    pub(super) fn push(&self, bytes: Chunk) {
        let mut input = self.input.borrow_mut();
        input.bytes += bytes.len();
        if !bytes.is_empty() {
            input.chunks.push_back(bytes);
        }
    }

    /// Nothing more will come. `cleanly`: the other side said so.
    pub(super) fn end(&self, cleanly: bool) {
        let end = if cleanly { End::Cleanly } else { End::Reset };
        self.input.borrow_mut().end.get_or_insert(end);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.input.borrow().end.is_some()
    }

    /// Forgets what was not read.
    pub(super) fn clear_input(&self) {
        let mut input = self.input.borrow_mut();
        input.chunks = VecDeque::new();
        input.bytes = 0;
    }

    /// Bytes that the library has not read.
    pub(super) fn unread(&self) -> usize {
        self.input.borrow().bytes
    }

    /// Copies what was not read out of the worker's receive pool.
    pub(super) fn unpin(&self) {
        for chunk in &mut self.input.borrow_mut().chunks {
            if chunk.is_pooled() {
                // Copy: bytes that wait for the other side to read hold its own memory, not the worker's.
                *chunk = Chunk::copy_from(chunk);
            }
        }
    }

    /// Whether the library has written anything that is not taken yet.
    pub(super) fn has_output(&self) -> bool {
        !self.written.borrow().out.is_empty()
    }

    /// Whether the library had to stop writing.
    pub(super) fn is_blocked(&self) -> bool {
        self.written.borrow().blocked
    }

    /// How much may be written until [`Self::take`], when so much is still unsent.
    pub(super) fn allow(&self, unsent: usize) {
        let mut written = self.written.borrow_mut();
        written.limit = OUTPUT_BYTES.saturating_sub(unsent);
        written.blocked &= written.out.len() >= written.limit;
    }

    /// Moves what was written.
    pub(super) fn take(&self, to: &mut Output) {
        let from = &mut self.written.borrow_mut().out;
        if to.is_empty() {
            // Both keep their memory.
            std::mem::swap(to, from);
            return;
        }
        while let Some(chunk) = from.pop() {
            to.push(chunk);
        }
    }

    /// Writes a GOAWAY of our own, behind whole frames: the library gives no others. No stream of the other side's was
    /// looked at, or none can be (RFC 9113 §6.8).
    pub(super) fn put_goaway(&self, code: u64) {
        let [a, b, c, d] = u32::try_from(code).unwrap_or(u32::MAX).to_be_bytes();
        let frame = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
        self.written.borrow_mut().out.gather().extend_from_slice(&frame);
    }

    /// What left since the last look, into `to`.
    pub(super) fn take_sent(&self, to: &mut Vec<Sent>) {
        to.append(&mut self.written.borrow_mut().sent);
    }

    /// Body bytes that left the library since the last look, into `to`.
    pub(super) fn take_drained(&self, to: &mut Vec<(u32, usize)>) {
        to.append(&mut self.drained.borrow_mut());
    }

    pub(super) fn pooled(&self) -> usize {
        self.pooled.get()
    }

    fn read(&self, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut input = self.input.borrow_mut();
        let before = to.remaining();
        while let Some(chunk) = input.chunks.front_mut() {
            // Copy: the library wants its frames in one piece of memory of its own.
            let take = chunk.len().min(to.remaining());
            to.put_slice(&chunk[..take]);
            if take < chunk.len() {
                chunk.advance(take);
                break;
            }
            input.chunks.pop_front();
        }
        let read = before - to.remaining();
        input.bytes -= read;
        match input.end {
            _ if read > 0 || before == 0 => Poll::Ready(Ok(())),
            None => Poll::Pending,
            Some(End::Cleanly) => Poll::Ready(Ok(())),
            Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = &mut *self.written.borrow_mut();
        if written.out.len() >= written.limit {
            written.blocked = true;
            return Poll::Pending;
        }
        let offered = self.offered.take();
        let mut glitches = self.glitches.borrow_mut();
        let mut count = 0;
        for slice in slices {
            count += slice.len();
            let sent = &mut written.sent;
            written.scanner.scan(slice, |frame| note(&frame, &mut glitches, sent));
            let piece = offered.as_ref().filter(|piece| piece.as_ptr() == slice.as_ptr() && piece.len() >= slice.len());
            match piece {
                Some(piece) => written.out.push(piece.slice(0..slice.len())),
                // Copy: the library's buffer is its own, and small pieces travel with their frame's header.
                None => written.out.gather().extend_from_slice(slice),
            }
        }
        Poll::Ready(Ok(count))
    }
}

fn note(frame: &Frame, glitches: &mut Glitches, sent: &mut Vec<Sent>) {
    glitches.sent(frame);
    match frame.kind {
        kind::RST_STREAM => sent.push(Sent::Reset(frame.stream, frame.word())),
        _ if frame.ends_stream() => sent.push(Sent::End(frame.stream)),
        _ => {}
    }
}

/// The library's end of the pipe.
#[derive(Debug)]
pub(super) struct Transport(pub(super) Rc<Pipe>);

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.read(to)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.write(&[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.write(slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body piece in the library's queues. It says when its bytes leave, and when they are dropped unsent.
#[derive(Debug)]
pub(super) struct Payload {
    chunk: Chunk,
    pipe: Rc<Pipe>,
    stream: u32,
    pooled: bool,
}

impl Payload {
    pub(super) fn new(chunk: Chunk, stream: u32, pipe: &Rc<Pipe>) -> Self {
        let pooled = chunk.is_pooled();
        if pooled {
            pipe.pooled.set(pipe.pooled.get() + chunk.len());
        }
        Self { chunk, pipe: Rc::clone(pipe), stream, pooled }
    }

    fn gone(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if self.pooled {
            self.pipe.pooled.set(self.pipe.pooled.get() - bytes);
        }
        let mut drained = self.pipe.drained.borrow_mut();
        match drained.last_mut() {
            Some((stream, sum)) if *stream == self.stream => *sum += bytes,
            _ => drained.push((self.stream, bytes)),
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.chunk.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(slice) = slices.first_mut().filter(|_| !self.chunk.is_empty()) else {
            return 0;
        };
        if self.chunk.len() >= BY_REFERENCE {
            // The library asks for this just before it writes.
            self.pipe.offered.replace(Some(self.chunk.clone()));
        }
        *slice = IoSlice::new(&self.chunk);
        1
    }

    fn advance(&mut self, count: usize) {
        self.chunk.advance(count);
        self.gone(count);
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.gone(self.chunk.len());
    }
}
