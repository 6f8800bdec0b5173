"""Writes vectors.json: envelopes as vulcand's, sealed by libsodium (PyNaCl), for store/tests/seal.rs.

Run once, with PyNaCl installed; its output is kept so that the tests need neither.
"""

import base64
import json
import random

import nacl.secret

chance = random.Random(20261121)


def text(data: bytes) -> str:
    return base64.standard_b64encode(data).decode()


def vector(name: str, plain: bytes) -> dict:
    key, nonce = chance.randbytes(32), chance.randbytes(24)
    sealed = nacl.secret.SecretBox(key).encrypt(plain, nonce).ciphertext
    envelope = {"Encryption": "secretbox.v1", "Value": {"Val": text(sealed), "Nonce": text(nonce)}}
    return {"name": name, "key": key.hex(), "plain": text(plain), "envelope": json.dumps(envelope, separators=(",", ":"))}


def pair(key: bytes, cert: bytes) -> bytes:
    return json.dumps({"Key": text(key), "Cert": text(cert)}, separators=(",", ":")).encode()


vectors = [
    vector("nothing", b""),
    vector("one byte", b"\x00"),
    vector("a block", bytes(range(64))),
    vector("more than a block", chance.randbytes(65)),
    vector("much", chance.randbytes(5000)),
    vector("a key pair", pair(b"the private key, as PEM\n", b"the certificate, as PEM\n")),
]
print(json.dumps(vectors, indent=1))
