//! The one BoringSSL call that has no safe form in the `boring` crate; the only file outside the reactor with `unsafe`.
#![allow(unsafe_code)]

use boring::ssl::SslRef;
use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn SSL_set_shed_handshake_config(ssl: *mut c_void, enable: c_int);
}

/// Lets the library free what only a handshake needs once the handshake is done: 1.4 KiB for each idle connection.
pub(super) fn shed_handshake_config(ssl: &mut SslRef) {
    // SAFETY: `SslRef` is the opaque form of the library's SSL object: a reference to it is a pointer to that object,
    // exclusive and alive for this call. The function only sets a flag in it (ssl.h), is exported by the library that
    // quiche links, and nothing here or in quiche asks for handshake configuration after the handshake.
    unsafe { SSL_set_shed_handshake_config(std::ptr::from_mut(ssl).cast(), 1) }
}
