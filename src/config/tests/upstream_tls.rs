//! Schemes of backends, and TLS towards them, as an operator writes them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// One upstream with a backend at each address, with more keys in it and after it.
fn upstream(addresses: &[&str], keys: &str, after: &str) -> String {
    let backends: Vec<String> = addresses
        .iter()
        .enumerate()
        .map(|(at, address)| format!("{{ id = \"b{at}\", address = \"{address}\" }}"))
        .collect();
    format!(
        "version = 1\n[listen]\n[upstream.a]\nroute = {{}}\nbackends = [{}]\n{keys}\n{after}\n",
        backends.join(", ")
    )
}

#[test]
fn the_scheme_says_what_is_spoken_and_where() {
    let read = |address: &str| {
        let (generation, warnings) = accept(&upstream(&[address], "", ""));
        assert!(warnings.is_empty(), "{warnings}");
        let Backend { scheme, authority, server_name, .. } = &generation.backends[0];
        (*scheme, authority.to_string(), server_name.to_string(), generation.backends[0].url())
    };
    let row = |scheme, authority: &str, server_name: &str, url: &str| {
        (scheme, authority.to_owned(), server_name.to_owned(), url.to_owned())
    };
    use BackendScheme::{H2c, Http, Https};
    for (address, expected) in [
        ("http://10.0.0.1", row(Http, "10.0.0.1", "10.0.0.1", "http://10.0.0.1:80")),
        ("http://10.0.0.1:443", row(Http, "10.0.0.1:443", "10.0.0.1", "http://10.0.0.1:443")),
        ("https://10.0.0.1", row(Https, "10.0.0.1", "10.0.0.1", "https://10.0.0.1:443")),
        ("https://10.0.0.1:80/", row(Https, "10.0.0.1:80", "10.0.0.1", "https://10.0.0.1:80")),
        ("https://[FD00::1]:8443", row(Https, "[fd00::1]:8443", "fd00::1", "https://[fd00::1]:8443")),
        ("https://App.internal.", row(Https, "app.internal", "app.internal", "https://app.internal.:443")),
        ("app.internal:443", row(Https, "app.internal", "app.internal", "https://app.internal:443")),
        ("10.0.0.1:8443", row(Https, "10.0.0.1:8443", "10.0.0.1", "https://10.0.0.1:8443")),
        ("[::1]:443", row(Https, "[::1]", "::1", "https://[::1]:443")),
        ("h2c://app", row(H2c, "app", "app", "h2c://app:80")),
        ("h2c://10.0.0.1:443", row(H2c, "10.0.0.1:443", "10.0.0.1", "h2c://10.0.0.1:443")),
        ("unix:/run/app.sock", row(Http, "localhost", "localhost", "unix:/run/app.sock")),
    ] {
        assert_eq!(read(address), expected, "{address}");
    }
}

#[test]
fn one_address_under_two_schemes_is_two_backends() {
    let warned = |addresses: &[&str]| told(accept(&upstream(addresses, "", "")).1.iter()).len();
    assert_eq!(warned(&["https://10.0.0.1:8080", "http://10.0.0.1:8080", "h2c://10.0.0.1:8080"]), 0);
    assert_eq!(warned(&["https://10.0.0.1", "10.0.0.1:443"]), 1);
}

#[test]
fn the_upstream_comes_before_the_defaults() {
    let resolved = |own: &str, defaults: &str| {
        let (generation, _) = accept(&upstream(&["https://10.0.0.1"], own, &format!("[upstream_tls]\n{defaults}")));
        generation.upstreams[0].tls.clone()
    };
    let file = |path: &str| Some(Path::new(path).into());
    let pair = |cert: &str, key: &str| file(cert).zip(file(key));
    let usual =
        UpstreamTls { verify_certificates: true, strict_sni: true, ca_file: None, ca_dir: None, client_cert: None };
    assert!(usual.trusts_the_system());
    assert_eq!(resolved("", ""), usual);
    let defaults = "strict_sni = false\nca_file = \"/ca.pem\"\nclient_cert = \"/c.pem\"\nclient_key = \"/k.pem\"";
    let from_defaults = UpstreamTls {
        strict_sni: false,
        ca_file: file("/ca.pem"),
        client_cert: pair("/c.pem", "/k.pem"),
        ..usual.clone()
    };
    assert!(!from_defaults.trusts_the_system());
    assert_eq!(resolved("", defaults), from_defaults);
    assert_eq!(
        resolved("tls = { strict_sni = true, client_cert = \"/d.pem\", client_key = \"/l.pem\" }", defaults),
        UpstreamTls { strict_sni: true, client_cert: pair("/d.pem", "/l.pem"), ..from_defaults.clone() }
    );
    // Who names authorities means those and no others.
    assert_eq!(
        resolved("tls.ca_dir = \"/ca\"", defaults),
        UpstreamTls { ca_file: None, ca_dir: file("/ca"), ..from_defaults.clone() }
    );
    assert_eq!(
        resolved("tls = { ca_file = \"/x.pem\", ca_dir = \"/ca\" }", "ca_dir = \"/other\""),
        UpstreamTls { ca_file: file("/x.pem"), ca_dir: file("/ca"), ..usual.clone() }
    );
    let off = resolved("tls.verify_certificates = true", "verify_certificates = false");
    assert_eq!(off, usual);
    assert_eq!(resolved("", "verify_certificates = false"), UpstreamTls { verify_certificates: false, ..usual });
}

#[test]
fn a_certificate_and_its_key_stand_in_one_table() {
    let https = &["https://10.0.0.1"];
    assert_eq!(
        refuse(&upstream(https, "tls.client_cert = \"/c.pem\"", "[upstream_tls]\nclient_key = \"/k.pem\"")),
        [
            (6, 19, "`client_cert` needs `client_key`".to_owned()),
            (8, 14, "`client_key` needs `client_cert`".to_owned()),
        ]
    );
    // Also where nothing is spoken to over TLS.
    assert_eq!(
        refuse(&upstream(&["http://10.0.0.1"], "tls.client_key = \"/k.pem\"", ""))[0].2,
        "`client_key` needs `client_cert`"
    );
}

#[test]
fn what_is_switched_off_is_told_with_its_consequences() {
    let https = &["https://10.0.0.1", "http://10.0.0.2"];
    let warned = |own: &str, after: &str| told(accept(&upstream(https, own, after)).1.iter());
    const ANYONE: &str =
        "certificates of upstream `a` are NOT verified: whoever sits between can read and change everything";
    const ANY_NAME: &str = "names in certificates of upstream `a` are NOT verified: everybody with a certificate of a public \
                            authority can stand in for its backends";
    assert_eq!(warned("tls.verify_certificates = false", ""), [(6, 27, ANYONE.to_owned())]);
    assert_eq!(warned("", "[upstream_tls]\nverify_certificates = false"), [(8, 23, ANYONE.to_owned())]);
    // One warning says it all: names of unverified certificates are nothing.
    assert_eq!(warned("tls = { verify_certificates = false, strict_sni = false }", "").len(), 1);
    assert_eq!(warned("tls.strict_sni = false", ""), [(6, 18, ANY_NAME.to_owned())]);
    assert_eq!(warned("", "[upstream_tls]\nstrict_sni = false"), [(8, 14, ANY_NAME.to_owned())]);
    for own_authority in ["ca_file = \"/ca.pem\"", "ca_dir = \"/ca\""] {
        assert_eq!(warned(&format!("tls = {{ strict_sni = false, {own_authority} }}"), ""), []);
        assert_eq!(warned("tls.strict_sni = false", &format!("[upstream_tls]\n{own_authority}")), []);
    }
    let (_, warnings) = accept(&upstream(https, "tls.verify_certificates = false", ""));
    assert!(warnings.to_string().contains("help: set verify_certificates = true, with ca_file"), "{warnings}");
}

#[test]
fn keys_that_do_nothing_are_told() {
    let warned = |addresses: &[&str], own: &str, after: &str| told(accept(&upstream(addresses, own, after)).1.iter());
    let https = &["https://10.0.0.1"];
    let idle = warned(https, "tls = { verify_certificates = false, ca_file = \"/ca.pem\", ca_dir = \"/ca\" }", "");
    let idle: Vec<_> = idle.iter().map(|(_, _, message)| message.as_str()).collect();
    assert_eq!(
        (idle.len(), idle[1], idle[2]),
        (
            3,
            "`ca_file` does nothing: certificates are not verified",
            "`ca_dir` does nothing: certificates are not verified"
        )
    );
    // The authorities of one table, switched off in the other.
    let off = "[upstream_tls]\nverify_certificates = false";
    assert_eq!(warned(https, "tls.ca_file = \"/ca.pem\"", off)[0].0, 6);
    assert_eq!(warned(https, "", &format!("{off}\nca_file = \"/ca.pem\"")).len(), 2);
    // Somebody verifies with them after all.
    assert_eq!(warned(https, "tls.verify_certificates = true", &format!("{off}\nca_file = \"/ca.pem\"")), []);
    assert_eq!(warned(https, "tls.verify_certificates = false", "[upstream_tls]\nca_file = \"/ca.pem\"").len(), 1);

    let nobody = "no backend of upstream `a` is spoken to over TLS".to_owned();
    let plain = &["http://10.0.0.1", "h2c://10.0.0.2", "unix:/run/app.sock"];
    assert_eq!(warned(plain, "tls = { ca_file = \"/ca.pem\" }", ""), [(6, 19, nobody.clone())]);
    assert_eq!(warned(plain, "tls = { verify_certificates = false }", ""), [(6, 31, nobody)]);
    // The defaults are for upstreams that may come.
    assert_eq!(warned(plain, "", "[upstream_tls]\nca_file = \"/ca.pem\"\nstrict_sni = false"), []);
    // An address that could not be read may have been of https.
    let found = refuse(&upstream(&["http//10.0.0.1"], "tls = { ca_file = \"/ca.pem\" }", ""));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn files_of_both_tables_are_read() {
    let folder = Folder::new("upstream-tls");
    let identity = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ((cert, key), (_, other_key)) = (identity(), identity());
    let shape = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for (name, text) in [("c.pem", &*cert), ("k.pem", &key), ("l.pem", &other_key), ("shape.pem", shape)] {
        folder.write(name, text);
        fs::set_permissions(folder.0.join(name), fs::Permissions::from_mode(0o600)).expect("our own file");
    }
    for name in ["ca", "empty"] {
        fs::create_dir_all(folder.0.join(name)).expect("our own folder");
    }
    folder.write("ca/one.pem", &cert);
    let check = |own: &str, defaults: &str| {
        let listen = "[listen]\ntls = { cert = \"c.pem\", key = \"k.pem\" }";
        let text = upstream(&["https://10.0.0.1"], own, &format!("[upstream_tls]\n{defaults}"));
        folder.write("main.toml", &text.replace("[listen]", listen));
        match load(&folder.0.join("main.toml")) {
            Ok((_, warnings)) => told(warnings.iter()),
            Err(diagnostics) => told(diagnostics.iter()),
        }
    };
    let good = "ca_file = \"c.pem\"\nca_dir = \"ca\"\nclient_cert = \"c.pem\"\nclient_key = \"k.pem\"";
    assert_eq!(check("", good), []);
    assert_eq!(check("tls = { ca_dir = \"ca\" }", ""), []);
    let one = |own: &str, defaults: &str| {
        let found = check(own, defaults);
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].0, found[0].2.clone())
    };
    let of_key = "this private key does not belong to the certificate";
    assert_eq!(one("", "ca_file = \"c.pem\"\nclient_cert = \"c.pem\"\nclient_key = \"l.pem\"").1, of_key);
    assert_eq!(one("tls = { ca_file = \"c.pem\", client_cert = \"c.pem\", client_key = \"l.pem\" }", "").1, of_key);
    for (tls, line, part) in [
        ("ca_file = \"missing.pem\"", 7, "missing.pem: No such file"),
        ("ca_file = \"k.pem\"", 7, "no certificate found in"),
        ("ca_file = \"ca\"", 7, "Is a directory"),
        ("ca_file = \"shape.pem\"", 7, "none of the certificates can be used"),
        ("ca_dir = \"empty\"", 7, "no certificate found in"),
        ("ca_dir = \"c.pem\"", 7, "Not a directory"),
    ] {
        let (at, message) = one(&format!("tls = {{ {tls} }}"), "");
        assert!(at == line && message.contains(part), "{tls}: {at} {message}");
        let (at, message) = one("tls.ca_file = \"c.pem\"", tls);
        assert!(at == line + 2 && message.contains(part), "{tls}: {at} {message}");
    }
}
