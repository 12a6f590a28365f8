"""The certificate that results are signed with: the user's, or a local self-signed one that is made at first use.

All faults of a certificate are found here, before any work: `load_credentials` also signs a few bytes with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from lora_edit.atomic_files import replace_file
from lora_edit.errors import SettingsError
from lora_edit.provenance.library import GENERIC_TYPE, LibraryError, SigningKey, sign_stream
from lora_edit.provenance.settings import ProvenanceSettings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

CERTIFICATE_VARIABLE, KEY_VARIABLE = "LORA_EDIT_SIGN_CERT", "LORA_EDIT_SIGN_KEY"
TIMESTAMP_VARIABLE = "LORA_EDIT_TIMESTAMP_URL"
FOLDER_VARIABLE = "LORA_EDIT_CONFIG"
"""Folder of the local certificate, instead of the user's configuration folder."""

LOCAL_FILE = "signing.pem"
"""Certificate and key of the local signer in one file, so that the two always belong together."""
LOCAL_SIGNER = "lora-edit on one computer"
LOCAL_ISSUER = "self-signed, identity not checked"
"""Name and organization in the local certificate: neither the user nor the computer, for results are passed on."""
LOCAL_YEARS = 10

EXPORT_HELP = "give PEM files, or leave both out for a local certificate"


@dataclass(frozen=True)
class Credentials:
    """What signs: the key with its certificate chain, the signer's name, and whether anyone could have made the certificate."""

    key: SigningKey
    signer: str
    is_self_signed: bool
    notes: tuple[str, ...] = ()


def load_credentials(settings: ProvenanceSettings, environment: Mapping[str, str] = os.environ) -> Credentials:
    """Load the certificate of the settings, of the environment, or the local one, and sign a few bytes with it.

    Raises `SettingsError` for one that is missing, unreadable, expired, of another key, locked by a password, or of a type that C2PA does
    not allow, and for a time-stamp authority that does not answer.
    """
    chain_file = settings.certificate or _read_path(environment, CERTIFICATE_VARIABLE)
    key_file = settings.key or _read_path(environment, KEY_VARIABLE)
    timestamp_url = settings.timestamp_url or environment.get(TIMESTAMP_VARIABLE) or None
    if timestamp_url and not timestamp_url.startswith(("http://", "https://")):
        raise SettingsError(f"time-stamp authority {timestamp_url}: not an address; give one that starts with http:// or https://")
    if chain_file and key_file:
        credentials = _build_credentials(_read_file(chain_file, "certificate"), _read_file(key_file, "key"), str(chain_file), str(key_file))
    elif chain_file or key_file:
        present, missing = ("certificate", "--sign-key") if chain_file else ("key", "--sign-cert")
        raise SettingsError(
            f"{chain_file or key_file}: only the {present} to sign with is given; add {missing} FILE.pem, or leave both out"
        )
    else:
        credentials = load_local_credentials(find_config_folder(environment))
    return _try_credentials(credentials, timestamp_url)


def _read_path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None


def _read_file(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: the {kind} to sign with cannot be read ({error.strerror}); {EXPORT_HELP}") from error


def _build_credentials(chain: bytes, key_bytes: bytes, chain_name: str, key_name: str) -> Credentials:
    """Check that the certificate is in force and belongs to the key. Raises `SettingsError`."""
    certificates, key = _parse_chain(chain, chain_name), _parse_key(key_bytes, key_name)
    certificate = certificates[0]
    if certificate.public_key() != key.public_key():
        raise SettingsError(f"{key_name}: is not the key of the first certificate in {chain_name}; give the two that belong together")
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise SettingsError(f"{chain_name}: the certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}; give one in force")
    if now < certificate.not_valid_before_utc:
        raise SettingsError(
            f"{chain_name}: the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}; check this computer's clock"
        )
    signing_key = SigningKey(dump_certificates(certificates), _dump_key(key), _find_algorithm(key, key_name))
    return Credentials(signing_key, describe_signer(certificate), certificate.issuer == certificate.subject)


def _parse_chain(chain: bytes, name: str) -> list[Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise SettingsError(f"{name}: holds no certificate in PEM format; {EXPORT_HELP}") from error


def _parse_key(key: bytes, name: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(key, None)
    except TypeError as error:
        raise SettingsError(f"{name}: the key has a password; remove it with `openssl pkey -in {name} -out FILE.pem`") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{name}: holds no private key in PEM format; {EXPORT_HELP}") from error


def dump_certificates(certificates: Sequence[Certificate]) -> bytes:
    """Serialize certificates to PEM: nothing else that their file holds, such as a key."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _dump_key(key: PrivateKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _find_algorithm(key: PrivateKeyTypes, name: str) -> str:
    """Name the key's signature algorithm; C2PA allows these (specification 2.2, section 13.2)."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise SettingsError(f"{name}: C2PA does not allow this type of key; use one on P-256, P-384 or P-521, Ed25519, or RSA from 2048 bits")


def describe_signer(certificate: Certificate) -> str:
    """Return the common name and the organization in a certificate."""
    from cryptography.x509.oid import NameOID

    names = [certificate.subject.get_attributes_for_oid(oid) for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)]
    return ", ".join(str(found[0].value) for found in names if found) or "a signer without a name"


def _try_credentials(credentials: Credentials, timestamp_url: str | None) -> Credentials:
    """Sign a few bytes, without and then with a time stamp, and return the credentials with the authority. Raises `SettingsError`."""
    action = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
    definition = {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}
    try:
        sign_stream(BytesIO(b"lora-edit"), None, GENERIC_TYPE, definition, (), credentials.key)
    except LibraryError as error:
        raise SettingsError(
            f"the certificate of {credentials.signer} cannot sign results ({shorten_reason(error)}); C2PA asks for a certificate that is "
            "not an authority's own, with key usage digitalSignature and extended key usage emailProtection or documentSigning"
        ) from error
    if timestamp_url is None:
        return credentials
    stamped = replace(credentials, key=replace(credentials.key, timestamp_url=timestamp_url))
    try:
        sign_stream(BytesIO(b"lora-edit"), None, GENERIC_TYPE, definition, (), stamped.key)
    except LibraryError as error:
        raise SettingsError(
            f"time-stamp authority {timestamp_url}: gives no time stamp ({shorten_reason(error)}); check the address and the network, or "
            f"leave out provenance.timestamp_url and {TIMESTAMP_VARIABLE}"
        ) from error
    return stamped


def shorten_reason(error: Exception) -> str:
    """Shorten a message of the library to one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def find_config_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the local certificate."""
    from platformdirs import user_config_path

    folder = environment.get(FOLDER_VARIABLE)
    return Path(folder) if folder else user_config_path("lora-edit")


def read_local_certificate(folder: Path) -> str | None:
    """Read the certificate (PEM) of the local signer; None where there is none."""
    from cryptography import x509

    try:
        return dump_certificates(x509.load_pem_x509_certificates((folder / LOCAL_FILE).read_bytes())[:1]).decode()
    except (OSError, ValueError):
        return None


def load_local_credentials(folder: Path) -> Credentials:
    """Load the local self-signed certificate, which is made where there is none, or only an expired one.

    Where the folder cannot be written, the certificate is made for this process alone, and a note says so. Raises `SettingsError` for a
    damaged file.
    """
    file = folder / LOCAL_FILE
    try:
        if not file.is_file() or _is_expired(file):
            _store_new_certificate(file)
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
        stored = file.read_bytes()
    except OSError as error:
        certificate = make_self_signed_certificate()
        note = f"{folder}: cannot be written ({error.strerror}), so this result is signed with a certificate that is not kept"
        return replace(_build_credentials(certificate, certificate, "the new certificate", "its key"), notes=(note,))
    try:
        return _build_credentials(stored, stored, str(file), str(file))
    except SettingsError as error:
        raise SettingsError(f"{file}: the local certificate is damaged; remove this file, and a new one is made") from error


def _is_expired(file: Path) -> bool:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(file.read_bytes())[0].not_valid_after_utc < datetime.now(UTC)
    except ValueError:
        return False


def _store_new_certificate(file: Path) -> None:
    """Write a new certificate with its key, readable by its owner alone. Of processes that do so at once, the first one's stays."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(file.with_name(f"{file.name}.lock")):
        if file.is_file() and not _is_expired(file):
            return
        with replace_file(file) as partial, open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as part:
            part.write(make_self_signed_certificate())


def make_self_signed_certificate() -> bytes:
    """Make an ES256 certificate with the profile of C2PA's end-entity certificates, and its key; returns both in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    attributes = ((NameOID.COMMON_NAME, LOCAL_SIGNER), (NameOID.ORGANIZATION_NAME, LOCAL_ISSUER))
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
                           "encipher_only", "decipher_only"), False)  # fmt: skip
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=365 * LOCAL_YEARS))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    return dump_certificates([builder.sign(key, hashes.SHA256())]) + _dump_key(key)
