//! What the ring counts. Plain numbers: one thread owns them, telemetry copies them out.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Totals since the ring was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct RingStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl RingStats {
            /// Every counter with its name, in declaration order.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Turns: calls of `wait`.
    turns,
    /// Calls of io_uring_enter.
    enters,
    /// Of these, calls for what the kernel had left undone.
    gathers,
    /// Turns that waited for a small batch because the one before was busy.
    batched_waits,
    /// Operations submitted.
    submissions,
    /// Completions reaped.
    completions,
    /// Completions of sockets that were closed meanwhile, or that belong to nothing any more.
    late_completions,
    /// Submissions that found the queue full and cost an extra call.
    submission_overflows,
    /// Times the kernel had to keep completions aside because the completion queue was full.
    completion_overflows,
    /// Stream receives that ended because the provided buffers ran out; they go on when buffers come back.
    stream_buffers_exhausted,
    /// The same for UDP.
    udp_buffers_exhausted,
    /// Receives of UDP datagram trains.
    udp_receives,
    /// Datagrams in them.
    udp_datagrams_received,
    /// Trains dropped because they did not fit or had no sender.
    udp_receives_invalid,
    /// Datagrams that the kernel dropped because the socket's buffer was full.
    udp_receive_drops,
    /// Trains that a router marked as having met congestion.
    udp_congestion_marks,
    /// UDP sends submitted.
    udp_sends,
    /// Datagrams in them.
    udp_datagrams_sent,
    /// UDP sends that the kernel refused.
    udp_send_errors,
    /// Times somebody asked for a send buffer and none was free.
    udp_slots_dry,
    /// Sockets whose egress refused segmentation offload and that send single datagrams since.
    gso_fallbacks,
    /// Connections accepted.
    accepts,
    /// Connections closed at once because the table of streams was full.
    accepts_refused,
    /// Times accepting paused because the process had no file descriptor left.
    accepts_stalled,
    /// Times accepting rested because connections came faster than they could be told.
    accepts_rested,
    /// Connections begun.
    connects,
    /// Connections not begun because the table of streams was full.
    connects_refused,
    /// Stream receives.
    stream_receives,
    /// Stream sends submitted.
    stream_sends,
    /// Stream sends of which the kernel took only a part.
    partial_sends,
    /// Stream sends that failed.
    stream_send_errors,
    /// Doorbells of other threads rung.
    doorbells_rung,
    /// File writes submitted.
    file_writes,
}
