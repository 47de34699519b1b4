//! One QUIC connection with its HTTP/3 streams: packets in, requests out, responses in, trains out.

use super::buffers::{Buffers, Piece};
use super::response::Head;
use crate::quic::send_packet;
use quiche::h3::{self, NameValue};
use spooky_uring::chunk::{Chunk, ChunkMut};
use spooky_uring::io::{Io, Transmit, UdpId};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

/// Request body bytes taken at once.
const UPLOAD_PIECE: usize = 64 << 10;

/// Urgency of RFC 9218's default, but incremental: see [`crate::quic`].
const PRIORITY: h3::Priority = h3::Priority::new(3, true);

/// How much one connection sends before the others have their turn.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Packets in one train: 44 × 1,452 bytes fill a slot of 64 KiB.
    pub packets: usize,
    /// Trains in one turn.
    pub trains: usize,
}

/// What a stream asks for.
pub enum Ask {
    /// A new request: the head for the origin, whether a body follows, whether it was HEAD, whether it is chunked.
    Request {
        /// The stream.
        stream: u64,
        /// Request line and fields.
        head: Vec<u8>,
        /// A body follows.
        body: bool,
        /// It has no content-length.
        chunked: bool,
        /// It was HEAD.
        to_head: bool,
    },
    /// Body bytes wait in QUIC.
    Body(u64),
    /// The request is whole.
    End(u64),
    /// The client gave up.
    Reset(u64),
}

/// Response parts that QUIC has not yet taken.
#[derive(Default)]
pub struct Outbox {
    /// Head that could not be sent.
    pub head: Option<Head>,
    /// An informational head was sent.
    pub informed: bool,
    /// The final head was sent.
    pub headed: bool,
    /// Body.
    pub body: VecDeque<Chunk>,
    /// Bytes in `body`.
    pub bytes: usize,
    /// No more body comes.
    pub complete: bool,
}

/// One connection.
pub struct Downstream {
    quic: quiche::Connection<Buffers>,
    h3: Option<h3::Connection>,
    /// Tells uses of one slot apart; part of our connection ID.
    pub tag: u32,
    /// The connection ID the client made up for its first packets.
    pub first_id: Vec<u8>,
    /// Packets came, or a body was drained, since HTTP/3 was last polled.
    pub news: bool,
    /// Already in the list of connections to act on.
    pub listed: bool,
    /// The earliest timer there is for this connection.
    pub armed: Option<Instant>,
    /// A packet that did not fit its train.
    carry: Vec<u8>,
    /// Receiver and sender of the last packet.
    path: Option<(SocketAddr, SocketAddr)>,
    /// Streams with something in their outbox, by exchange.
    pub blocked: Vec<usize>,
    /// Its exchanges.
    pub exchanges: Vec<usize>,
}

impl Downstream {
    /// Wraps an accepted connection.
    pub fn new(quic: quiche::Connection<Buffers>, tag: u32, first_id: Vec<u8>) -> Self {
        Self {
            quic,
            h3: None,
            tag,
            first_id,
            news: false,
            listed: false,
            armed: None,
            carry: Vec::new(),
            path: None,
            blocked: Vec::new(),
            exchanges: Vec::new(),
        }
    }

    /// Takes one datagram.
    pub fn receive(&mut self, packet: &mut [u8], from: SocketAddr, to: SocketAddr) {
        let _ = self.quic.recv(packet, quiche::RecvInfo { from, to });
        self.news = true;
    }

    /// Whether nothing is left to do.
    pub fn is_closed(&self) -> bool {
        self.quic.is_closed()
    }

    /// When [`Downstream::on_timer`] is wanted.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.quic.timeout_instant()
    }

    /// The deadline passed.
    pub fn on_timer(&mut self) {
        self.quic.on_timeout();
    }

    /// The next thing a client asks for; only after news.
    pub fn next_ask(&mut self, settings: &h3::Config) -> Option<Ask> {
        if !self.news {
            return None;
        }
        if self.h3.is_none() && self.quic.is_established() {
            self.h3 = h3::Connection::with_transport(&mut self.quic, settings).ok();
        }
        while let Some(h3) = &mut self.h3 {
            match h3.poll(&mut self.quic) {
                Ok((stream, h3::Event::Headers { list, more_frames })) => {
                    return Some(request(stream, &list, more_frames));
                }
                Ok((stream, h3::Event::Data)) => return Some(Ask::Body(stream)),
                Ok((stream, h3::Event::Finished)) => return Some(Ask::End(stream)),
                Ok((stream, h3::Event::Reset(_))) => return Some(Ask::Reset(stream)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.news = false;
        None
    }

    /// Request body bytes, if there are any.
    pub fn read(&mut self, stream: u64) -> Option<Chunk> {
        let h3 = self.h3.as_mut()?;
        let waiting = self.quic.stream_readable_len(stream, UPLOAD_PIECE);
        if waiting == 0 {
            return None;
        }
        let mut piece = ChunkMut::zeroed(waiting.min(UPLOAD_PIECE));
        let len = h3.recv_body(&mut self.quic, stream, &mut piece).ok()?;
        // The end of a stream shows only in a poll after its last byte was read.
        self.news = true;
        Some(piece.freeze(len))
    }

    /// Sends an informational head, if there is room: it may be left out.
    pub fn inform(&mut self, stream: u64, head: &Head, outbox: &mut Outbox) {
        let Some(h3) = &mut self.h3 else {
            return;
        };
        let fields = head.fields();
        let sent = if outbox.informed {
            h3.send_additional_headers(&mut self.quic, stream, &fields, false, false)
        } else {
            h3.send_response_with_priority(&mut self.quic, stream, &fields, &PRIORITY, false)
        };
        outbox.informed |= sent.is_ok();
    }

    /// Sends what the outbox holds; true: all of the response is with QUIC (or nobody wants it).
    pub fn send(&mut self, stream: u64, outbox: &mut Outbox) -> bool {
        let Some(h3) = &mut self.h3 else {
            return true;
        };
        if let Some(head) = outbox.head.take() {
            let end = outbox.complete && outbox.body.is_empty();
            let fields = head.fields();
            let sent = if outbox.informed {
                h3.send_additional_headers(&mut self.quic, stream, &fields, false, end)
            } else {
                h3.send_response_with_priority(&mut self.quic, stream, &fields, &PRIORITY, end)
            };
            match sent {
                Ok(()) => outbox.headed = true,
                Err(h3::Error::StreamBlocked) => {
                    outbox.head = Some(head);
                    return false;
                }
                Err(_) => return true,
            }
            if end {
                return true;
            }
        }
        while let Some(front) = outbox.body.pop_front() {
            let len = front.len();
            let end = outbox.complete && outbox.body.is_empty();
            let mut piece = Piece(front);
            match h3.send_body_zc(&mut self.quic, stream, &mut piece, end) {
                Ok(sent) if sent < len => {
                    // The remainder is left in the argument.
                    outbox.bytes -= sent;
                    outbox.body.push_front(piece.0);
                    return false;
                }
                Ok(_) => outbox.bytes -= len,
                Err(h3::Error::Done | h3::Error::StreamBlocked) => {
                    outbox.body.push_front(piece.0);
                    return false;
                }
                Err(_) => return true,
            }
            if end {
                return true;
            }
        }
        // The end came after the last bytes had gone.
        outbox.complete
            && !matches!(
                h3.send_body(&mut self.quic, stream, b"", true),
                Err(h3::Error::Done | h3::Error::StreamBlocked)
            )
    }

    /// Ends a stream badly, both ways.
    pub fn reset(&mut self, stream: u64, code: u64) {
        for direction in [quiche::Shutdown::Read, quiche::Shutdown::Write] {
            let _ = self.quic.stream_shutdown(stream, direction, code);
        }
    }

    /// Tells the client to stop sending a body.
    pub fn stop(&mut self, stream: u64, code: u64) {
        let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Read, code);
    }

    /// Sends what QUIC wants to send, in trains of equal packets; false: more waits for another turn.
    pub fn flush<I: Io>(&mut self, io: &mut I, socket: UdpId, burst: Burst) -> bool {
        let payload = self.quic.max_send_udp_payload_size();
        for _ in 0..burst.trains {
            let Some(mut slot) = io.udp_slot() else {
                return false;
            };
            let mut len = self.carry.len();
            let mut segment = len;
            let mut packets = usize::from(len > 0);
            slot[..len].copy_from_slice(&self.carry);
            self.carry.clear();
            let mut full = true;
            while packets < burst.packets && len + payload <= slot.len() {
                let Some((size, info)) = send_packet(&mut self.quic, &mut slot[len..len + payload]) else {
                    full = false;
                    break;
                };
                self.path = Some((info.to, info.from));
                if packets > 0 && size > segment {
                    // A longer packet cannot join this train: it begins the next one.
                    self.carry.extend_from_slice(&slot[len..len + size]);
                    break;
                }
                if packets == 0 {
                    segment = size;
                }
                len += size;
                packets += 1;
                if size < segment {
                    break;
                }
            }
            if len == 0 {
                return true;
            }
            let Some((to, from)) = self.path else {
                return true;
            };
            io.udp_send(
                socket,
                slot,
                Transmit {
                    len,
                    // A segment is at most the payload size, which fits.
                    segment: segment as u16,
                    to,
                    from: Some(from),
                },
            );
            if !full && self.carry.is_empty() {
                return true;
            }
        }
        false
    }
}

/// The request as the origin gets it. Trusts its clients: it is the floor's, not the proxy's, translation.
fn request(stream: u64, list: &[h3::Header], body: bool) -> Ask {
    let find = |name: &[u8]| list.iter().find(|field| field.name() == name).map_or(&b""[..], |field| field.value());
    let method = find(b":method");
    let sized = !find(b"content-length").is_empty();
    let mut head = Vec::with_capacity(512);
    for part in [method, b" ", find(b":path"), b" HTTP/1.1\r\nhost: ", find(b":authority"), b"\r\n"] {
        head.extend_from_slice(part);
    }
    for field in list.iter().filter(|field| field.name().first() != Some(&b':')) {
        for part in [field.name(), b": ", field.value(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    if body && !sized {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ask::Request { stream, head, body, chunked: body && !sized, to_head: method == b"HEAD" }
}
