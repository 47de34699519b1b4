//! `spooky --version`, and with `--verbose` what stands below it.

use crate::control::VERSION;
use crate::h3::versions;
use spooky_uring::{FeatureMask, Features};

/// Prints the version, and what it runs on if wanted.
pub(super) fn print(verbose: bool) {
    super::print(format_args!("spooky {VERSION}"));
    if !verbose {
        return;
    }
    super::print(format_args!("quiche {}", versions::quiche()));
    super::print(format_args!("BoringSSL: {}", versions::boringssl()));
    match Features::probe(FeatureMask::ALL) {
        Ok(features) => super::print(features),
        // A machine that refuses is what somebody who asks may want to know.
        Err(error) => super::print(format_args!("io_uring refused: {error}")),
    }
}
