"""Bodies of any size that both ends can compute: a seeded block, repeated, so that a swapped or lost piece changes the hash."""

import hashlib
import random

# A prime length keeps the repetition out of step with every buffer and packet size.
BLOCK = random.Random(0x5700C).randbytes(65_521)


def pieces(size, piece=65_536):
    """The body of `size` bytes in pieces; piece lengths differ from block lengths on purpose."""
    doubled = BLOCK + BLOCK
    sent = 0
    while sent < size:
        length = min(piece, size - sent, len(BLOCK))
        start = sent % len(BLOCK)
        yield doubled[start : start + length]
        sent += length


def body(size):
    """The whole body of `size` bytes."""
    return b"".join(pieces(size))


def sha256(size):
    """Hash of the body of `size` bytes."""
    digest = hashlib.sha256()
    for part in pieces(size):
        digest.update(part)
    return digest.hexdigest()
