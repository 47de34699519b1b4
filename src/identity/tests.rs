use super::*;

fn key_pem(key: &rcgen::KeyPair) -> String {
    key.serialize_pem()
}

fn certificate_for(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::new(vec!["example.test".to_owned()]).unwrap().self_signed(key).unwrap().pem()
}

#[test]
fn a_self_signed_identity_reads_itself_back() {
    let identity = Identity::self_signed(&["localhost", "127.0.0.1", "::1"]).unwrap();
    assert_eq!(identity.chain().len(), 1);
    assert_eq!(identity.key_encoding(), KeyEncoding::Pkcs8);
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", base64(identity.key()));
    let again = Identity::from_pem(identity.chain_pem().as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(again.leaf(), identity.leaf());
    assert_eq!(again.key(), identity.key());
}

#[test]
fn each_mistake_has_its_own_error() {
    let key = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let certificate = certificate_for(&key);
    let load = |chain: &str, key: &str| Identity::from_pem(chain.as_bytes(), key.as_bytes());

    assert!(load(&certificate, &key_pem(&key)).is_ok());
    assert!(matches!(load(&certificate, &key_pem(&other)), Err(IdentityError::KeyMismatch)));
    assert!(matches!(load("", &key_pem(&key)), Err(IdentityError::NoCertificate)));
    assert!(matches!(load(&key_pem(&key), &key_pem(&key)), Err(IdentityError::NoCertificate)));
    assert!(matches!(load(&certificate, &certificate), Err(IdentityError::NoKey)));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(matches!(load(&certificate, encrypted), Err(IdentityError::EncryptedKey)));
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        load(&format!("{certificate}{junk}"), &key_pem(&key)),
        Err(IdentityError::BadCertificate { index: 1 })
    ));
    assert!(matches!(
        load("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", ""),
        Err(IdentityError::BadCertificatePem(_))
    ));
    let broken_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(load(&certificate, broken_key), Err(IdentityError::UnsupportedKey)));
    assert!(matches!(load(&certificate.repeat(CHAIN_MAX + 1), &key_pem(&key)), Err(IdentityError::ChainTooLong)));
}

#[test]
fn the_chain_must_start_with_the_leaf_of_the_key() {
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::KeyPair::generate().unwrap();
    let (leaf, root) = (certificate_for(&key), certificate_for(&issuer));
    let load = |chain: String| Identity::from_pem(chain.as_bytes(), key_pem(&key).as_bytes());
    assert_eq!(load(format!("{leaf}{root}")).unwrap().chain().len(), 2);
    assert!(matches!(load(format!("{root}{leaf}")), Err(IdentityError::KeyMismatch)));
}

#[test]
fn sec1_and_other_curves_are_read() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let identity = Identity::from_pem(certificate_for(&key).as_bytes(), key_pem(&key).as_bytes());
        assert!(identity.is_ok(), "{identity:?}");
    }

    // The ECPrivateKey inside a PKCS#8 of ours, with the curve named as `openssl ecparam -genkey` writes it.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let pkcs8 = key.serialize_der();
    let inner = pkcs8.windows(2).position(|pair| pair == [0x04, 0x6d]);
    let inner = &pkcs8[inner.expect("the OCTET STRING of the inner key") + 2..][..0x6d];
    // SEQUENCE { INTEGER 1, OCTET STRING key, [0] curve, [1] public key }
    let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let content = [&inner[2..39], &curve, &inner[39..]].concat();
    let sec1 = der(0x30, &content);
    let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", base64(&sec1));
    let identity = Identity::from_pem(certificate_for(&key).as_bytes(), pem.as_bytes()).unwrap();
    assert_eq!(identity.key_encoding(), KeyEncoding::Sec1);
}

#[test]
fn files_are_named_in_the_error() {
    let error =
        Identity::from_files(Path::new("/nonexistent/chain.pem"), Path::new("/dev/null")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/chain.pem"), "{error}");
    assert!(error.contains("check the path"), "{error}");
}

#[test]
fn nothing_secret_is_printed() {
    let identity = Identity::self_signed(&["localhost"]).unwrap();
    assert_eq!(format!("{identity:?}"), "Identity { certificates: 1, key: Pkcs8, .. }");
}

#[test]
fn base64_pads_as_it_should() {
    assert_eq!(base64(b""), "");
    assert_eq!(base64(b"f"), "Zg==");
    assert_eq!(base64(b"fo"), "Zm8=");
    assert_eq!(base64(b"foo"), "Zm9v");
    assert_eq!(base64(b"foobar"), "Zm9vYmFy");
}
