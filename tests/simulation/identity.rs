//! The certificate of the tests. Ed25519, because its signatures have one length, and fixed, so that a seed is the same run
//! in every process.

use spooky::identity::Identity;

const CHAIN: &str = "-----BEGIN CERTIFICATE-----
MIIBTzCCAQGgAwIBAgIIEjRWeJq83vAwBQYDK2VwMBYxFDASBgNVBAMMC3Nwb29r
eS50ZXN0MCAXDTI2MTEyMTExMjY1MFoYDzIxMjYxMDI4MTEyNjUwWjAWMRQwEgYD
VQQDDAtzcG9va3kudGVzdDAqMAUGAytlcAMhAEcSVKUS8EqFrQ3QsTlNZffwBSko
+B7PE2lWjtN1hx1Yo2swaTAdBgNVHQ4EFgQUKAkl0V0/xdGEN5bPfIUHSmS1fi8w
HwYDVR0jBBgwFoAUKAkl0V0/xdGEN5bPfIUHSmS1fi8wDwYDVR0TAQH/BAUwAwEB
/zAWBgNVHREEDzANggtzcG9va3kudGVzdDAFBgMrZXADQQD+vHsNhVjngGmqiF81
N8WfZ8YLzT54y+RaJmnCAG3HONBBJwD9OZrfu6TD0eCqmp8SAycug6VsKx36v85O
XqcF
-----END CERTIFICATE-----
";

const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIA35IjY/TKkzjPPaHPSazi5GCaaEw5L33a4m6ussaRXx
-----END PRIVATE KEY-----
";

/// The listener's identity.
pub fn identity() -> Identity {
    Identity::from_pem(CHAIN.as_bytes(), KEY.as_bytes()).expect("the test's own certificate")
}
