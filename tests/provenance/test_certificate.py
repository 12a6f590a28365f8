"""Certificates: every fault is found before any work, and the local one is made once and kept from others."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from lora_edit.errors import SettingsError
from lora_edit.provenance import certificate
from lora_edit.provenance.certificate import load_credentials, load_local_credentials
from lora_edit.provenance.settings import ProvenanceSettings
from provenance.signed_files import make_certificate


def load(chain: Path | None, key: Path | None, **more: str) -> certificate.Credentials:
    return load_credentials(ProvenanceSettings(certificate=chain, key=key, **more), {})


def test_given_certificate_signs(tmp_path: Path) -> None:
    credentials = load(*make_certificate(tmp_path))
    assert credentials.signer == "Studio, Example" and not credentials.is_self_signed and credentials.key.algorithm == "es256"
    assert load(*make_certificate(tmp_path, curve=ec.SECP384R1())).key.algorithm == "es384"


def test_certificate_of_the_environment(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    environment = {"LORA_EDIT_SIGN_CERT": str(chain), "LORA_EDIT_SIGN_KEY": str(key)}
    assert load_credentials(ProvenanceSettings(), environment).signer == "Studio, Example"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"days": (-10, -1)}, r"chain.pem: the certificate expired on \d{4}-\d\d-\d\d; give one in force"),
        ({"days": (1, 10)}, r"chain.pem: the certificate is not valid before .*; check this computer's clock"),
        ({"password": b"secret"}, r"key.pem: the key has a password; remove it with `openssl pkey"),
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, r"cannot sign results .*extended key usage emailProtection or documentSigning"),
        ({"usage": None}, r"cannot sign results .*; C2PA asks for a certificate"),
        ({"is_authority": True}, r"cannot sign results"),
        ({"curve": ec.SECP256K1()}, r"key.pem: C2PA does not allow this type of key"),
    ],
)
def test_faults_of_a_certificate(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load(*make_certificate(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_faults_of_the_files(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = make_certificate(tmp_path / "other")
    (tmp_path / "text.pem").write_text("something")
    for given, message in (
        ((chain, None), "only the certificate to sign with is given; add --sign-key FILE.pem"),
        ((None, key), "only the key to sign with is given; add --sign-cert FILE.pem"),
        ((tmp_path / "no.pem", key), "no.pem: the certificate to sign with cannot be read (No such file or directory)"),
        ((chain, tmp_path), "the key to sign with cannot be read (Is a directory)"),
        ((tmp_path / "text.pem", key), "text.pem: holds no certificate in PEM format"),
        ((chain, tmp_path / "text.pem"), "text.pem: holds no private key in PEM format"),
        ((chain, chain), "chain.pem: holds no private key in PEM format"),
        ((chain, other_key), "key.pem: is not the key of the first certificate in"),
    ):
        with pytest.raises(SettingsError, match=re.escape(message)):
            load(*given)


def test_faults_of_a_time_stamp_authority(tmp_path: Path) -> None:
    given = make_certificate(tmp_path)
    with pytest.raises(SettingsError, match="not an address; give one that starts with http"):
        load(*given, timestamp_url="stamps.example")
    with pytest.raises(SettingsError, match=r"http://127.0.0.1:9: gives no time stamp .*; check the address and the network, or leave out"):
        load(*given, timestamp_url="http://127.0.0.1:9")


def test_local_certificate_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    first, second = load_local_credentials(tmp_path / "new"), load_local_credentials(tmp_path / "new")
    file = tmp_path / "new" / "signing.pem"
    assert first.key == second.key and first.is_self_signed
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and {each.name for each in file.parent.iterdir()} <= {
        "signing.pem",
        "signing.pem.lock",
    }
    file.chmod(0o644)
    load_local_credentials(tmp_path / "new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_local_certificate_names_neither_user_nor_computer(tmp_path: Path) -> None:
    credentials = load_local_credentials(tmp_path)
    assert credentials.signer == "lora-edit on one computer, self-signed, identity not checked"
    assert b"PRIVATE" not in credentials.key.certificate_chain  # the chain goes into every signed file


def test_expired_local_certificate_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Past(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) - timedelta(days=365 * 11)

    with monkeypatch.context() as patch:
        patch.setattr(certificate, "datetime", Past)
        old = certificate.make_self_signed_certificate()
    (tmp_path / "signing.pem").write_bytes(old)
    chain = load_local_credentials(tmp_path).key.certificate_chain
    assert x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc > datetime.now(UTC)


def test_damaged_local_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "signing.pem").write_text("something")
    with pytest.raises(SettingsError, match=r"signing.pem: the local certificate is damaged; remove this file"):
        load_local_credentials(tmp_path)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    credentials = load_local_credentials(tmp_path / "file")
    assert "is signed with a certificate that is not kept" in credentials.notes[0]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import hashlib, sys; from pathlib import Path; from lora_edit.provenance.certificate import load_local_credentials as load; "
        "print(hashlib.sha256(load(Path(sys.argv[1])).key.private_key).hexdigest())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "new")], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate()[0] for process in processes}
    assert len(keys) == 1 and all(process.returncode == 0 for process in processes)
