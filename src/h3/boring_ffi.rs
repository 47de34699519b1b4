//! The BoringSSL calls that have no safe form in the `boring` crate; the only file outside the reactor with `unsafe`.
#![allow(unsafe_code)]

use super::tickets::{NAME_LEN, TicketKey, TicketKeys};
use boring::hash::MessageDigest;
use boring::hmac::HmacCtxRef;
use boring::ssl::{SslContextBuilder, SslRef, TicketKeyCallbackResult};
use boring::symm::{Cipher, CipherCtxRef};
use boring::x509::store::X509StoreBuilder;
use std::ffi::{c_int, c_long, c_void};
use std::ptr;

/// EVP_MAX_IV_LENGTH; also the block, and so the IV, of AES.
const IV_LEN: usize = 16;

unsafe extern "C" {
    fn SSL_set_shed_handshake_config(ssl: *mut c_void, enable: c_int);
    fn SSL_CTX_set_session_psk_dhe_timeout(context: *mut c_void, seconds: u32);
    fn SSL_CTX_set_max_cert_list(context: *mut c_void, bytes: usize);
    fn d2i_X509_CRL(out: *mut *mut c_void, bytes: *mut *const u8, length: c_long) -> *mut c_void;
    fn X509_CRL_free(list: *mut c_void);
    fn X509_STORE_add_crl(store: *mut c_void, list: *const c_void) -> c_int;
}

/// Lets the library free what only a handshake needs once the handshake is done: 1.4 KiB for each idle connection.
pub(super) fn shed_handshake_config(ssl: &mut SslRef) {
    // SAFETY: `SslRef` is the opaque form of the library's SSL object: a reference to it is a pointer to that object,
    // exclusive and alive for this call. The function only sets a flag in it (ssl.h), is exported by the library that
    // quiche links, and nothing here or in quiche asks for handshake configuration after the handshake.
    unsafe { SSL_set_shed_handshake_config(ptr::from_mut(ssl).cast(), 1) }
}

/// Makes the sessions of a context be sealed into tickets with these keys, to be resumed within `lifetime` seconds.
///
/// The library asks the context that a connection began with, and `boring` looks for the keys in the one it was switched
/// to: every context that may meet in a connection must have come through here.
pub(super) fn seal_tickets(context: &mut SslContextBuilder, keys: TicketKeys, lifetime: u32) {
    let prepare = move |_: &SslRef,
                        name: &mut [u8; NAME_LEN],
                        iv: &mut [u8; IV_LEN],
                        cipher: &mut CipherCtxRef,
                        mac: &mut HmacCtxRef,
                        sealing: bool| {
        // Without a key or randomness there is no ticket, but a handshake.
        prepare_ticket(&keys, name, iv, cipher, mac, sealing).unwrap_or(TicketKeyCallbackResult::Noop)
    };
    // SAFETY: the contract of the callback (SSL_CTX_set_tlsext_ticket_key_cb in ssl.h) is that it sets name, IV, cipher and
    // MAC when it seals, and cipher and MAC when it opens, before it reports success: `prepare_ticket` does nothing else.
    unsafe { context.set_ticket_key_callback(prepare) }
    // SAFETY: `as_ptr` is the live context that the builder owns alone; the function stores a number in it.
    unsafe { SSL_CTX_set_session_psk_dhe_timeout(context.as_ptr().cast(), lifetime) }
}

/// Bounds the bytes of certificates that clients may show on connections that begin with this context.
pub(super) fn bound_client_certificates(context: &mut SslContextBuilder, bytes: usize) {
    // SAFETY: as above; the function stores a number.
    unsafe { SSL_CTX_set_max_cert_list(context.as_ptr().cast(), bytes) }
}

/// Sets up what one ticket is sealed or opened with.
fn prepare_ticket(
    keys: &TicketKeys,
    name: &mut [u8; NAME_LEN],
    iv: &mut [u8; IV_LEN],
    cipher: &mut CipherCtxRef,
    mac: &mut HmacCtxRef,
    sealing: bool,
) -> Option<TicketKeyCallbackResult> {
    let key = if sealing {
        let key = TicketKey::current(keys);
        *name = key.name;
        boring::rand::rand_bytes(iv).ok()?;
        cipher.init_encrypt(&Cipher::aes_128_cbc(), &key.cipher, iv).ok()?;
        key
    } else {
        let key = TicketKey::find(keys, name)?;
        cipher.init_decrypt(&Cipher::aes_128_cbc(), &key.cipher, iv).ok()?;
        key
    };
    mac.init(&key.mac, &MessageDigest::sha256()).ok()?;
    Some(TicketKeyCallbackResult::Success)
}

/// Adds a certificate revocation list in DER to a store; `false` if it is none.
pub(super) fn add_revocation_list(store: &mut X509StoreBuilder, der: &[u8]) -> bool {
    let Ok(length) = c_long::try_from(der.len()) else {
        return false;
    };
    let mut next = der.as_ptr();
    // SAFETY: with a null `out` the function allocates a list of its own from the `length` bytes at `*bytes`, which `der`
    // keeps alive and unchanged for the call, and advances `*bytes` behind what it read.
    let list = unsafe { d2i_X509_CRL(ptr::null_mut(), &mut next, length) };
    if list.is_null() {
        return false;
    }
    let whole = next == der.as_ptr_range().end;
    // SAFETY: a builder dereferences to the opaque form of the library's store, exclusive and alive for this call; `list` is
    // the list from above. The store takes a reference of its own.
    let added = whole && unsafe { X509_STORE_add_crl(ptr::from_mut(&mut **store).cast(), list) } == 1;
    // SAFETY: gives our reference back, once.
    unsafe { X509_CRL_free(list) };
    added
}
