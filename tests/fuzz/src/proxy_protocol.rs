//! What a connection begins with that comes from a proxy in front.

use crate::pieces;
use spooky::limits;
use spooky::proxy_protocol::{Version, parse, write};

/// The first bytes of a connection.
pub fn proxy_header(data: &[u8]) {
    // What a beginning says, more bytes do not change.
    let whole = parse(data);
    let mut seen = 0;
    for piece in pieces(data) {
        seen += piece.len();
        let told = parse(&data[..seen]);
        assert!(told == Ok(None) || told == whole, "{told:?} became {whole:?}");
    }
    match whole {
        Ok(None) => assert!(data.len() < limits::PROXY_HEADER_BYTES, "it never ends"),
        Ok(Some(header)) => {
            assert!(header.len <= data.len().min(limits::PROXY_HEADER_BYTES));
            for version in [Version::V1, Version::V2] {
                let mut out = Vec::new();
                write(version, header.ends, &mut out);
                let again = parse(&out).expect("our own").expect("whole");
                assert_eq!(again.len, out.len());
                // An IPv4 address in an IPv6 address's clothes comes out as it is.
                let plain = |ends: spooky::proxy_protocol::Ends| (ends.source.ip().to_canonical(), ends.source.port());
                assert_eq!(again.ends.map(plain), header.ends.map(plain));
            }
        }
        Err(_) => {}
    }
}
