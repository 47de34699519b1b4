//! Reads one HTTP/1.1 response after another from a stream of chunks, without copying bodies.
//!
//! Trusts its origin: it is the floor's, not the proxy's, parser.

use quiche::h3::HeaderRef;
use spooky_uring::chunk::{Chunk, Lease};

const FIELDS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A response head as HTTP/3 sends it: `:status` and the end-to-end fields, names in lower case, in one buffer.
#[derive(Debug)]
pub struct Head {
    bytes: Vec<u8>,
    /// Where a field begins, its name ends, its value ends.
    places: Vec<[usize; 3]>,
    /// Whether this is a 1xx.
    pub informational: bool,
}

impl Head {
    /// A head with nothing but a status.
    pub fn new(status: u16) -> Self {
        let mut head =
            Self { bytes: Vec::with_capacity(512), places: Vec::with_capacity(16), informational: status < 200 };
        let digits = [100, 10, 1].map(|unit| b'0' + (status / unit % 10) as u8);
        head.push(b":status", &digits);
        head
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend(name.iter().map(u8::to_ascii_lowercase));
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.places.push([start, middle, self.bytes.len()]);
    }

    /// The fields.
    pub fn fields(&self) -> Vec<HeaderRef<'_>> {
        self.places
            .iter()
            .map(|&[start, middle, end]| HeaderRef::new(&self.bytes[start..middle], &self.bytes[middle..end]))
            .collect()
    }
}

/// What came of the bytes.
#[derive(Debug)]
pub enum Part {
    /// A head.
    Head(Head),
    /// Body bytes.
    Body(Chunk),
    /// The response is whole.
    End,
}

/// The origin did not speak HTTP/1.1.
#[derive(Debug)]
pub struct Nonsense;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes left of a body with content-length.
    Sized(u64),
    /// In the line with the size of the next chunk, or the empty line before it.
    ChunkSize,
    /// Bytes left of a chunk.
    ChunkData(u64),
    /// After the last chunk: trailers up to the empty line.
    Trailers,
    /// Everything up to the end of the connection.
    UntilEnd,
}

/// The reader of one upstream connection.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// A head or a line that came in pieces.
    partial: Vec<u8>,
    /// Whether the connection may be used again after this response.
    pub reusable: bool,
}

impl Reader {
    /// Waits for a head.
    pub fn new() -> Self {
        Self { state: State::Head, partial: Vec::new(), reusable: true }
    }

    /// Takes bytes; `to_head`: the request was HEAD. Returns the parts they make.
    pub fn receive(&mut self, lease: Lease, to_head: bool, parts: &mut Vec<Part>) -> Result<(), Nonsense> {
        if self.state != State::Head {
            return self.receive_body(lease.into_chunk(), to_head, parts);
        }
        if self.partial.is_empty() {
            return match self.parse_head(&lease, to_head, parts)? {
                Some(len) => {
                    let mut rest = lease.into_chunk();
                    rest.advance(len);
                    self.receive_body(rest, to_head, parts)
                }
                None => self.keep(&lease),
            };
        }
        // A head in pieces is rare: it, and what follows in the same pieces, is copied.
        self.keep(&lease)?;
        let bytes = std::mem::take(&mut self.partial);
        match self.parse_head(&bytes, to_head, parts)? {
            Some(len) => {
                let mut rest = Chunk::from_vec(bytes);
                rest.advance(len);
                self.receive_body(rest, to_head, parts)
            }
            None => {
                self.partial = bytes;
                Ok(())
            }
        }
    }

    /// The origin closed; true: that ends a body.
    pub fn receive_end(&mut self) -> bool {
        self.reusable = false;
        std::mem::replace(&mut self.state, State::Head) == State::UntilEnd
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Nonsense> {
        // Body bytes may come with the end of a head: only what was there before is judged.
        if self.partial.len() > HEAD_BYTES_MAX {
            return Err(Nonsense);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Parses a head; its length, or `None` if it is not whole.
    fn parse_head(&mut self, bytes: &[u8], to_head: bool, parts: &mut Vec<Part>) -> Result<Option<usize>, Nonsense> {
        let mut storage = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut storage);
        let len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Nonsense),
        };
        let status = response.code.ok_or(Nonsense)?;
        let mut head = Head::new(status);
        let (mut sized, mut chunked) = (None, false);
        for field in response.headers.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("transfer-encoding") {
                chunked = true;
            } else if is("connection") {
                self.reusable &= !field.value.eq_ignore_ascii_case(b"close");
            } else if !is("keep-alive") && !is("proxy-connection") && !is("upgrade") {
                if is("content-length") {
                    sized = std::str::from_utf8(field.value).ok().and_then(|text| text.parse().ok());
                }
                head.push(field.name.as_bytes(), field.value);
            }
        }
        self.state = if head.informational {
            State::Head
        } else if to_head || status == 204 || status == 304 {
            State::Sized(0)
        } else if chunked {
            State::ChunkSize
        } else {
            sized.map_or(State::UntilEnd, State::Sized)
        };
        parts.push(Part::Head(head));
        Ok(Some(len))
    }

    fn receive_body(&mut self, mut bytes: Chunk, to_head: bool, parts: &mut Vec<Part>) -> Result<(), Nonsense> {
        loop {
            match self.state {
                State::Head => {
                    // What follows an informational head; anything else was not asked for.
                    return match bytes.is_empty() {
                        true => Ok(()),
                        false => self.receive(Lease::from_vec(bytes.to_vec()), to_head, parts),
                    };
                }
                State::UntilEnd => {
                    if !bytes.is_empty() {
                        parts.push(Part::Body(bytes));
                    }
                    return Ok(());
                }
                State::Sized(left) => {
                    let left = left - take(&mut bytes, left, parts);
                    self.state = State::Sized(left);
                    if left == 0 {
                        return self.finish(&bytes, parts);
                    }
                    return Ok(());
                }
                State::ChunkData(left) => {
                    let left = left - take(&mut bytes, left, parts);
                    if left > 0 {
                        self.state = State::ChunkData(left);
                        return Ok(());
                    }
                    self.state = State::ChunkSize;
                }
                State::ChunkSize | State::Trailers => {
                    let Some(line) = self.take_line(&mut bytes)? else {
                        return Ok(());
                    };
                    if self.state == State::Trailers {
                        if line.is_empty() {
                            return self.finish(&bytes, parts);
                        }
                    } else if !line.is_empty() {
                        self.state = match chunk_size(&line)? {
                            0 => State::Trailers,
                            size => State::ChunkData(size),
                        };
                    }
                }
            }
        }
    }

    fn finish(&mut self, rest: &[u8], parts: &mut Vec<Part>) -> Result<(), Nonsense> {
        self.state = State::Head;
        parts.push(Part::End);
        // Bytes that nobody asked for.
        if rest.is_empty() { Ok(()) } else { Err(Nonsense) }
    }

    /// A line without its end, once it is whole.
    fn take_line(&mut self, bytes: &mut Chunk) -> Result<Option<Vec<u8>>, Nonsense> {
        let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.keep(bytes)?;
            return Ok(None);
        };
        let front = bytes.split_to(at + 1);
        self.keep(&front)?;
        let mut line = std::mem::take(&mut self.partial);
        line.truncate(line.trim_ascii_end().len());
        Ok(Some(line))
    }
}

/// Moves up to `left` bytes into a body part; how many.
fn take(bytes: &mut Chunk, left: u64, parts: &mut Vec<Part>) -> u64 {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    if len > 0 {
        parts.push(Part::Body(bytes.split_to(len)));
    }
    len as u64
}

fn chunk_size(line: &[u8]) -> Result<u64, Nonsense> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line);
    let text = std::str::from_utf8(digits).map_err(|_| Nonsense)?;
    u64::from_str_radix(text.trim(), 16).map_err(|_| Nonsense)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `step` bytes; the body, and how many responses ended.
    fn read(wire: &[u8], step: usize) -> (Vec<u8>, usize) {
        let (mut reader, mut parts) = (Reader::new(), Vec::new());
        for piece in wire.chunks(step) {
            reader.receive(Lease::from_vec(piece.to_vec()), false, &mut parts).unwrap();
        }
        let (mut body, mut ends) = (Vec::new(), 0);
        for part in parts {
            match part {
                Part::Body(bytes) => body.extend_from_slice(&bytes),
                Part::End => ends += 1,
                Part::Head(_) => {}
            }
        }
        (body, ends)
    }

    #[test]
    fn bodies_are_the_same_however_the_bytes_are_cut() {
        let wires: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        ];
        for wire in wires {
            for step in 1..=wire.len() {
                assert_eq!(read(wire, step), (b"hello world".to_vec(), 1), "step {step}");
            }
        }
    }

    #[test]
    fn a_head_in_two_pieces_may_bring_a_full_buffer_of_body() {
        let (mut reader, mut parts) = (Reader::new(), Vec::new());
        let (front, mut rest) = (b"HTTP/1.1 200 OK\r\nContent-Length: ".to_vec(), b"100000\r\n\r\n".to_vec());
        rest.resize(65_536, b'x');
        reader.receive(Lease::from_vec(front), false, &mut parts).unwrap();
        reader.receive(Lease::from_vec(rest), false, &mut parts).unwrap();
        assert!(matches!(&parts[..], [Part::Head(_), Part::Body(body)] if body.len() == 65_536 - 10));
    }

    #[test]
    fn bytes_after_the_response_are_an_error() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore";
        let mut parts = Vec::new();
        assert!(Reader::new().receive(Lease::from_vec(wire.to_vec()), false, &mut parts).is_err());
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let (mut reader, mut parts) = (Reader::new(), Vec::new());
        let wire = b"HTTP/1.1 200 OK\r\n\r\nall of it";
        reader.receive(Lease::from_vec(wire.to_vec()), false, &mut parts).unwrap();
        assert!(reader.receive_end());
        assert!(!reader.reusable);
    }
}
