//! Traces of connections (qlog) leave the worker as access records do: a full mailbox loses a piece, which is counted and
//! ends its trace, and nobody waits. If it was the last piece, control keeps the file open to its own end: files are few.

use super::{Downkey, Worker};
use crate::h3::QlogPiece;
use crate::telemetry::kinds::QueueFull;
use spooky_uring::Io;
use spooky_uring::mailbox::{SendError, Sender};

impl<I: Io> Worker<I> {
    /// Posts what a connection's trace gathered; with `last`, its end.
    pub(super) fn post_qlog(&mut self, key: Downkey, last: bool) {
        let Some(sender) = &self.qlog else {
            return;
        };
        if let Downkey::Quic { listener, connection } = key
            && let Some(connection) = self.clients.quic(listener, connection)
            && let Some(piece) = connection.take_qlog(last, self.now)
            && let Err(lost) = post(sender, piece, &mut self.io)
        {
            connection.cut_qlog();
            self.cells.qlog_dropped_bytes.add(lost as u64);
            self.cells.full.count(QueueFull::Qlog);
        }
    }

    /// Ends every trace: before the worker's last turn ends.
    pub(super) fn flush_qlogs(&mut self) {
        if self.qlog.is_none() {
            return;
        }
        for key in self.clients.keys() {
            self.post_qlog(key, true);
        }
    }
}

/// Or the number of bytes that were lost.
fn post(sender: &Sender<QlogPiece>, piece: QlogPiece, io: &mut impl Io) -> Result<(), usize> {
    sender.send_by(io, piece).map_err(|error| match error {
        SendError::Full(piece) | SendError::Closed(piece) => piece.bytes.len(),
    })
}
