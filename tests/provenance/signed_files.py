"""Helpers of the tests of signing: claims, certificates, and small signed files."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lora_edit.provenance.certificate import Credentials, load_credentials
from lora_edit.provenance.claim import EditClaim, EditedRegion, claim_file
from lora_edit.provenance.settings import ProvenanceSettings
from lora_edit.provenance.signing import ResultSigner

REGION = EditedRegion(6, 64, 48, ((0, 3), (5, 5)), 0.125, {0: ((8, 6, 20, 12),), 3: ((9, 6, 20, 12),), 5: ((40, 4, 10, 10), (2, 30, 4, 4))})


def build_claim(source: Path, first_frame: Path | None = None) -> EditClaim:
    """Build the claim of an edit of `source`."""
    files = [claim_file("source", source), claim_file("first frame", first_frame, name="first frame") if first_frame else None]
    model = {"name": "tiny", "license": "Apache-2.0", "fingerprint": "0123456789abcdef"}
    return EditClaim("0.1.0", tuple(each for each in files if each), REGION, model, "ab" * 32, seed=7)


def build_signer(source: Path, credentials: Credentials | None = None) -> ResultSigner:
    """Build a signer of results that were edited from `source`."""
    return ResultSigner(build_claim(source), credentials or load_credentials(ProvenanceSettings()))


def sign_copy(unsigned: Path, target: Path, signer: ResultSigner) -> Path:
    """Sign a copy of a file or folder as `write_video` does: under a temporary name, before it is renamed to `target`."""
    part = target.with_name(f".part-{target.name}")
    (shutil.copytree if unsigned.is_dir() else shutil.copyfile)(unsigned, part)
    signer.sign_file(part, target)
    os.replace(part, target)
    return target


def make_certificate(
    folder: Path,
    name: str = "Studio",
    *,
    days: tuple[int, int] = (-1, 30),
    password: bytes | None = None,
    usage: Any = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    curve: Any = None,
    is_authority: bool = False,
) -> tuple[Path, Path]:
    """Make a certificate that an authority issued, with its key; returns the files of chain and key. The authority's is `authority.pem`."""
    now, key, authority_key = datetime.now(UTC), ec.generate_private_key(curve or ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")])
                       for text in (name, "Authority"))  # fmt: skip
    off = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )

    def build(subject_name: x509.Name, public_key: Any, ca: bool) -> x509.CertificateBuilder:
        begin, end = (now + timedelta(days=each) for each in days)
        builder = x509.CertificateBuilder(issuer, subject_name, public_key, x509.random_serial_number(), begin, end)
        key_usage = x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **off)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True).add_extension(key_usage, True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
        return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False)

    authority = build(issuer, authority_key.public_key(), True).sign(authority_key, hashes.SHA256())
    leaf = build(subject, key.public_key(), is_authority)
    if usage is not None:
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([usage]), False)
    chain = [leaf.sign(authority_key, hashes.SHA256()), authority]
    files = folder / "chain.pem", folder / "key.pem"
    files[0].write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    (folder / "authority.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    return files
