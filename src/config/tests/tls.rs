//! Certificates, names and client certificates as an operator writes them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// A listener's `tls` with more keys, and one upstream with more keys.
fn with_tls(tls: &str, upstream: &str) -> String {
    format!(
        "version = 1\n[listen.tls]\ncert = \"/c.pem\"\nkey = \"/k.pem\"\n{tls}\n\
         [upstream.a]\nroute = {{}}\nbackends = [{{ id = \"x\", address = \"http://10.0.0.1\" }}]\n{upstream}\n"
    )
}

#[test]
fn certificates_have_names_and_policies() {
    let on = |required| ClientAuthSource::On {
        required,
        ca_file: Path::new("/ca.pem").into(),
        crl_file: required.then(|| Path::new("/crl.pem").into()),
    };
    let text = with_tls(
        "client_auth = { enabled = true, ca_file = \"/ca.pem\", crl_file = \"/crl.pem\" }\n\
         certificates = [ { server_name = \"A.test.\", cert = \"/a.pem\", key = \"/a.key\" },\n\
         { server_name = \"*.b.test\", cert = \"/b.pem\", key = \"/b.key\", client_auth = { enabled = false } },\n\
         { server_name = \"c.test\", cert = \"/c.pem\", key = \"/c.key\", client_auth = { enabled = true, \
         require_client_cert = false, ca_file = \"/ca.pem\" } } ]",
        "client_cert_header = \"chain\"",
    );
    let (generation, warnings) = accept(&text);
    assert!(warnings.is_empty(), "{warnings}");
    let tls = generation.listeners[0].tls().unwrap();
    assert_eq!(tls.client_auth, on(true));
    let named: Vec<_> = tls
        .certificates
        .iter()
        .map(|named| (named.server_name.to_string(), named.cert.display().to_string(), named.client_auth.clone()))
        .collect();
    let row = |name: &str, cert: &str, auth| (name.to_owned(), cert.to_owned(), auth);
    assert_eq!(
        named,
        [
            row("a.test", "/a.pem", on(true)),
            row("*.b.test", "/b.pem", ClientAuthSource::Off),
            row("c.test", "/c.pem", on(false)),
        ]
    );
    assert_eq!(generation.upstreams[0].client_cert_header, ClientCertHeader::Chain);
}

#[test]
fn mistakes_in_tls_are_told_with_both_places() {
    let text = with_tls(
        "client_auth = { enabled = true }\n\
         certificates = [ { server_name = \"a.test\", cert = \"/a.pem\", key = \"/a.key\" },\n\
         { server_name = \"A.TEST.\", cert = \"/b.pem\", key = \"/b.key\" },\n\
         { server_name = \"127.0.0.1\", cert = \"/b.pem\", key = \"/b.key\" },\n\
         { cert = \"/b.pem\", key = \"/b.key\" } ]",
        "",
    );
    assert_eq!(
        refuse(&text),
        [
            (5, 15, "`client_auth` needs `ca_file`".to_owned()),
            (7, 17, "two certificates are for `a.test`".to_owned()),
            (8, 17, "`server_name`: clients send host names only, never addresses".to_owned()),
            (9, 1, "`server_name` is missing in `listen.tls.certificates.#4`".to_owned()),
        ]
    );
}

#[test]
fn client_certificates_that_nobody_asks_for_are_a_warning() {
    let (_, warnings) = accept(&with_tls("client_auth = { ca_file = \"/ca.pem\" }", "client_cert_header = \"leaf\""));
    let told = told(warnings.iter());
    assert_eq!(
        told,
        [
            (5, 27, "clients are not asked for certificates".to_owned()),
            (9, 22, "no listener asks clients for a certificate".to_owned()),
        ]
    );
}

#[test]
fn files_of_tls_are_read_and_compared() {
    let folder = Folder::new("tls");
    let identity = |names: &[&str]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (cert, key) = identity(&["a.test"]);
    let (other_cert, other_key) = identity(&["*.b.test"]);
    for (name, text) in [("c.pem", &cert), ("k.pem", &key), ("d.pem", &other_cert), ("l.pem", &other_key)] {
        folder.write(name, text);
        fs::set_permissions(folder.0.join(name), fs::Permissions::from_mode(0o600)).expect("our own file");
    }
    let check = |tls: &str| {
        let tls = format!(
            "version = 1\n[listen.tls]\n{tls}\n[upstream.a]\nroute = {{}}\nbackends = [{{ id = \"x\", address = \"http://10.0.0.1\" }}]\n"
        );
        folder.write("main.toml", &tls);
        match load(&folder.0.join("main.toml")) {
            Ok((_, warnings)) => told(warnings.iter()),
            Err(diagnostics) => told(diagnostics.iter()),
        }
    };
    let good = "cert = \"c.pem\"\nkey = \"k.pem\"\n";
    assert_eq!(check(good), []);
    let named = |name: &str, cert: &str, key: &str| {
        format!("{good}certificates = [{{ server_name = \"{name}\", cert = \"{cert}\", key = \"{key}\" }}]")
    };
    assert_eq!(check(&named("x.b.test", "d.pem", "l.pem")), []);
    assert_eq!(
        check(&named("b.test", "d.pem", "l.pem")),
        [(5, 50, "this certificate is not for `b.test`: clients will refuse it".to_owned())]
    );
    assert_eq!(
        check("cert = \"c.pem\"\nkey = \"l.pem\""),
        [(4, 7, "this private key does not belong to the certificate".to_owned())]
    );
    let trust = |keys: &str| check(&format!("{good}client_auth = {{ enabled = true, {keys} }}"));
    assert_eq!(trust("ca_file = \"d.pem\""), []);
    assert!(trust("ca_file = \"k.pem\"")[0].2.starts_with("no certificate found"));
    let no_list = trust("ca_file = \"d.pem\", crl_file = \"c.pem\"");
    assert_eq!((no_list[0].0, no_list[0].1), (5, 63));
    assert!(no_list[0].2.starts_with("no revocation list found"), "{no_list:?}");
    assert!(trust("ca_file = \"missing.pem\"")[0].2.contains("missing.pem: "));
}
