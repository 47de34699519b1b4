//! What the fuzz targets do with their bytes: each feeds one part of the proxy that meets a stranger's input, and insists on
//! more than not crashing. A target is a function here and one line in `bin/`; `scripts/fuzz` builds and runs them.
//!
//! Where a machine gets its input in pieces, it must tell the same story however the pieces are cut: a second reader of the
//! same connection that cuts otherwise would else see other requests.

mod config;
mod dns;
mod h1;
mod h2;
mod normalize;
mod proxy_protocol;
mod quic;
mod tls;

pub use config::config;
pub use dns::dns_answer;
pub use h1::{h1_chunked, h1_request, h1_response};
pub use h2::{h2_client, h2_server};
pub use normalize::normalize;
pub use proxy_protocol::proxy_header;
pub use quic::connection_id;
pub use tls::tls_hello;

/// Cuts `data` in pieces at places that depend on its bytes alone, so that a finding stays one.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut state = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let most = if state >> 63 == 0 { 4 } else { 64 };
        let (piece, left) = rest.split_at(rest.len().min(1 + (state >> 33) as usize % most));
        rest = left;
        Some(piece)
    })
}
