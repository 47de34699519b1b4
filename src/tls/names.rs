//! Owns how a handshake is told to others: version, cipher and group in the words that the QUIC side uses too.

use rustls::{CipherSuite, CommonState, HandshakeKind, NamedGroup, ProtocolVersion};

/// The version, as OpenSSL's tools write it.
pub(super) fn version(state: &CommonState) -> &'static str {
    match state.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "",
    }
}

/// The cipher suite, by its name in the IANA's registry.
pub(super) fn cipher(state: &CommonState) -> &'static str {
    use CipherSuite as Suite;
    match state.negotiated_cipher_suite().map(|suite| suite.suite()) {
        Some(Suite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(Suite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(Suite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        // The library's names of these are the registry's.
        Some(other) => other.as_str().unwrap_or_default(),
        None => "",
    }
}

/// The group of the key exchange; empty for a resumption without one.
pub(super) fn group(state: &CommonState) -> &'static str {
    match state.negotiated_key_exchange_group().map(|group| group.name()) {
        Some(NamedGroup::X25519) => "X25519",
        Some(NamedGroup::secp256r1) => "P-256",
        Some(NamedGroup::secp384r1) => "P-384",
        Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
        _ => "",
    }
}

/// Whether a session was resumed.
pub(super) fn resumed(state: &CommonState) -> bool {
    state.handshake_kind() == Some(HandshakeKind::Resumed)
}
