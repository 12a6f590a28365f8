"""Signing: what players read stays as it was, nothing unsigned gets a result's name, and nothing private gets into a file."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from lora_edit.errors import SigningError, VideoError
from lora_edit.provenance import signing
from lora_edit.provenance.certificate import load_credentials
from lora_edit.provenance.library import LibraryError
from lora_edit.provenance.settings import ProvenanceSettings
from lora_edit.provenance.signing import ResultSigner, check_sidecar, finish_unsigned, sidecar_path
from lora_edit.provenance.verification import verify_file
from lora_edit.types import Chapter
from lora_edit.video.read import read_image, read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from provenance.signed_files import build_claim, build_signer, sign_copy
from video.clips import make_clip, write_with_sound


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with sound."""
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    write_with_sound(path, make_clip())
    return path


def list_packets(path: Path) -> list[tuple[Any, ...]]:
    with av.open(str(path)) as container:
        return [(p.stream.index, p.pts, p.dts, p.duration, p.is_keyframe, bytes(p)) for p in container.demux() if p.size]


def list_boxes(path: Path) -> list[str]:
    data, position, names = path.read_bytes(), 0, []
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        names.append(data[position + 4 : position + 8].decode())
        position += int.from_bytes(data[position + 8 : position + 16], "big") if size == 1 else size or len(data)
    return names


def describe_container(path: Path) -> tuple[Any, ...]:
    with av.open(str(path)) as container:
        streams = [(s.type, s.start_time, s.duration, s.frames, s.time_base) for s in container.streams]
        return container.duration, container.start_time, dict(container.metadata), container.chapters(), streams


@pytest.mark.parametrize("name", ["result.mp4", "result.mov"])
def test_frames_sound_and_times_are_those_of_the_unsigned_file(tmp_path: Path, source: Path, name: str) -> None:
    """Every packet, the chapters, the edit lists and the order of the boxes."""
    clip = replace(read_video(source), last_duration=0.1, chapters=(Chapter("one", 0.0, 0.1), Chapter("two", 0.1, 0.24)))
    write_video(tmp_path / f"plain-{name}", clip)
    write_video(tmp_path / name, clip, finish=build_signer(source).sign_file)
    plain, signed = tmp_path / f"plain-{name}", tmp_path / name
    assert verify_file(signed).is_valid
    assert list_packets(signed) == list_packets(plain)
    assert describe_container(signed) == describe_container(plain)
    assert torch.equal(read_video(signed).frames, read_video(plain).frames)
    assert [box for box in list_boxes(signed) if box != "uuid"] == list_boxes(plain)


@pytest.mark.parametrize(
    "options",
    [{"movflags": "frag_keyframe+empty_moov"}, {"movflags": "frag_keyframe+empty_moov+default_base_moof"}, {"movflags": "faststart"}, {}],
)
def test_other_layouts_of_mp4_stay_readable(tmp_path: Path, source: Path, options: dict[str, str]) -> None:
    """Fragments with and without their own base offset, the index in front or at the end."""
    plain = tmp_path / "plain.mp4"
    with av.open(str(source)) as container, av.open(str(plain), "w", options=options) as output:
        streams = [output.add_stream_from_template(stream) for stream in container.streams]
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    signed = sign_copy(plain, tmp_path / "signed.mp4", build_signer(source))
    assert verify_file(signed).is_valid and list_packets(signed) == list_packets(plain)


@pytest.mark.parametrize("name", ["result.mkv", "result.webm", "result.gif", "result"])
def test_sidecars(tmp_path: Path, source: Path, name: str) -> None:
    """A file is unchanged, byte for byte; a folder's sidecar covers the names and the bytes of its frames."""
    clip = make_clip()
    write_video(tmp_path / name, clip, finish=build_signer(source).sign_file)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.c2pa"])
    assert verify_file(tmp_path / name).manifest == tmp_path / f"{name}.c2pa"
    assert verify_file(tmp_path / name).is_valid
    if name != "result":
        (tmp_path / "plain").mkdir()
        write_video(tmp_path / "plain" / name, clip)
        assert (tmp_path / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
        return
    frames = sorted((tmp_path / name).iterdir())
    frames[1].rename(frames[1].with_name("00009.png"))
    assert verify_file(tmp_path / name).state == "invalid"


def test_sidecar_named_as_other_tools_do(tmp_path: Path, source: Path) -> None:
    write_video(tmp_path / "result.mkv", make_clip(), finish=build_signer(source).sign_file)
    (tmp_path / "result.mkv.c2pa").rename(tmp_path / "result.c2pa")
    assert verify_file(tmp_path / "result.mkv").is_valid


def test_sidecar_of_another_file_is_not_replaced(tmp_path: Path, source: Path) -> None:
    sidecar_path(tmp_path / "result.mkv").write_bytes(b"somebody's")
    with pytest.raises(VideoError, match=r"result.mkv.c2pa: exists already, .*; remove it or choose another name"):
        check_sidecar(tmp_path / "result.mkv", overwrite=False)
    check_sidecar(tmp_path / "result.mkv", overwrite=True)
    check_sidecar(tmp_path / "result.mp4", overwrite=False)


def test_unsigned_result_takes_no_earlier_sidecar(tmp_path: Path, source: Path) -> None:
    write_video(tmp_path / "result.mkv", make_clip(), finish=build_signer(source).sign_file)
    write_video(tmp_path / "result.mkv", make_clip(3), overwrite=True, finish=finish_unsigned)
    assert [path.name for path in tmp_path.iterdir()] == ["result.mkv"] and verify_file(tmp_path / "result.mkv").state == "absent"


def test_pictures_are_signed(tmp_path: Path, source: Path) -> None:
    image = make_clip().frames[0]
    save_image(tmp_path / "poster.png", image, build_signer(source).sign_png)
    assert verify_file(tmp_path / "poster.png").is_valid and torch.equal(read_image(tmp_path / "poster.png"), image)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff", "png"])
def test_image_formats(tmp_path: Path, source: Path, suffix: str) -> None:
    from PIL import Image

    Image.fromarray(make_clip().frames[0].numpy()).save(tmp_path / f"plain.{suffix}")
    signed = sign_copy(tmp_path / f"plain.{suffix}", tmp_path / f"signed.{suffix}", build_signer(source))
    assert verify_file(signed).is_valid
    assert torch.equal(read_image(signed), read_image(tmp_path / f"plain.{suffix}"))


@pytest.mark.parametrize("name", ["result.mp4", "result.mkv", "result"])
def test_failure_leaves_nothing_under_the_results_name(tmp_path: Path, source: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> bytes:
        raise LibraryError("Io: No space left on device")

    signer = build_signer(source)
    monkeypatch.setattr(signing, "sign_stream", fail)
    with pytest.raises(SigningError, match=rf"{name}: the finished result cannot be signed \(Io: No space left.*add --no-sign"):
        write_video(tmp_path / name, make_clip(), finish=signer.sign_file)
    assert not list(tmp_path.iterdir())


def test_full_disk_in_the_middle_of_signing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reports the failure of a write, the earlier result stays as it was."""
    write_video(tmp_path / "result.mp4", make_clip(3))
    before = (tmp_path / "result.mp4").read_bytes()
    real_open = Path.open

    def open_on_full_disk(path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        return real_open(Path("/dev/full"), "r+b", buffering=0) if mode == "w+b" else real_open(path, mode, *arguments, **keywords)

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    signer = build_signer(source)
    monkeypatch.setattr(Path, "open", open_on_full_disk)
    with pytest.raises(VideoError):
        write_video(tmp_path / "result.mp4", make_clip(), overwrite=True, finish=signer.sign_file)
    assert [path.name for path in tmp_path.iterdir()] == ["result.mp4"] and (tmp_path / "result.mp4").read_bytes() == before


def test_time_stamp_authority_that_fails_at_the_end_costs_the_stamp_only(tmp_path: Path, source: Path) -> None:
    credentials = load_credentials(ProvenanceSettings())
    stamped = replace(credentials, key=replace(credentials.key, timestamp_url="http://127.0.0.1:9"))
    signer = ResultSigner(build_claim(source), stamped)
    write_video(tmp_path / "result.mp4", make_clip(), finish=signer.sign_file)
    assert verify_file(tmp_path / "result.mp4").is_valid
    assert len(signer.notes) == 1 and signer.notes[0].startswith("the manifest has no time stamp: http://127.0.0.1:9 did not give one")


def test_a_signed_file_holds_nothing_private(tmp_path: Path, source: Path) -> None:
    """No folder, no user, no computer, no private key."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    credentials = load_credentials(ProvenanceSettings())
    write_video(tmp_path / "result.mp4", make_clip(), finish=build_signer(source, credentials).sign_file)
    data = (tmp_path / "result.mp4").read_bytes()
    private_names = {str(source.parent), str(Path.home()) + os.sep, str(tmp_path)}
    private_names |= {name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 4}  # shorter ones occur by chance
    assert not [name for name in private_names if name.encode() in data]
    key = load_pem_private_key(credentials.key.private_key, None)
    assert key.private_numbers().private_value.to_bytes(32, "big") not in data


def test_how_a_run_is_signed_in_words(source: Path) -> None:
    """For the report and the page; runs of earlier versions have no record."""
    signed, unsigned = signing.describe_provenance(build_signer(source)), signing.describe_provenance(None)
    assert signing.summarize_provenance({}) == () and signing.build_provenance_rows({}) == []
    assert signing.summarize_provenance(signed) == ("Signed: lora-edit on one computer, self-signed, identity not checked.",)
    assert signing.summarize_provenance(unsigned) == ("Not signed: signing was switched off.",)
    assert dict(signing.build_provenance_rows(signed))["time stamp"] == "none"
