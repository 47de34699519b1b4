//! Owns how plaintext is cut into records, and where those are written.
//!
//! The content is copied once by us where many small pieces make one record, and never where one piece makes records; the
//! library copies it into the record it seals. A full record with all that is around it fills a 16 KiB block, and four of
//! them one of 64 KiB: sizes that `spooky_uring::ChunkMut` takes from its free list.

use crate::http::Output;
use rustls::unbuffered::{EncryptError, WriteTraffic};
use spooky_uring::ChunkMut;

/// What a record has beside its content, at most: header 5, and in TLS 1.2 nonce 8 and tag 16, in TLS 1.3 type 1 and tag 16.
pub(super) const OVERHEAD: usize = 32;

/// Most content of one record.
const CONTENT: usize = (16 << 10) - OVERHEAD;

/// Records that share a block.
const BLOCK: usize = 4 * (CONTENT + OVERHEAD);

/// Pieces of this size are sealed where they stand; smaller ones are gathered as long as more follow. A further record costs
/// about what a copy of this size does, on both ends.
const DIRECT: usize = 4 << 10;

/// Content up to this size is sealed behind what the output gathers, without a block of its own.
const SMALL: usize = 480;

const _: () = assert!(BLOCK == 64 << 10 && CONTENT + OVERHEAD == 16 << 10, "the blocks of the free list are used up");

/// Seals everything that is in `plain`.
pub(super) fn all<D>(
    writer: &mut WriteTraffic<'_, D>,
    plain: &mut Output,
    out: &mut Output,
) -> Result<(), EncryptError> {
    let mut sealer = Sealer { writer, out, block: ChunkMut::default(), written: 0, left: plain.len() };
    let mut gathered = ChunkMut::default();
    let mut filled = 0;
    while let Some(mut chunk) = plain.pop() {
        if filled > 0 && chunk.len() >= DIRECT {
            sealer.record(&gathered[..filled])?;
            filled = 0;
        }
        while filled == 0 && (chunk.len() >= DIRECT || plain.is_empty() && !chunk.is_empty()) {
            let most = chunk.len().min(CONTENT);
            sealer.record(&chunk[..most])?;
            chunk.advance(most);
        }
        while !chunk.is_empty() {
            if gathered.is_empty() {
                gathered = ChunkMut::zeroed(CONTENT.min(chunk.len() + plain.len()));
            }
            // Copy: small pieces become one record.
            let most = chunk.len().min(gathered.len() - filled);
            gathered[filled..filled + most].copy_from_slice(&chunk[..most]);
            chunk.advance(most);
            filled += most;
            if filled == gathered.len() {
                sealer.record(&gathered)?;
                filled = 0;
            }
        }
    }
    if filled > 0 {
        sealer.record(&gathered[..filled])?;
    }
    sealer.flush();
    Ok(())
}

struct Sealer<'a, 'w, D> {
    writer: &'a mut WriteTraffic<'w, D>,
    out: &'a mut Output,
    /// Records are written here, one behind the other.
    block: ChunkMut,
    written: usize,
    /// Content that is still to come.
    left: usize,
}

impl<D> Sealer<'_, '_, D> {
    fn record(&mut self, content: &[u8]) -> Result<(), EncryptError> {
        let needed = content.len() + OVERHEAD;
        let left = self.left;
        self.left -= content.len();
        if content.len() <= SMALL && left == content.len() && self.block.len() - self.written < needed {
            self.flush();
            let writer = &mut *self.writer;
            return into_gathered(self.out, needed, |room| writer.encrypt(content, room));
        }
        if self.block.len() - self.written < needed {
            self.flush();
            let records = left.div_ceil(CONTENT);
            self.block = ChunkMut::zeroed((left + records * OVERHEAD).clamp(needed, BLOCK));
        }
        match self.writer.encrypt(content, &mut self.block[self.written..]) {
            Ok(written) => self.written += written,
            // A message of the library goes first: a key update, once in millions of records.
            Err(EncryptError::InsufficientSize(size)) => {
                self.flush();
                self.block = ChunkMut::zeroed(size.required_size);
                self.written = self.writer.encrypt(content, &mut self.block)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn flush(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.out.push(block.freeze(self.written));
        self.written = 0;
    }
}

/// Lets `write` append to what the output gathers: first with `room` bytes, then with as many as it asked for.
pub(super) fn into_gathered(
    out: &mut Output,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), EncryptError> {
    let gathered = out.gather();
    let start = gathered.len();
    gathered.resize(start + room, 0);
    let mut written = write(&mut gathered[start..]);
    if let Err(EncryptError::InsufficientSize(size)) = written {
        gathered.resize(start + size.required_size, 0);
        written = write(&mut gathered[start..]);
    }
    gathered.truncate(start + *written.as_ref().unwrap_or(&0));
    written.map(|_| ())
}
