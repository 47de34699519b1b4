//! Owns the way in: what the transport and its HTTP/3 layer say becomes events.

use super::code;
use super::connection::Connection;
use super::glitches::Glitch;
use super::streams::{Receiving, Sending, Stream};
use crate::http::normalize::{self, WireRequest};
use crate::http::{Event, Method, NO_OWNER, Refusal, RequestHead, Scheme, StreamRef, WireVersion};
use crate::limits::quic::BODY_PIECE_BYTES;
use bytes::BufMut as _;
use quiche::Shutdown;
use quiche::h3::{self, NameValue as _};
use spooky_uring::Chunk;

/// An event and the stream it is about.
type Told = (StreamRef, Event<Box<RequestHead>>);

impl Connection {
    /// What happened next. Call until `None` after packets came, after a deadline, and after [`Self::grant`];
    /// after [`Self::transmit`] there may be [`Event::Room`], which also tells that the last byte of a finished response
    /// left the queue of an owned stream.
    pub fn next_event(&mut self) -> Option<Told> {
        self.settle();
        loop {
            if let Some(told) = self.next_news() {
                return Some(told);
            }
            // The transport is asked only if packets came or a body was drained: asking walks over all readable streams.
            if self.poll {
                if let Some(told) = self.poll_http() {
                    return Some(told);
                }
                continue;
            }
            if let Some(told) = self.read_body() {
                return Some(told);
            }
            if !self.poll && self.news.is_empty() {
                if self.account_taken() {
                    // Tells every stream.
                    self.settle();
                    continue;
                }
                return None;
            }
        }
    }

    /// Whether [`Self::next_event`] may have something.
    pub fn has_events(&self) -> bool {
        self.fresh || self.poll || !self.news.is_empty() || !self.reading.is_empty()
    }

    /// Remembers whom events of this stream are for.
    pub fn set_owner(&mut self, stream: u64, owner: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.owner = owner;
        }
    }

    /// Allows so many more body bytes as events: the only backpressure there is.
    pub fn grant(&mut self, stream: u64, bytes: usize) {
        let id = stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.receiving == Receiving::Closed {
            return;
        }
        stream.credit = stream.credit.saturating_add(bytes);
        if stream.readable && !stream.in_reading && stream.credit > 0 {
            stream.in_reading = true;
            self.reading.push_back(id);
        }
    }

    /// Tells the client that no more of the request is wanted: `NO_ERROR` behind a complete response, else why.
    pub fn stop(&mut self, stream: u64, code: u64) {
        let id = stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.receiving == Receiving::Open {
            stream.receiving = Receiving::Closed;
            stream.readable = false;
            // `Done`: the client has ended it already.
            let _ = self.quic.stream_shutdown(id, Shutdown::Read, code);
            self.glitches.refused(self.shared.settings.max_stream_data);
        }
        stream.reset = None;
        self.forget_if_over(id);
    }

    /// Puts a stream with an untold event on the list.
    pub(super) fn tell(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.in_news, true)
        {
            self.news.push_back(id);
        }
    }

    fn next_news(&mut self) -> Option<Told> {
        loop {
            let id = *self.news.front()?;
            let Some(stream) = self.streams.get_mut(&id) else {
                self.news.pop_front();
                continue;
            };
            let told = StreamRef { stream: id, owner: stream.owner };
            let event = if let Some(code) = stream.reset.take() {
                Event::Reset(code)
            } else if let Some(code) = stream.stopped.take() {
                Event::Stop(code)
            } else if std::mem::take(&mut stream.room) {
                Event::Room
            } else {
                stream.in_news = false;
                self.news.pop_front();
                self.forget_if_over(id);
                continue;
            };
            return Some((told, event));
        }
    }

    /// Asks the HTTP/3 layer once. `None`: look again, or nothing is left if `poll` is off.
    fn poll_http(&mut self) -> Option<Told> {
        let (Some(http), quic) = (&mut self.http, &mut self.quic) else {
            self.poll = false;
            return None;
        };
        match http.poll(quic) {
            Ok((id, h3::Event::Headers { list, more_frames })) => {
                if self.streams.contains_key(&id) {
                    self.take_trailers(id, &list)
                } else {
                    self.take_head(id, &list, !more_frames)
                }
            }
            Ok((id, h3::Event::Data)) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.readable = true;
                    if stream.credit > 0 && !stream.in_reading {
                        stream.in_reading = true;
                        self.reading.push_back(id);
                    }
                }
                None
            }
            Ok((id, h3::Event::Finished)) => self.take_end(id),
            Ok((id, h3::Event::Reset(code))) => {
                self.shared.counters.client_resets.add(1);
                self.take_reset(id, code)
            }
            Ok((id, h3::Event::PriorityUpdate)) => {
                // Taken so that the layer does not keep it; streams share the connection evenly for now.
                let _ = http.take_last_priority_update(id);
                None
            }
            Ok((_, h3::Event::GoAway)) => None,
            Err(h3::Error::Done) => {
                self.poll = false;
                None
            }
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// A connection error: the layer closes for most of them itself.
    fn fail(&mut self, error: h3::Error) {
        self.poll = false;
        self.fresh = true;
        if !self.is_closing() {
            self.close(wire_code(error), b"");
        }
        // Tells every stream.
        self.settle();
    }

    fn take_head(&mut self, id: u64, list: &[h3::Header], end: bool) -> Option<Told> {
        self.next_request = self.next_request.max(id + 4);
        self.glitches.head(wire_bytes(list));
        if self.rejects(id) {
            self.shared.counters.requests_rejected.add(1);
            self.refuse(id, code::REQUEST_REJECTED);
            return None;
        }
        let wire = WireRequest {
            scheme: Scheme::Https,
            line: None,
            fields: list.iter().map(|field| (field.name(), field.value())),
        };
        let told = StreamRef { stream: id, owner: NO_OWNER };
        let fields = list.iter().filter(|field| !field.name().starts_with(b":"));
        let bytes = fields.clone().map(|field| field.name().len() + field.value().len()).sum();
        let mut head = RequestHead::with_room(fields.count(), bytes);
        match normalize::request_into(WireVersion::H3, wire, &self.shared.settings.head, &mut head) {
            Ok(()) => {}
            Err(refusal) if refusal.malformed => {
                self.shared.counters.requests_malformed.add(1);
                self.glitches.charge(Glitch::Malformed, 1);
                self.refuse(id, code::MESSAGE_ERROR);
                return Some((told, Event::Refused(refusal)));
            }
            Err(refusal) => {
                if refusal.status == 431 {
                    self.glitches.large_head();
                }
                // It is answered: the response side opens, of the request nothing more is wanted.
                let stream = Stream::new(None, end, is_head(list));
                self.streams.insert(id, stream);
                self.stop(id, code::NO_ERROR);
                return Some((told, Event::Refused(refusal)));
            }
        }
        if end && head.content_length.is_some_and(|length| length > 0) {
            self.shared.counters.request_length_mismatches.add(1);
            self.glitches.charge(Glitch::Malformed, 1);
            self.refuse(id, code::MESSAGE_ERROR);
            let refusal = Refusal::new(crate::http::Reason::LengthMismatch);
            return Some((told, Event::Refused(refusal)));
        }
        self.shared.counters.requests.add(1);
        let stream = Stream::new(head.content_length, end, head.method == Method::Head);
        self.streams.insert(id, stream);
        if self.stops_seen > 0 {
            // Maybe this one was stopped before it was known.
            self.stop_if_told(id);
        }
        let head = Box::new(head);
        Some((told, Event::Head { head, end }))
    }

    fn take_trailers(&mut self, id: u64, list: &[h3::Header]) -> Option<Told> {
        self.glitches.head(wire_bytes(list));
        let stream = self.streams.get(&id)?;
        if stream.receiving == Receiving::Closed {
            return None;
        }
        let fields = list.iter().map(|field| (field.name(), field.value()));
        match normalize::trailers(WireVersion::H3, fields, &self.shared.settings.head) {
            Ok(fields) => {
                let told = StreamRef { stream: id, owner: stream.owner };
                Some((told, Event::Trailers(fields)))
            }
            Err(_) => {
                self.shared.counters.requests_malformed.add(1);
                self.break_off(id, code::MESSAGE_ERROR)
            }
        }
    }

    fn take_end(&mut self, id: u64) -> Option<Told> {
        let Some(stream) = self.streams.get_mut(&id) else {
            // A stream that ended without a head; or one that is over, whose end nobody waits for.
            if self.is_unseen(id) {
                self.shared.counters.requests_incomplete.add(1);
                self.glitches.charge(Glitch::Malformed, 1);
                self.refuse(id, code::REQUEST_INCOMPLETE);
            }
            return None;
        };
        if stream.receiving == Receiving::Closed {
            return None;
        }
        if stream.request_left.is_some_and(|left| left > 0) {
            self.shared.counters.request_length_mismatches.add(1);
            if stream.sending != Sending::Idle {
                // A client that ends its upload early because it was answered still gets the whole answer.
                stream.receiving = Receiving::Closed;
                stream.readable = false;
                let told = StreamRef { stream: id, owner: stream.owner };
                return Some((told, Event::Reset(code::MESSAGE_ERROR)));
            }
            return self.break_off(id, code::MESSAGE_ERROR);
        }
        stream.receiving = Receiving::Closed;
        stream.readable = false;
        let told = StreamRef { stream: id, owner: stream.owner };
        self.forget_if_over(id);
        Some((told, Event::End))
    }

    fn take_reset(&mut self, id: u64, code: u64) -> Option<Told> {
        self.glitches.look_away();
        let Some(stream) = self.streams.get_mut(&id) else {
            // Reset before its head was seen: our half must end too, or the transport keeps the stream.
            if self.is_unseen(id) {
                self.glitches.charge(Glitch::Resets, 1);
                self.refuse(id, code::REQUEST_CANCELLED);
            }
            return None;
        };
        stream.readable = false;
        if stream.receiving == Receiving::Closed {
            return None;
        }
        stream.receiving = Receiving::Closed;
        let told = StreamRef { stream: id, owner: stream.owner };
        if stream.sending != Sending::Closed {
            self.glitches.charge(Glitch::Resets, 1);
        }
        self.forget_if_over(id);
        Some((told, Event::Reset(code)))
    }

    /// Whether this is a request stream without a head so far. Streams we have forgotten are still on the list of
    /// closing ones as long as the transport can speak of them.
    fn is_unseen(&self, id: u64) -> bool {
        id.is_multiple_of(4) && !self.closing.contains(&id)
    }

    /// Ends both directions of a stream that nobody owns yet.
    fn refuse(&mut self, id: u64, code: u64) {
        self.next_request = self.next_request.max(id + 4);
        let _ = self.quic.stream_shutdown(id, Shutdown::Write, code);
        let _ = self.quic.stream_shutdown(id, Shutdown::Read, code);
        self.glitches.refused(self.shared.settings.max_stream_data);
        self.closing.push(id);
    }

    /// Ends both directions of a stream because the request turned out malformed.
    fn break_off(&mut self, id: u64, code: u64) -> Option<Told> {
        let stream = self.streams.get_mut(&id)?;
        let told = StreamRef { stream: id, owner: stream.owner };
        stream.receiving = Receiving::Closed;
        stream.readable = false;
        let _ = self.quic.stream_shutdown(id, Shutdown::Read, code);
        self.glitches.charge(Glitch::Malformed, 1);
        self.glitches.refused(self.shared.settings.max_stream_data);
        self.reset(id, code);
        Some((told, Event::Reset(code)))
    }

    /// Hands out body bytes of the next stream that has both bytes and credit.
    fn read_body(&mut self) -> Option<Told> {
        while let Some(&id) = self.reading.front() {
            let (Some(stream), Some(http)) = (self.streams.get_mut(&id), &mut self.http) else {
                self.reading.pop_front();
                continue;
            };
            if !stream.readable || stream.credit == 0 {
                stream.in_reading = false;
                self.reading.pop_front();
                continue;
            }
            let waiting = self.quic.stream_readable_len(id, BODY_PIECE_BYTES);
            // Even with nothing there it is asked for one byte: that re-arms the layer's event.
            let want = waiting.min(stream.credit).max(1);
            let mut bytes = Vec::with_capacity(want);
            let read = http.recv_body_buf(&mut self.quic, id, (&mut bytes).limit(want));
            // An end or trailers behind the body show only when asked again.
            self.poll = true;
            match read {
                Ok(count) => {
                    debug_assert_eq!(count, bytes.len());
                    stream.credit -= count;
                    self.glitches.body(count);
                    if let Some(left) = &mut stream.request_left {
                        let Some(rest) = left.checked_sub(count as u64) else {
                            self.shared.counters.request_length_mismatches.add(1);
                            return self.break_off(id, code::MESSAGE_ERROR);
                        };
                        *left = rest;
                    }
                    let told = StreamRef { stream: id, owner: stream.owner };
                    // One piece each in turn, so that no stream starves another.
                    self.reading.rotate_left(1);
                    return Some((told, Event::Body(Chunk::from_vec(bytes))));
                }
                Err(h3::Error::Done) => {
                    stream.readable = false;
                }
                Err(h3::Error::TransportError(quiche::Error::StreamReset(code))) => {
                    self.shared.counters.client_resets.add(1);
                    return self.take_reset(id, code);
                }
                Err(error) => {
                    self.fail(error);
                    return None;
                }
            }
        }
        None
    }

    /// Finds the streams whose responses the client wants no more of.
    pub(super) fn note_stops(&mut self, stops: u64) {
        if self.streams.is_empty() || stops == self.stops_seen {
            return;
        }
        self.stops_seen = stops;
        let ids = self.streams.keys().copied().collect::<Vec<_>>();
        for id in ids {
            self.stop_if_told(id);
        }
    }

    /// If the client wants no more of this response, drops it and says so.
    fn stop_if_told(&mut self, id: u64) {
        if let Err(quiche::Error::StreamStopped(code)) = self.quic.stream_capacity(id) {
            self.take_stop(id, code);
        }
    }

    /// The client wants no more of this response.
    pub(super) fn take_stop(&mut self, id: u64, code: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.sending == Sending::Closed {
            return;
        }
        self.shared.counters.client_stops.add(1);
        self.glitches.charge(Glitch::Resets, 1);
        stream.sending = Sending::Closed;
        stream.stopped = Some(code);
        self.waiting -= stream.sealed();
        stream.clear();
        self.tell(id);
    }
}

/// Whether the method of a head that was refused is HEAD: its answer then has no body.
fn is_head(list: &[h3::Header]) -> bool {
    list.iter().any(|field| field.name() == b":method" && field.value() == b"HEAD")
}

/// About how long a field section is on the wire: no shorter than it was.
fn wire_bytes(list: &[h3::Header]) -> usize {
    list.iter().map(|field| field.name().len() + field.value().len() + 8).sum::<usize>() + 16
}

/// The code of RFC 9114 for an error the layer reports.
fn wire_code(error: h3::Error) -> u64 {
    match error {
        h3::Error::ExcessiveLoad => code::EXCESSIVE_LOAD,
        h3::Error::IdError => code::ID_ERROR,
        h3::Error::StreamCreationError => code::STREAM_CREATION_ERROR,
        h3::Error::ClosedCriticalStream => code::CLOSED_CRITICAL_STREAM,
        // The layer reads only critical streams outside the list of requests.
        h3::Error::TransportError(quiche::Error::StreamReset(_)) => code::CLOSED_CRITICAL_STREAM,
        h3::Error::MissingSettings => code::MISSING_SETTINGS,
        h3::Error::FrameUnexpected => code::FRAME_UNEXPECTED,
        h3::Error::FrameError | h3::Error::BufferTooShort => code::FRAME_ERROR,
        h3::Error::QpackDecompressionFailed => code::QPACK_DECOMPRESSION_FAILED,
        h3::Error::SettingsError => code::SETTINGS_ERROR,
        h3::Error::MessageError => code::MESSAGE_ERROR,
        _ => code::INTERNAL_ERROR,
    }
}
