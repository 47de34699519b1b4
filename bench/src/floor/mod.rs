//! The floor: the least that an HTTP/3 to HTTP/1.1 proxy can do on this platform, to measure the real one against.
//!
//! The same reactor, quiche, UDP trains and bodies without copies as the proxy, on one thread; no routing, no log, no
//! limits, no defence against its clients or its origin. Correct on bodies of any size, unfit for the Internet.
//! [`proxy`] is the loop, [`exchange`] one request's way, [`downstream`] a QUIC connection, [`response`] reads HTTP/1.1.

mod buffers;
mod downstream;
mod exchange;
mod proxy;
mod response;

use crate::machine::Failure;
use downstream::Burst;
use proxy::Proxy;
use spooky_uring::io::{StreamAddress, Token};
use spooky_uring::{FeatureMask, Features, PoolConfig, Ring, RingConfig, UdpOptions, UdpSocket};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Options of `floor`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where to listen (UDP)
    #[arg(long, default_value = "127.0.0.1:9889")]
    listen: SocketAddr,
    /// The origin: http://address:port or unix:path
    #[arg(long, value_parser = parse_origin)]
    origin: StreamAddress,
    /// Certificate chain, PEM
    #[arg(long)]
    cert: PathBuf,
    /// Its private key, PEM
    #[arg(long)]
    key: PathBuf,
    /// Largest UDP payload sent
    #[arg(long, default_value_t = 1452)]
    payload: usize,
    /// Congestion control
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Receive buffers for the origin's bytes; unacknowledged bodies stay in them
    #[arg(long, default_value_t = RingConfig::default().stream_receive.count)]
    buffers: u16,
    /// Bytes of each of them
    #[arg(long, default_value_t = RingConfig::default().stream_receive.size)]
    buffer_bytes: usize,
    /// Packets in a train
    #[arg(long, default_value_t = 44)]
    train_packets: usize,
    /// Trains of one connection in one turn
    #[arg(long, default_value_t = 4)]
    trains: usize,
}

fn parse_origin(text: &str) -> Result<StreamAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(StreamAddress::Unix(Path::new(path).into()));
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let address = address.parse().map_err(|error| format!("`{text}`: {error}"))?;
    Ok(StreamAddress::Tcp(address))
}

/// Serves until it is killed.
pub fn run(options: &Options) -> Result<(), Failure> {
    let features = Features::probe(FeatureMask::ALL)?;
    let usual = RingConfig::default();
    let stream_receive = PoolConfig {
        count: options.buffers,
        size: options.buffer_bytes,
        posted: usual.stream_receive.posted.min(options.buffers),
    };
    let mut ring = Ring::new(&RingConfig { stream_receive, ..usual }, &features)?;
    let socket = UdpSocket::bind(&UdpOptions::new(options.listen))?;
    println!("floor {} {features}", socket.local_address());
    let socket = ring.add_udp(socket, Token(0));
    let burst = Burst { packets: options.train_packets, trains: options.trains };
    Proxy::new(ring, socket, options.origin.clone(), transport(options)?, burst)?.run()
}

fn transport(options: &Options) -> Result<quiche::Config, Failure> {
    let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("a path is not text");
    let mut quic = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
    quic.load_cert_chain_from_pem_file(&path(&options.cert)?)
        .map_err(|_| format!("cannot read the certificate `{}`", options.cert.display()))?;
    quic.load_priv_key_from_pem_file(&path(&options.key)?)
        .map_err(|_| format!("cannot read the key `{}`", options.key.display()))?;
    quic.set_application_protos(quiche::h3::APPLICATION_PROTOCOL)?;
    quic.set_cc_algorithm_name(&options.congestion)
        .map_err(|_| format!("`{}` is no congestion control", options.congestion))?;
    // 4.5 KiB less for each idle connection.
    quic.grease(false);
    quic.set_max_idle_timeout(60_000);
    quic.set_max_recv_udp_payload_size(crate::udp::PAYLOAD_MAX);
    quic.set_max_send_udp_payload_size(options.payload);
    quic.set_initial_max_data(8 << 20);
    quic.set_max_connection_window(8 << 20);
    quic.set_initial_max_stream_data_bidi_remote(1 << 20);
    quic.set_initial_max_stream_data_uni(1 << 16);
    quic.set_max_stream_window(1 << 20);
    quic.set_initial_max_streams_bidi(128);
    quic.set_initial_max_streams_uni(8);
    Ok(quic)
}
