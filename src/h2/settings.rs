//! Owns what can be set on a connection, and how it becomes the library's configuration.

use crate::http::{HeadLimits, Scheme};
use crate::limits::{LIBRARY_HEAD_FACTOR, h2 as limits};

/// The settings of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bounds on heads and trailers that are received. Where they let extended CONNECT pass, clients are offered it.
    pub head: HeadLimits,
    /// How the connection is secured: what `:scheme` says.
    pub scheme: Scheme,
    /// Streams open at once: of the other side towards us, or of ours towards a backend.
    pub streams: u32,
    /// Bytes of one body that may be on their way or wait for credit.
    pub stream_window: u32,
    /// The same over all streams.
    pub connection_window: u32,
    /// Body bytes one stream queues before its room is 0.
    pub queue_bytes: usize,
    /// Bytes in pool memory one connection may hold before they are copied.
    pub pooled_bytes: usize,
    /// Whether clients are offered extended CONNECT (RFC 8441).
    pub extended_connect: bool,
}

impl Settings {
    /// The defaults towards clients.
    pub const SERVER: Self = Self {
        head: HeadLimits::REQUEST,
        scheme: Scheme::Https,
        streams: limits::STREAMS,
        stream_window: limits::STREAM_WINDOW,
        connection_window: limits::CONNECTION_WINDOW,
        queue_bytes: limits::QUEUE_BYTES,
        pooled_bytes: limits::POOLED_BYTES,
        extended_connect: true,
    };

    /// The defaults towards backends.
    pub const CLIENT: Self = Self {
        head: HeadLimits::RESPONSE,
        scheme: Scheme::Https,
        streams: limits::CLIENT_STREAMS,
        stream_window: limits::STREAM_WINDOW,
        connection_window: limits::CLIENT_CONNECTION_WINDOW,
        queue_bytes: limits::QUEUE_BYTES,
        pooled_bytes: limits::POOLED_BYTES,
        extended_connect: false,
    };

    /// Above this the library answers for itself; between our limit and this one we do.
    fn library_head_bytes(&self) -> u32 {
        u32::try_from(self.head.bytes).unwrap_or(u32::MAX).saturating_mul(LIBRARY_HEAD_FACTOR)
    }

    pub(super) fn server(&self) -> ::h2::server::Builder {
        let mut builder = ::h2::server::Builder::new();
        builder
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.library_head_bytes())
            .max_send_buffer_size(self.queue_bytes)
            .max_concurrent_reset_streams(limits::RESETS_REMEMBERED)
            .max_pending_accept_reset_streams(limits::RESETS_UNSEEN)
            // The library's count never falls; ours leaks.
            .max_local_error_reset_streams(None);
        if self.extended_connect {
            builder.enable_connect_protocol();
        }
        builder
    }

    pub(super) fn client(&self) -> ::h2::client::Builder {
        let mut builder = ::h2::client::Builder::new();
        builder
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_header_list_size(self.library_head_bytes())
            .max_send_buffer_size(self.queue_bytes)
            .initial_max_send_streams(limits::CLIENT_STREAMS_UNSAID)
            .max_concurrent_reset_streams(limits::RESETS_REMEMBERED)
            .max_local_error_reset_streams(None)
            .enable_push(false);
        builder
    }
}
