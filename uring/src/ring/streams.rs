//! Stream sockets: the table of them, how one is made, and how one is closed.
//!
//! A stream's slot lives through `Connecting → Open → Closing` (accepted ones start `Open`) and is free again only when
//! the last of its operations has completed; `operations` counts them. What the kernel points into (address, send frame,
//! queued chunks) belongs to the slot. Calls only note what is wanted and put the slot on the `unsettled` list; the next
//! `wait` turns that into operations, so that several sends of a turn become one and a pause undone costs nothing.

use super::Ring;
use super::queue::Completion;
use super::stream_send::{Frame, FrameList};
use super::user_data::{Kind, UserData, next_generation};
use crate::address::RawAddress;
use crate::chunk::Chunk;
use crate::io::{Event, StreamAddress, StreamId, Token};
use crate::socket;
use io_uring::{opcode, squeue, types};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Free,
    Connecting,
    Open,
    /// The owner closed it; completions are awaited.
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// No receive runs.
    Idle,
    /// A multishot receive runs.
    Armed,
    /// It was cancelled and its last completion is awaited.
    Cancelling,
    /// It ended because no buffer was free; on the list `starved`.
    Starved,
    /// No more bytes will come.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// FIN follows when the queue is empty.
    FinWanted,
    /// FIN was sent, or sending failed: whatever is queued now is dropped.
    Ended,
}

/// How the kernel knows the socket.
#[derive(Debug)]
pub(super) enum Handle {
    None,
    Descriptor(OwnedFd),
    /// In the ring's own table, at the position of the slot.
    Direct,
}

pub(super) struct Stream {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) handle: Handle,
    pub(super) token: Token,
    pub(super) receiving: Receiving,
    /// The owner wants bytes.
    pub(super) wanted: bool,
    pub(super) sending: Sending,
    /// On the `unsettled` list.
    pub(super) unsettled: bool,
    /// On a list of starved ones; outlives the slot's use.
    pub(super) starving: bool,
    /// Bytes have come on it.
    pub(super) received: bool,
    /// Operations that name this slot and have not completed.
    pub(super) operations: u32,
    /// Not yet acknowledged by the kernel; the first `in_flight` of them belong to the running send.
    pub(super) queue: VecDeque<Chunk>,
    /// Bytes in `queue`.
    pub(super) queued: usize,
    /// Chunks of the running send; 0: none runs.
    pub(super) in_flight: usize,
    /// Bytes of the running send.
    pub(super) in_flight_bytes: usize,
    pub(super) frame: Option<Box<Frame>>,
    address: Option<Box<RawAddress>>,
    /// Why preparing the socket failed, if it did.
    prepare_error: i32,
}

impl Stream {
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match &self.handle {
            Handle::Descriptor(socket) => socket::local_address(socket).ok(),
            Handle::None | Handle::Direct => None,
        }
    }

    fn new() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            handle: Handle::None,
            token: Token(0),
            receiving: Receiving::Idle,
            wanted: false,
            sending: Sending::Open,
            unsettled: false,
            starving: false,
            received: false,
            operations: 0,
            queue: VecDeque::new(),
            queued: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            frame: None,
            address: None,
            prepare_error: 0,
        }
    }
}

/// Stream sockets by slot.
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    capacity: u32,
    /// Slots with something to turn into operations.
    pub(super) unsettled: Vec<u32>,
    /// Slots whose receive waits for buffers, the longest waiting first: those that have received before, and newcomers. A slot
    /// is here at most once.
    pub(super) starved: [VecDeque<u32>; 2],
    /// Send frames for the next vectored sends.
    pub(super) frames: FrameList,
}

impl Streams {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            capacity,
            unsettled: Vec::new(),
            starved: Default::default(),
            frames: FrameList::default(),
        }
    }

    /// A stream that its owner has not closed.
    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        let stream = self.slots.get(id.slot as usize)?;
        let live = matches!(stream.phase, Phase::Connecting | Phase::Open);
        (live && stream.generation == id.generation).then_some(stream)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let stream = self.slots.get_mut(id.slot as usize)?;
        let live = matches!(stream.phase, Phase::Connecting | Phase::Open);
        (live && stream.generation == id.generation).then_some(stream)
    }

    pub(super) fn slot(&mut self, slot: u32) -> &mut Stream {
        &mut self.slots[slot as usize]
    }

    pub(super) fn slot_and_frames(&mut self, slot: u32) -> (&mut Stream, &mut FrameList) {
        (&mut self.slots[slot as usize], &mut self.frames)
    }

    /// The stream an operation was started for, whatever its phase; `None`: that use of the slot is over.
    pub(super) fn of_operation(&mut self, data: UserData) -> Option<&mut Stream> {
        let stream = self.slots.get_mut(data.slot as usize)?;
        (stream.phase != Phase::Free && stream.generation == data.generation).then_some(stream)
    }

    fn take(&mut self, phase: Phase, handle: Handle, token: Token) -> Option<StreamId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if (self.slots.len() as u32) < self.capacity => {
                self.slots.push(Stream::new());
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let stream = &mut self.slots[slot as usize];
        debug_assert!(stream.phase == Phase::Free && stream.operations == 0);
        stream.phase = phase;
        stream.handle = handle;
        stream.token = token;
        stream.received = false;
        Some(StreamId { slot, generation: stream.generation })
    }

    /// The slot's use is over: nothing of it is with the kernel any more.
    fn release(&mut self, slot: u32) {
        let stream = &mut self.slots[slot as usize];
        assert!(stream.operations == 0 && stream.in_flight == 0 && stream.frame.is_none());
        stream.generation = next_generation(stream.generation);
        stream.phase = Phase::Free;
        stream.handle = Handle::None;
        stream.receiving = Receiving::Idle;
        stream.wanted = false;
        stream.sending = Sending::Open;
        stream.queue.clear();
        stream.queued = 0;
        stream.address = None;
        stream.prepare_error = 0;
        self.free.push(slot);
    }

    pub(super) fn unsettle(&mut self, slot: u32) {
        let stream = &mut self.slots[slot as usize];
        if !stream.unsettled {
            stream.unsettled = true;
            self.unsettled.push(slot);
        }
    }
}

/// TCP_NODELAY's value, where it stays put for the kernel.
static ON: i32 = 1;
/// Linger for no time: closing resets the connection.
static RESET: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

impl Ring {
    /// Takes over a connected stream socket (of a socket pair, or inherited). Reading starts with `resume`.
    /// `None`: the table of streams is full; the socket is closed.
    pub fn adopt_stream(&mut self, socket: OwnedFd, token: Token) -> Option<StreamId> {
        self.streams.take(Phase::Open, Handle::Descriptor(socket), token)
    }

    /// Room for sockets that live only in the ring; false: there is none.
    pub(super) fn register_direct_table(&mut self) -> bool {
        let limit = crate::host::descriptor_limit().unwrap_or(0);
        let count = u64::from(self.streams.capacity).min(limit) as u32;
        let submitter = self.queue.ring().submitter();
        count == self.streams.capacity && submitter.register_files_sparse(count).is_ok()
    }

    /// Pushes an operation of a stream.
    ///
    /// # Safety
    /// As [`Queue::push`](super::queue::Queue::push); addresses point to what the slot owns, or live for ever.
    pub(super) unsafe fn push_stream(&mut self, kind: Kind, slot: u32, entry: squeue::Entry) {
        let stream = self.streams.slot(slot);
        stream.operations += 1;
        let data = UserData::new(kind, stream.generation, slot);
        // SAFETY: the caller's promise.
        unsafe { self.queue.push(entry, data) };
    }

    pub(super) fn start_connect(&mut self, to: &StreamAddress, token: Token) -> Option<StreamId> {
        self.queue.stats.connects += 1;
        let address = match to {
            StreamAddress::Tcp(address) => Some(RawAddress::internet(*address)),
            StreamAddress::Unix(path) => RawAddress::unix(path),
        };
        let id = self.streams.take(Phase::Connecting, Handle::None, token);
        let Some(id) = id else {
            self.queue.stats.connects_refused += 1;
            return None;
        };
        let Some(address) = address else {
            self.fail_connect(id.slot, libc::EINVAL);
            return Some(id);
        };
        let address = Box::new(address);
        let (name, len) = (address.as_ptr(), address.len());
        self.streams.slot(id.slot).address = Some(address);
        if self.direct_connect {
            self.prepare_direct(id.slot, to);
            let entry = opcode::Connect::new(types::Fixed(id.slot), name, len).build();
            // SAFETY: the address is boxed and belongs to the slot until the operation has completed.
            unsafe { self.push_stream(Kind::Connect, id.slot, entry) };
            return Some(id);
        }
        let tcp = match to {
            StreamAddress::Tcp(address) => Some(*address),
            StreamAddress::Unix(_) => None,
        };
        match socket::stream_socket(tcp) {
            Ok(descriptor) => {
                let fd = types::Fd(descriptor.as_raw_fd());
                self.streams.slot(id.slot).handle = Handle::Descriptor(descriptor);
                let entry = opcode::Connect::new(fd, name, len).build();
                // SAFETY: as above.
                unsafe { self.push_stream(Kind::Connect, id.slot, entry) };
            }
            Err(error) => self.fail_connect(id.slot, error.raw_os_error().unwrap_or(libc::EIO)),
        }
        Some(id)
    }

    /// Socket and TCP_NODELAY as links of one chain that ends with the caller's connect.
    fn prepare_direct(&mut self, slot: u32, to: &StreamAddress) {
        let family = match to {
            StreamAddress::Tcp(SocketAddr::V4(_)) => libc::AF_INET,
            StreamAddress::Tcp(SocketAddr::V6(_)) => libc::AF_INET6,
            StreamAddress::Unix(_) => libc::AF_UNIX,
        };
        self.streams.slot(slot).handle = Handle::Direct;
        let target = types::DestinationSlot::try_from_slot_target(slot).expect("slots under 2^32");
        let entry = opcode::Socket::new(family, libc::SOCK_STREAM, 0)
            .file_index(Some(target))
            .build()
            .flags(squeue::Flags::IO_LINK);
        // SAFETY: the entry holds no address.
        unsafe { self.push_stream(Kind::Socket, slot, entry) };
        if matches!(to, StreamAddress::Tcp(_)) {
            // A hard link: a socket without TCP_NODELAY is slow, not broken.
            let entry = Self::option(slot, libc::IPPROTO_TCP, libc::TCP_NODELAY, &ON).flags(squeue::Flags::IO_HARDLINK);
            // SAFETY: the value is static.
            unsafe { self.push_stream(Kind::SocketOption, slot, entry) };
        }
    }

    fn option<T>(slot: u32, level: i32, name: i32, value: &'static T) -> squeue::Entry {
        opcode::SetSockOpt::new(
            types::Fixed(slot),
            level as u32,
            name as u32,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
        .build()
    }

    /// The connection cannot even be tried. The event must come from `wait`, so an empty operation carries it.
    fn fail_connect(&mut self, slot: u32, error: i32) {
        self.streams.slot(slot).prepare_error = error;
        // SAFETY: the entry holds no address.
        unsafe { self.push_stream(Kind::Connect, slot, opcode::Nop::new().build()) };
    }

    /// Socket or option of a direct connect.
    pub(super) fn stream_prepared(&mut self, data: UserData, completion: Completion) {
        let Some(stream) = self.streams.of_operation(data) else {
            self.queue.stats.late_completions += 1;
            return;
        };
        stream.operations -= 1;
        if data.kind == Kind::Socket && completion.result < 0 {
            stream.prepare_error = -completion.result;
        }
        self.finish_if_closed(data.slot);
    }

    pub(super) fn connected(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.of_operation(data) else {
            self.queue.stats.late_completions += 1;
            return;
        };
        stream.operations -= 1;
        stream.address = None;
        if stream.phase == Phase::Closing {
            self.queue.stats.late_completions += 1;
            self.finish_if_closed(data.slot);
            return;
        }
        let id = StreamId { slot: data.slot, generation: data.generation };
        let token = stream.token;
        let error = match stream.prepare_error {
            0 if completion.result < 0 => -completion.result,
            error => error,
        };
        let result = if error == 0 {
            stream.phase = Phase::Open;
            self.streams.unsettle(data.slot);
            Ok(())
        } else {
            self.close_stream(id, false);
            Err(error)
        };
        events.push(Event::Connected { token, stream: id, result });
    }

    /// Ends a stream for its owner: cancels what runs and closes the socket. The slot follows when all has completed.
    pub(super) fn close_stream(&mut self, id: StreamId, reset: bool) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let connecting = stream.phase == Phase::Connecting;
        stream.phase = Phase::Closing;
        // What the running send points to stays; the rest goes now, and its buffers with it.
        stream.queue.truncate(stream.in_flight);
        stream.queued = 0;
        let armed = stream.receiving == Receiving::Armed;
        let sending = stream.in_flight > 0;
        let handle = std::mem::replace(&mut stream.handle, Handle::None);
        let prepared = stream.prepare_error == 0;
        if armed {
            self.cancel_stream_operation(id.slot, Kind::StreamReceive);
        }
        if sending {
            self.cancel_stream_operation(id.slot, Kind::StreamSend);
        }
        if connecting && self.streams.slot(id.slot).address.is_some() {
            self.cancel_stream_operation(id.slot, Kind::Connect);
        }
        match handle {
            Handle::None => {}
            Handle::Descriptor(descriptor) => {
                if reset {
                    socket::linger_reset(&descriptor);
                }
                let entry = opcode::Close::new(types::Fd(descriptor.into_raw_fd())).build();
                // SAFETY: the entry holds no address; the descriptor was ours and is forgotten here.
                unsafe { self.push_stream(Kind::StreamClose, id.slot, entry) };
            }
            Handle::Direct if !prepared => {}
            Handle::Direct => {
                if reset {
                    let entry = Self::option(id.slot, libc::SOL_SOCKET, libc::SO_LINGER, &RESET);
                    // SAFETY: the value is static.
                    unsafe { self.push_stream(Kind::StreamShutdown, id.slot, entry) };
                }
                let entry = opcode::Close::new(types::Fixed(id.slot)).build();
                // SAFETY: the entry holds no address.
                unsafe { self.push_stream(Kind::StreamClose, id.slot, entry) };
            }
        }
        self.finish_if_closed(id.slot);
    }

    pub(super) fn cancel_stream_operation(&mut self, slot: u32, target: Kind) {
        let stream = self.streams.slot(slot);
        stream.operations += 1;
        let generation = stream.generation;
        self.queue.cancel(UserData::new(target, generation, slot), UserData::new(Kind::StreamCancel, generation, slot));
    }

    /// A cancellation was carried out, or found nothing.
    pub(super) fn stream_cancelled(&mut self, data: UserData, completion: Completion) {
        let Some(stream) = self.streams.of_operation(data) else {
            self.queue.stats.late_completions += 1;
            return;
        };
        stream.operations -= 1;
        let connect_runs = stream.phase == Phase::Closing && stream.address.is_some();
        if connect_runs && completion.result == -libc::ENOENT && stream.operations > 0 {
            // The connect still waited for the link before it; try again, or it would hold the slot for minutes.
            self.cancel_stream_operation(data.slot, Kind::Connect);
        }
        self.finish_if_closed(data.slot);
    }

    pub(super) fn stream_operation_ended(&mut self, data: UserData) {
        let Some(stream) = self.streams.of_operation(data) else {
            self.queue.stats.late_completions += 1;
            return;
        };
        stream.operations -= 1;
        let closed = data.kind == Kind::StreamClose;
        self.finish_if_closed(data.slot);
        if closed && self.accept_retry.take().is_some() {
            // A file descriptor is free again.
            self.rearm_listeners();
        }
    }

    pub(super) fn finish_if_closed(&mut self, slot: u32) {
        let stream = self.streams.slot(slot);
        if stream.phase == Phase::Closing && stream.operations == 0 {
            self.streams.release(slot);
        }
    }

    /// Turns what was asked of streams since the last turn into operations.
    pub(super) fn settle_streams(&mut self) {
        let mut unsettled = std::mem::take(&mut self.streams.unsettled);
        for slot in unsettled.drain(..) {
            let stream = self.streams.slot(slot);
            stream.unsettled = false;
            if stream.phase == Phase::Open {
                self.settle_receive(slot);
                self.settle_send(slot);
            }
        }
        // Settling unsettles nothing, so the emptied list can be kept for its memory.
        self.streams.unsettled = unsettled;
    }
}
