"""Verify a result after what happens to files: untouched, one bit changed, encoded again, cut, taken for another clip's.

`PYTHONPATH=src:tests python benchmarks/provenance.py FOLDER [--clip SOURCE FIRST] [--frames N]` previews the bundled clip, writes one file
for each case to FOLDER, and prints a table of what `lora-edit verify` and the C2PA library's own reader say of each. Other readers can then
read the same files; docs/benchmarks/provenance.md has one in JavaScript.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import c2pa

import lora_edit
from lora_edit import pipeline
from lora_edit.provenance.certificate import Credentials, load_credentials, load_local_credentials
from lora_edit.provenance.claim import SOURCE_TYPE
from lora_edit.provenance.signing import ResultSigner, sidecar_path
from lora_edit.result_claim import build_claim
from lora_edit.video.read import read_video
from lora_edit.video.write import write_video

CLIP = Path(__file__).parents[1] / "examples" / "clip"


def flip_bit(source: Path, target: Path, marker: bytes, offset: int) -> None:
    """Copy a file with the lowest bit changed of the byte `offset` behind the first `marker`."""
    data = bytearray(source.read_bytes())
    data[data.index(marker) + offset] ^= 1
    target.write_bytes(data)


def remux(source: Path, target: Path, packets: int | None = None) -> None:
    """Copy the first packets of the video stream into a new container, without encoding them again."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in list(container.demux(video=0))[:packets]:
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)


def sign_as_camera(source: Path, target: Path, folder: Path) -> None:
    """Give a source a manifest of its own, as a camera would."""
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE.replace("compositeWithTrainedAlgorithmicMedia", "digitalCapture")}
    definition = {
        "claim_generator_info": [{"name": "a camera", "version": "1"}],
        "title": target.name,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    key = load_local_credentials(folder / "camera").key
    info = c2pa.C2paSignerInfo(key.algorithm, key.certificate_chain, key.private_key, None)
    with c2pa.Builder(definition) as builder, c2pa.Signer.from_info(info) as signer:
        builder.sign_file(source, target, signer)


def make_cases(folder: Path, source: Path, first_frame: Path, frames: int) -> dict[str, Path]:
    """Write all files and list them by what happened to them."""
    result, camera, changed = folder / "result.mp4", folder / "camera.mp4", folder / "camera-changed.mp4"
    sign_as_camera(source, camera, folder)
    flip_bit(camera, changed, b"mdat", 5000)
    settings = lora_edit.build_settings(source, first_frame, settings={"video": {"frames": frames}})
    lora_edit.preview(settings, output=result, overwrite=True)
    clip, edited = pipeline.check(settings), read_video(result)

    def write_edit_of(each: Path, name: str, credentials: Credentials | None = None) -> Path:
        """Write the same frames as an edit of another source, or signed by somebody else."""
        of_source = lora_edit.build_settings(each, first_frame, settings={"video": {"frames": frames}})
        signer = ResultSigner(build_claim(of_source, clip), credentials or load_credentials(settings.provenance))
        write_video(folder / name, edited, overwrite=True, finish=signer.sign_file)
        return folder / name

    cases: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "one bit of the frames (mdat)": ("bit-mdat.mp4", lambda path: flip_bit(result, path, b"mdat", 5000)),
        "one bit of the index (moov)": ("bit-moov.mp4", lambda path: flip_bit(result, path, b"stsz", 20)),
        "one bit of the claim (manifest box)": ("bit-claim.mp4", lambda path: flip_bit(result, path, b"compositeWithTrained", 3)),
        "one bit of the certificate (manifest box)": ("bit-cert.mp4", lambda path: flip_bit(result, path, b"lora-edit on one", 3)),
        "one bit of a label (manifest box)": ("bit-label.mp4", lambda path: flip_bit(result, path, b"c2pa.signature", 3)),
        "one byte added at the end, as a box": ("added.mp4", lambda path: path.write_bytes(result.read_bytes() + b"\0\0\0\x09mdat\0")),
        "the last 1,000 bytes lost": ("truncated.mp4", lambda path: path.write_bytes(result.read_bytes()[:-1000])),
        "encoded again": ("again.mp4", lambda path: write_video(path, edited, overwrite=True)),
        "copied into a new container, all frames": ("remuxed.mp4", lambda path: remux(result, path)),
        "cut to half of its frames": ("cut.mp4", lambda path: remux(result, path, frames // 2)),
        "an unrelated video": ("unrelated.mp4", lambda path: shutil.copyfile(source, path)),
    }
    files = {"untouched": result}
    for title, (name, make) in cases.items():
        files[title] = folder / name
        make(folder / name)
    other = folder / "other.mkv"
    remux(source, other)
    shutil.copyfile(sidecar_path(write_edit_of(source, "result.mkv")), sidecar_path(other))
    return files | {
        "an untouched result with a sidecar": folder / "result.mkv",
        "an unrelated video with that sidecar": other,
        "signed by somebody else": write_edit_of(source, "somebody.mp4", load_local_credentials(folder / "somebody")),
        "edited from a source with a manifest of its own": write_edit_of(camera, "from-camera.mp4"),
        "edited from such a source, changed since": write_edit_of(changed, "from-changed.mp4"),
    }


def run_verify(path: Path) -> tuple[int, dict[str, Any], float]:
    """Run `lora-edit verify --json`; returns exit code, record and seconds."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "lora_edit", "verify", str(path), "--json"], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout), time.perf_counter() - started


def read_with_library(path: Path) -> str:
    """Read a file with the library's own reader in its default settings."""
    sidecar = sidecar_path(path)
    try:
        with path.open("rb") as file, c2pa.Reader("", file, sidecar.read_bytes() if sidecar.is_file() else None) as reader:
            failures = (reader.get_validation_results() or {}).get("activeManifest", {}).get("failure", [])
            codes = [each["code"] for each in failures if each["code"] != "signingCredential.untrusted"]
            return ", ".join([str(reader.get_validation_state()), *dict.fromkeys(codes)])
    except c2pa.C2paError as error:
        return " ".join(str(error).split())[:60]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clip", nargs=2, type=Path, default=[CLIP / "source.mp4", CLIP / "first_frame.png"], metavar=("SOURCE", "FIRST"))
    parser.add_argument("--frames", type=int, default=9)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print("| file | case | exit | `lora-edit verify` | signature | library's reader | source's own |\n|---|---|---|---|---|---|---|")
    seconds = []
    for title, path in make_cases(options.folder, *options.clip, options.frames).items():
        code, record, duration = run_verify(path)
        seconds.append(duration)
        signer = (record["signer"] or {}).get("meaning", "-").partition(":")[0].partition(",")[0].replace("`", "'")
        own = (record["source"] or {}).get("manifest", "-")
        print(
            f"| `{path.name}` | {title} | {code} | {record['state']}: {record['reason']} | {signer} | {read_with_library(path)} | {own} |"
        )
    print(f"\nverify took {sorted(seconds)[len(seconds) // 2]:.1f} s (median), {max(seconds):.1f} s at most")


if __name__ == "__main__":
    main()
