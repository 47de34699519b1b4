//! What a client does too often ends its connection with the right code, and costs a bounded amount before.
