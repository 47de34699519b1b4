//! Owns the field names this proxy has an opinion on, and what the rules say about each of them.
//!
//! A name is looked up by its length first and by comparisons of that fixed size then: no hash, no allocation. This file
//! refuses to know values. Read [`super::fields`] next.

/// What the rules of forwarding and of trailers say about a field, as bits of [`Known::rules`].
pub(crate) mod rule {
    /// Meant for one connection only: never forwarded (RFC 9110 §7.6.1).
    pub const HOP: u8 = 1;
    /// Says who the client is; only a trusted peer may send it.
    pub const IDENTITY: u8 = 2;
    /// May not stand in a trailer section (RFC 9110 §6.5.1).
    pub const NO_TRAILER: u8 = 4;
    /// Makes an HTTP/2 or HTTP/3 message malformed (RFC 9114 §4.2). `te` is judged by its value.
    pub const CONNECTION: u8 = 8;
}

use rule::{CONNECTION, HOP, IDENTITY, NO_TRAILER};

macro_rules! known {
    ($( $length:literal { $( $variant:ident = $name:literal $(: $rules:expr)? ; )+ } )+) => {
        /// A field name the proxy knows. One byte, and so is `Option<Known>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            $( $(
                #[doc = concat!("`", $name, "`")]
                $variant,
            )+ )+
        }

        impl Known {
            /// Every known name, in the order of the variants.
            pub const ALL: &'static [Known] = &[ $( $( Known::$variant, )+ )+ ];

            const NAMES: &'static [&'static str] = &[ $( $( $name, )+ )+ ];

            const RULES: &'static [u8] = &[ $( $( 0 $( | $rules )?, )+ )+ ];

            /// The known name that `name`, already in lower case, spells.
            #[inline]
            pub fn from_lower(name: &[u8]) -> Option<Known> {
                match name.len() {
                    $(
                        $length => {
                            // An array reference, so that each comparison has a constant size and is a few loads.
                            let name: &[u8; $length] = name.try_into().ok()?;
                            $(
                                if name.as_slice() == $name.as_bytes() {
                                    return Some(Known::$variant);
                                }
                            )+
                            None
                        }
                    )+
                    _ => None,
                }
            }
        }
    };
}

known! {
    2 {
        Te = "te": HOP | NO_TRAILER;
    }
    3 {
        Age = "age": NO_TRAILER;
        Via = "via": NO_TRAILER;
        Dnt = "dnt";
    }
    4 {
        Date = "date": NO_TRAILER;
        Etag = "etag";
        Host = "host": NO_TRAILER;
        Vary = "vary": NO_TRAILER;
        Link = "link";
        From = "from": NO_TRAILER;
    }
    5 {
        Allow = "allow": NO_TRAILER;
        Range = "range": NO_TRAILER;
    }
    6 {
        Accept = "accept": NO_TRAILER;
        Cookie = "cookie": NO_TRAILER;
        Expect = "expect": NO_TRAILER;
        Origin = "origin": NO_TRAILER;
        Server = "server": NO_TRAILER;
        Pragma = "pragma": NO_TRAILER;
    }
    7 {
        Referer = "referer": NO_TRAILER;
        AltSvc = "alt-svc": NO_TRAILER;
        Expires = "expires": NO_TRAILER;
        Trailer = "trailer": NO_TRAILER;
        Upgrade = "upgrade": HOP | NO_TRAILER | CONNECTION;
        Warning = "warning": NO_TRAILER;
    }
    8 {
        Priority = "priority": NO_TRAILER;
        IfMatch = "if-match": NO_TRAILER;
        IfRange = "if-range": NO_TRAILER;
        Location = "location": NO_TRAILER;
        AltUsed = "alt-used": NO_TRAILER;
    }
    9 {
        Forwarded = "forwarded": IDENTITY | NO_TRAILER;
        XRealIp = "x-real-ip": IDENTITY | NO_TRAILER;
        SecChUa = "sec-ch-ua": NO_TRAILER;
        RateLimit = "ratelimit": NO_TRAILER;
    }
    10 {
        UserAgent = "user-agent": NO_TRAILER;
        Connection = "connection": HOP | NO_TRAILER | CONNECTION;
        KeepAlive = "keep-alive": HOP | NO_TRAILER | CONNECTION;
        SetCookie = "set-cookie": NO_TRAILER;
        EarlyData = "early-data": IDENTITY | NO_TRAILER;
        Tracestate = "tracestate": NO_TRAILER;
    }
    11 {
        Traceparent = "traceparent": NO_TRAILER;
        RetryAfter = "retry-after": NO_TRAILER;
        ClientCert = "client-cert": IDENTITY | NO_TRAILER;
        GrpcStatus = "grpc-status";
    }
    12 {
        GrpcMessage = "grpc-message";
        ContentType = "content-type": NO_TRAILER;
        XRequestId = "x-request-id": NO_TRAILER;
        MaxForwards = "max-forwards": NO_TRAILER;
        ProxyStatus = "proxy-status";
    }
    13 {
        AcceptRanges = "accept-ranges": NO_TRAILER;
        Authorization = "authorization": NO_TRAILER;
        CacheControl = "cache-control": NO_TRAILER;
        ContentRange = "content-range": NO_TRAILER;
        IfNoneMatch = "if-none-match": NO_TRAILER;
        LastModified = "last-modified";
        ServerTiming = "server-timing";
    }
    14 {
        SecFetchDest = "sec-fetch-dest": NO_TRAILER;
        SecFetchMode = "sec-fetch-mode": NO_TRAILER;
        SecFetchSite = "sec-fetch-site": NO_TRAILER;
        SecFetchUser = "sec-fetch-user": NO_TRAILER;
        AcceptCharset = "accept-charset": NO_TRAILER;
        ContentLength = "content-length": NO_TRAILER;
        Http2Settings = "http2-settings": HOP | NO_TRAILER;
    }
    15 {
        AcceptEncoding = "accept-encoding": NO_TRAILER;
        AcceptLanguage = "accept-language": NO_TRAILER;
        XFrameOptions = "x-frame-options": NO_TRAILER;
        XForwardedFor = "x-forwarded-for": IDENTITY | NO_TRAILER;
    }
    16 {
        XForwardedHost = "x-forwarded-host": IDENTITY | NO_TRAILER;
        XForwardedPort = "x-forwarded-port": IDENTITY | NO_TRAILER;
        ContentEncoding = "content-encoding": NO_TRAILER;
        ContentLanguage = "content-language": NO_TRAILER;
        ContentLocation = "content-location": NO_TRAILER;
        ProxyConnection = "proxy-connection": HOP | NO_TRAILER | CONNECTION;
        WwwAuthenticate = "www-authenticate": NO_TRAILER;
        SecChUaMobile = "sec-ch-ua-mobile": NO_TRAILER;
        RateLimitPolicy = "ratelimit-policy": NO_TRAILER;
    }
    17 {
        XForwardedProto = "x-forwarded-proto": IDENTITY | NO_TRAILER;
        IfModifiedSince = "if-modified-since": NO_TRAILER;
        ClientCertChain = "client-cert-chain": IDENTITY | NO_TRAILER;
        TransferEncoding = "transfer-encoding": HOP | NO_TRAILER | CONNECTION;
        SecWebsocketKey = "sec-websocket-key": NO_TRAILER;
    }
    18 {
        ProxyAuthenticate = "proxy-authenticate": HOP | NO_TRAILER;
        SecChUaPlatform = "sec-ch-ua-platform": NO_TRAILER;
    }
    19 {
        ProxyAuthorization = "proxy-authorization": HOP | NO_TRAILER;
        ContentDisposition = "content-disposition": NO_TRAILER;
        IfUnmodifiedSince = "if-unmodified-since": NO_TRAILER;
    }
    20 {
        SecWebsocketAccept = "sec-websocket-accept": NO_TRAILER;
    }
    21 {
        SecWebsocketVersion = "sec-websocket-version": NO_TRAILER;
    }
    22 {
        SecWebsocketProtocol = "sec-websocket-protocol": NO_TRAILER;
        XContentTypeOptions = "x-content-type-options": NO_TRAILER;
    }
    23 {
        ContentSecurityPolicy = "content-security-policy": NO_TRAILER;
    }
    24 {
        SecWebsocketExtensions = "sec-websocket-extensions": NO_TRAILER;
    }
    25 {
        UpgradeInsecureRequests = "upgrade-insecure-requests": NO_TRAILER;
        StrictTransportSecurity = "strict-transport-security": NO_TRAILER;
    }
    27 {
        AccessControlAllowOrigin = "access-control-allow-origin": NO_TRAILER;
    }
    32 {
        AccessControlAllowCredentials = "access-control-allow-credentials": NO_TRAILER;
    }
}

/// The longest known name; anything longer is unknown without a look.
pub const NAME_MAX: usize = 32;

impl Known {
    /// The name in lower case.
    #[inline]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The known name that `name` spells in any case.
    pub fn from_any(name: &[u8]) -> Option<Known> {
        let mut lower = [0; NAME_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Self::from_lower(lower)
    }

    /// Whether it is meant for one connection only (RFC 9110 §7.6.1).
    pub const fn is_hop_by_hop(self) -> bool {
        self.rules() & HOP != 0
    }

    /// The bits of [`rule`] that hold for this name.
    #[inline]
    pub(crate) const fn rules(self) -> u8 {
        Self::RULES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_stands_in_the_arm_of_its_length() {
        for &known in Known::ALL {
            let name = known.as_str();
            assert_eq!(Known::from_lower(name.as_bytes()), Some(known), "{name}");
            assert_eq!(Known::from_any(name.to_ascii_uppercase().as_bytes()), Some(known));
            assert!(name.len() <= NAME_MAX, "{name}");
            assert!(!name.bytes().any(|b| b == b'_' || b.is_ascii_uppercase()));
        }
    }

    #[test]
    fn near_misses_are_unknown() {
        for name in ["", "hos", "hosts", "Host", "via ", "x-forwarded-fo", "date\0"] {
            assert_eq!(Known::from_lower(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(Known::from_any(&[b'a'; 200]), None);
    }

    #[test]
    fn an_optional_name_is_one_byte() {
        assert_eq!(size_of::<Option<Known>>(), 1);
    }
}
