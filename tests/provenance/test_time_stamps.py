"""Time stamps, by an authority on this computer that OpenSSL's command plays."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lora_edit.provenance.certificate import load_credentials
from lora_edit.provenance.settings import ProvenanceSettings
from lora_edit.provenance.signing import ResultSigner
from lora_edit.provenance.verification import verify_file
from lora_edit.video.write import write_video
from provenance.signed_files import build_claim
from video.clips import make_clip

OPENSSL = shutil.which("openssl")
CONFIG = """
[tsa]
default_tsa = own
[own]
serial = {folder}/serial
signer_cert = {folder}/authority.pem
signer_key = {folder}/authority.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
"""
PROFILE = ["-addext", "extendedKeyUsage=critical,timeStamping", "-addext", "keyUsage=critical,digitalSignature",
           "-addext", "basicConstraints=critical,CA:FALSE"]  # fmt: skip


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[str]:
    """The address of a time-stamp authority."""
    if OPENSSL is None:
        pytest.skip("needs openssl, whose command plays the time-stamp authority")
    folder = tmp_path / "tsa"
    folder.mkdir()
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=Stamps/O=Example", *PROFILE]
    run_openssl([*request, "-keyout", f"{folder}/authority.key", "-out", f"{folder}/authority.pem"])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            run_openssl(["ts", "-reply", "-config", f"{folder}/tsa.cnf", "-queryfile", f"{folder}/query", "-out", f"{folder}/reply"])
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write((folder / "reply").read_bytes())

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run_openssl(arguments: list[str]) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], check=True, capture_output=True)


def test_time_stamp_is_in_the_manifest(tmp_path: Path, authority: str) -> None:
    write_video(tmp_path / "source.mp4", make_clip())
    credentials = load_credentials(ProvenanceSettings(timestamp_url=authority))
    signer = ResultSigner(build_claim(tmp_path / "source.mp4"), credentials)
    write_video(tmp_path / "result.mp4", make_clip(), finish=signer.sign_file)
    report = verify_file(tmp_path / "result.mp4")
    assert report.is_valid and not signer.notes
    assert report.time_stamp is not None and report.time_stamp[:2] == "20"
