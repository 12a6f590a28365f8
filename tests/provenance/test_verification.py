"""Verification: what holds, what does not, and what it says in plain words."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import c2pa
import pytest
from click.testing import Result as Outcome
from typer.testing import CliRunner

import lora_edit
from lora_edit.cli.main import app
from lora_edit.errors import VideoError
from lora_edit.provenance.certificate import load_credentials, load_local_credentials
from lora_edit.provenance.settings import ProvenanceSettings
from lora_edit.provenance.verification import VerificationReport, verify_file
from lora_edit.video.write import write_video
from provenance.signed_files import build_signer, make_certificate, sign_copy
from video.clips import make_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source.mp4`, and `result.mp4` that was edited from it."""
    folder = tmp_path_factory.mktemp("signed")
    write_video(folder / "source.mp4", make_clip())
    write_video(folder / "result.mp4", make_clip(8), finish=build_signer(folder / "source.mp4").sign_file)
    return folder


def change(path: Path, target: Path, position: int) -> Path:
    """Copy a file with one bit flipped."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    target.write_bytes(data)
    return target


def find(path: Path, text: bytes) -> int:
    return path.read_bytes().index(text)


def run(*arguments: Path | str) -> Outcome:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_untouched_result(folder: Path) -> None:
    report = verify_file(folder / "result.mp4", source=folder / "source.mp4")
    assert (report.state, report.reason, report.failures) == ("valid", "the file is unchanged since it was signed", ())
    assert report.actions == ("c2pa.opened", "c2pa.edited") and report.is_ai_edited and report.tool == "lora-edit 0.1.0"
    assert report.source is not None and report.edit is not None and report.signer is not None
    assert (report.source.name, report.source.manifest, report.source.matches) == ("source.mp4", "none", True)
    assert report.edit["region"]["boxes"][0] == {"frame": 0, "boxes": [[8, 6, 20, 12]]}
    assert report.edit["region"]["frame_ranges"] == [[0, 3], [5, 5]] and report.edit["seed"] == 7
    assert report.signer.is_self_signed and "signed here, and unchanged since" in report.signer.meaning
    assert report.time_stamp is None and report.watermark is None


def test_region_is_stated_in_c2pas_own_terms(folder: Path) -> None:
    """Read by the library alone: the rectangle around the edited parts, for each run of edited frames."""
    with c2pa.Reader(folder / "result.mp4") as reader:
        manifest = reader.get_active_manifest()
    edited = next(each for each in manifest["assertions"] if each["label"].startswith("c2pa.actions"))["data"]["actions"][1]
    regions = [(change["region"][0]["shape"], change["region"][1]["frame"]) for change in edited["changes"]]
    rectangle = {"type": "rectangle", "unit": "pixel"}
    assert regions == [
        (rectangle | {"origin": {"x": 8, "y": 6}, "width": 21, "height": 12}, {"start": 0, "end": 3}),
        (rectangle | {"origin": {"x": 2, "y": 4}, "width": 48, "height": 30}, {"start": 5, "end": 5}),
    ]
    assert edited["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")


def test_changed_files(folder: Path, tmp_path: Path) -> None:
    result = folder / "result.mp4"
    frames = change(result, tmp_path / "frames.mp4", find(result, b"mdat") + 200)
    assert verify_file(frames).reason == "the file was changed after it was signed: its bytes do not match the manifest"
    for text in (b"compositeWithTrained", b"source.mp4", b"Apache-2.0", b"org.lora-edit.edit"):
        report = verify_file(change(result, tmp_path / "manifest.mp4", find(result, text) + 2))
        assert report.state == "invalid" and ("manifest was changed" in report.reason or "damaged" in report.reason), text
    name = verify_file(change(result, tmp_path / "signer.mp4", find(result, b"lora-edit on one computer") + 2))
    assert name.state == "invalid"


def test_cut_and_encoded_again(folder: Path, tmp_path: Path) -> None:
    """Both remove the manifest; the manifest of the whole put back as a sidecar does not fit."""
    with av.open(str(folder / "result.mp4")) as container, av.open(str(tmp_path / "cut.mp4"), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in list(container.demux(video=0))[:5]:
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    write_video(tmp_path / "again.mp4", make_clip(8))
    assert verify_file(tmp_path / "cut.mp4").state == verify_file(tmp_path / "again.mp4").state == "absent"
    write_video(tmp_path / "result.mkv", make_clip(8), finish=build_signer(folder / "source.mp4").sign_file)
    shutil.copy(tmp_path / "result.mkv.c2pa", tmp_path / "cut.mp4.c2pa")
    assert verify_file(tmp_path / "cut.mp4").state == "invalid"


def test_source_with_a_manifest_of_its_own(folder: Path, tmp_path: Path) -> None:
    """It is kept as the ingredient's, and so is the fact that it no longer holds."""
    signed = sign_copy(folder / "source.mp4", tmp_path / "camera.mp4", build_signer(folder / "source.mp4"))
    write_video(tmp_path / "edit.mp4", make_clip(), finish=build_signer(signed).sign_file)
    report = verify_file(tmp_path / "edit.mp4", source=signed)
    assert report.is_valid and report.source is not None
    assert (report.source.manifest, report.source.manifest_tool, report.source.matches) == ("valid", "lora-edit 0.1.0", True)
    with c2pa.Reader(tmp_path / "edit.mp4") as reader:
        assert len(json.loads(reader.json())["manifests"]) == 2
    changed = change(signed, tmp_path / "changed.mp4", find(signed, b"mdat") + 200)
    write_video(tmp_path / "edit-of-changed.mp4", make_clip(), finish=build_signer(changed).sign_file)
    report = verify_file(tmp_path / "edit-of-changed.mp4")
    assert report.is_valid and report.source is not None and report.source.manifest == "invalid"


def test_source_that_the_library_cannot_read_is_named_by_its_hash(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.mp4").write_bytes((folder / "result.mp4").read_bytes()[:3000])
    write_video(tmp_path / "edit.mp4", make_clip(), finish=build_signer(tmp_path / "odd.mp4").sign_file)
    report = verify_file(tmp_path / "edit.mp4", source=tmp_path / "odd.mp4")
    assert report.is_valid and report.source is not None and report.source.matches


def test_signer_that_is_not_this_computer(folder: Path, tmp_path: Path) -> None:
    other = build_signer(folder / "source.mp4", load_local_credentials(tmp_path / "other"))
    write_video(tmp_path / "other.mp4", make_clip(), finish=other.sign_file)
    signer = verify_file(tmp_path / "other.mp4").signer
    assert signer is not None and not signer.is_trusted
    assert (
        "anyone can make such a certificate; it shows that the file is unchanged since it was signed, not who signed it" in signer.meaning
    )


def test_certificate_of_an_authority(folder: Path, tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    credentials = load_credentials(ProvenanceSettings(certificate=chain, key=key), {})
    write_video(tmp_path / "result.mp4", make_clip(), finish=build_signer(folder / "source.mp4", credentials).sign_file)
    signer = verify_file(tmp_path / "result.mp4").signer
    assert signer is not None and (signer.name, signer.issuer) == ("Studio, Example", "Authority, Example")
    assert not signer.is_trusted and "not checked against any list of trusted authorities" in signer.meaning
    trusted = verify_file(tmp_path / "result.mp4", trusted=tmp_path / "authority.pem").signer
    assert trusted is not None and trusted.is_trusted and "that you gave as trusted" in trusted.meaning


def test_command_prints_what_it_found(folder: Path) -> None:
    outcome = run(folder / "result.mp4", "--source", folder / "source.mp4")
    assert outcome.exit_code == 0, outcome.stderr
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in outcome.stdout.splitlines())
    assert rows["verdict"] == "valid: the file is unchanged since it was signed"
    assert rows["frames"] == "0 to 3, 5 to 5 of 0 to 5" and rows["region"] == "12.5 % of all pixels; in frame 0: x 8 y 6, 20 by 12"
    assert rows["model"] == "tiny, license Apache-2.0, fingerprint 0123456789abcdef"
    assert rows["source"].startswith("source.mp4, SHA-256 ") and rows["source"].endswith("the given source is this very file")
    assert rows["time stamp"].startswith("none")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("source.mp4", "no manifest, so nothing is known of its origin; re-encoding removes one; ask its maker for the signed file"),
        ("changed.mp4", "the file was changed after it was signed: its bytes do not match the manifest; do not rely on what it claims"),
    ],
)
def test_command_exits_with_2_unless_the_manifest_holds(folder: Path, name: str, reason: str) -> None:
    """One line on stderr; with --json the record as well."""
    change(folder / "result.mp4", folder / "changed.mp4", find(folder / "result.mp4", b"mdat") + 200)
    plain, as_json = run(folder / name), run(folder / name, "--json")
    assert (plain.exit_code, as_json.exit_code, plain.stdout) == (2, 2, "")
    assert plain.stderr == as_json.stderr and plain.stderr.count("\n") == 1
    assert plain.stderr.startswith(f"error: {folder / name}: {reason}")
    record = json.loads(as_json.stdout)
    assert record["state"] == ("absent" if name == "source.mp4" else "invalid") and not record["is_valid"]


def test_command_compares_the_source(folder: Path) -> None:
    outcome = run(folder / "result.mp4", "--source", folder / "result.mp4", "--json")
    assert outcome.exit_code == 2 and "the manifest holds, but its source is another file than" in outcome.stderr
    assert json.loads(outcome.stdout)["source"]["matches"] is False


def test_files_that_are_no_media(tmp_path: Path) -> None:
    for name, data in (("a.txt", b"some text"), ("empty.mp4", b""), ("noise.mp4", bytes(range(256)) * 20), ("a.png", b"\x89PNG\r\n\x1a\n")):
        (tmp_path / name).write_bytes(data)
        assert verify_file(tmp_path / name).state in ("absent", "invalid"), name
        assert run(tmp_path / name).exit_code == 2
    (tmp_path / "empty.mp4.c2pa").write_bytes(b"something")
    assert "damaged" in verify_file(tmp_path / "empty.mp4").reason
    with pytest.raises(VideoError, match="cannot be read"):
        verify_file(tmp_path / "missing.mp4")
    assert run(tmp_path / "missing.mp4").exit_code == 2


def test_claims_of_other_tools_cannot_control_the_terminal(folder: Path, tmp_path: Path) -> None:
    signer = build_signer(folder / "source.mp4")
    signer.claim = replace(signer.claim, model={"name": "\x1b[2J"}, version="1\n2")
    write_video(tmp_path / "result.mp4", make_clip(), finish=signer.sign_file)
    outcome = run(tmp_path / "result.mp4")
    assert outcome.exit_code == 0 and "\x1b" not in outcome.stdout


@pytest.mark.parametrize("edit", [{"region": 3}, {"region": {"boxes": [{"boxes": [[1]]}], "frame_ranges": 4}}, {"files": [1], "loras": {}}])
def test_malformed_record(folder: Path, tmp_path: Path, edit: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone may write this project's assertion; a malformed one is shown as far as it can be read."""
    from lora_edit.provenance import claim

    with monkeypatch.context() as patch:
        patch.setattr(claim, "build_edit_record", lambda _: edit)
        write_video(tmp_path / "result.mp4", make_clip(), finish=build_signer(folder / "source.mp4").sign_file)
    assert run(tmp_path / "result.mp4").exit_code == 0


def test_python_interface(folder: Path) -> None:
    report = lora_edit.verify(folder / "result.mp4", source=str(folder / "source.mp4"))
    assert isinstance(report, VerificationReport) and report.is_valid


def test_check_of_the_manifest_loads_no_torch(folder: Path) -> None:
    code = (
        "import atexit, os, sys; from lora_edit.cli.main import main; sys.argv = ['lora-edit', 'verify', '--no-watermark', sys.argv[1]]; "
        "atexit.register(lambda: os._exit(3 if {'torch', 'av', 'cv2'} & set(sys.modules) else 0)); main()"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder / "result.mp4")], check=False, capture_output=True).returncode == 0
