//! Stories between a quiche client and an endpoint, without sockets.

mod bad_input;
mod denied;
mod exchanges;
mod floods;
mod identities;
mod life;
mod paths;
pub(super) mod support;
mod validation;
