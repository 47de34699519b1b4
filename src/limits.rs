//! Every bound in one place.
