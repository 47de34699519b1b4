"""An authority that signs certificates of clients, and takes them back, and of backends."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def named(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Badge:
    """A certificate and its key."""

    def __init__(self, certificate, key, folder):
        self.certificate, self.key, self.folder = certificate, key, folder

    @property
    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def shown(self, *chain):
        """What a client of `support.h3` is configured with to show it."""
        return {"certificate": self.certificate, "certificate_chain": list(chain), "private_key": self.key}

    def files(self):
        """Paths of the certificate and the key, for clients that read files."""
        cert, key = (self.folder / f"{self.certificate.serial_number:x}.{kind}" for kind in ("pem", "key"))
        cert.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert, key


class Authority:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.key, named(name), ca=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def badge(self, name="a client", days=10):
        key = ec.generate_private_key(ec.SECP256R1())
        return Badge(self._sign(key, named(name), ca=False, days=days), key, self.folder)

    def server(self, *names, addresses=(), days=10):
        """The badge of a server that has these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        subject = named(names[0] if names else addresses[0])
        return Badge(self._sign(key, subject, ca=False, days=days, alternatives=alternatives), key, self.folder)

    def revoke(self, *badges):
        """The path of a list of the revoked certificates."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(named(self.name))
        builder = builder.last_update(now - DAY).next_update(now + DAY)
        # Both are required (RFC 5280, 5.2).
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        for badge in badges:
            revoked = x509.RevokedCertificateBuilder().serial_number(badge.certificate.serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now - DAY).build())
        path = self.folder / f"{self.name}.crl"
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def _sign(self, key, subject, ca, days=10, alternatives=()):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 20 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        if not ca:
            usage = ExtendedKeyUsageOID.SERVER_AUTH if alternatives else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())
