"""Fidelity of results for forty kinds of sources: `PYTHONPATH=src:tests python benchmarks/source_matrix.py [CLIP] [--output PAGE.md]`.

Each source is made from the same pictures (of a real clip if one is given) with a click every 0.2 s, edited by `preview`
with a box, and read back by PyAV: frames, times, size, pixel aspect, tags, tracks, clicks, and the PSNR outside the edit.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from lora_edit.config import resolve_settings
from lora_edit.errors import InputError
from lora_edit.evaluation.psnr import psnr
from lora_edit.pipeline import preview
from lora_edit.types import Size, Video
from lora_edit.video.read import read_video
from lora_edit.video.resize import resize_frames
from lora_edit.video.settings import VideoSettings
from video import sources
from video.clips import make_clip

FRAMES, SIZE = 12, Size(96, 160)
BOX = {"x": 20, "y": 20, "width": 60, "height": 40}
MARGIN = 12
"""Margin of the box that counts as edited, in pixels: its feather, and the blocks with shared chroma."""

HEADER = ("source", "output", "frames", "times", "size", "aspect", "fields", "tags", "sound", "clicks", "background", "notes")
INTRODUCTION = """# Sources, one by one

`PYTHONPATH=src:tests python benchmarks/source_matrix.py CLIP --output docs/benchmarks/source-matrix.md`, two CPU cores,
2026-11-28. CLIP was a real clip; sources are {frames} frames of {size} pixels, made on the fly, with a click every 0.2 s in
their sound.

Each is edited by `lora-edit preview` with a box and read back. Times and clicks give the largest difference in milliseconds
(a frame is 40), the background the PSNR in dB of all that lies {margin} pixels or more outside the box, between the decoded
source and the decoded result. Tags are H.273 codes. Folders of pictures and HDR become 4:2:0, which costs colour along edges
(much, at this size); 10-bit 4:2:0 is rounded to 8 bits.

"""


@dataclass(frozen=True)
class Kind:
    """One kind of source: its name, its maker, and the result's name."""

    name: str
    make: Callable[[Path], Path]
    output: str = "result.mp4"


@dataclass
class Notes:
    """A reporter that stores the notes."""

    texts: list[str] = field(default_factory=list)

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Ignore progress."""

    def note(self, text: str) -> None:
        """Store a note."""
        self.texts.append(text)


class Maker:
    """Makes sources of the given pictures."""

    def __init__(self, pictures: sources.Pictures) -> None:
        self.pictures = pictures
        self.clicks = sources.make_clicks(len(pictures) / 25)

    def clip(self, name: str, codec: str = "libx264", pix_fmt: str = "yuv420p", **options: Any) -> Callable[[Path], Path]:
        """Write a file with `sources.write_source`, with mono clicks unless `sound` says otherwise."""

        def make(folder: Path) -> Path:
            turn = options.get("turn")
            given = {"sound": self.clicks} | {key: value for key, value in options.items() if key != "turn"}
            path = sources.write_source(folder / name, self.pictures, codec, pix_fmt, **given)
            return sources.set_display_matrix(path, turn) if turn else path

        return make

    def marked(self, name: str, codec: str = "libx264", pix_fmt: str = "yuv420p", **values: Any) -> Callable[[Path], Path]:
        """Write the same with fields of the codec's context set, as tags and pixel aspect."""

        def prepare(stream: av.VideoStream) -> None:
            for key, value in values.items():
                if key != "options":
                    setattr(stream.codec_context, key, value)

        return self.clip(name, codec, pix_fmt, prepare=prepare, options=values.get("options"))

    def joined(self, *offsets: float) -> Callable[[Path], Path]:
        """Write recordings of a transport stream, one after the other in one file."""

        def make(folder: Path) -> Path:
            whole = self.clip("whole.mp4")(folder)
            parts = [sources.remux(whole, folder / f"{index}.ts", offset).read_bytes() for index, offset in enumerate(offsets)]
            (folder / "joined.ts").write_bytes(b"".join(parts))
            return folder / "joined.ts"

        return make

    def stills(self, ending: str, **options: Any) -> Callable[[Path], Path]:
        """Write a folder of pictures."""

        def make(folder: Path) -> Path:
            (folder / "stills").mkdir()
            for number, picture in enumerate(self.pictures):
                Image.fromarray(picture).save(folder / "stills" / f"{number:03d}{ending}", **options)
            return folder / "stills"

        return make

    def see_through(self, name: str, codec: str, pix_fmt: str, **options: Any) -> Callable[[Path], Path]:
        """Write a clip whose right third is half transparent."""

        def shape(picture: np.ndarray) -> av.VideoFrame:
            alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
            alpha[:, -picture.shape[1] // 3 :] = 128
            return av.VideoFrame.from_ndarray(np.dstack([picture, alpha]), format="rgba").reformat(format=pix_fmt)

        def prepare(stream: av.VideoStream) -> None:
            stream.metadata["alpha_mode"] = "1"

        return self.clip(name, codec, pix_fmt, shape=shape, prepare=prepare, sound_codec="libopus", options=options)


def kinds(maker: Maker) -> Iterator[Kind]:
    """List the forty kinds."""
    yield from of_containers(maker)
    yield from of_colours(maker)
    yield from of_clocks_and_sound(maker)


def of_containers(maker: Maker) -> Iterator[Kind]:
    """List containers, codecs and rotated pictures."""
    fields = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    yield Kind("H.264 .mp4", maker.clip("a.mp4"))
    yield Kind("H.264 .mov to .mov", maker.clip("a.mov"), "result.mov")
    yield Kind("H.264 .mkv to .mkv", maker.clip("a.mkv"), "result.mkv")
    yield Kind("H.264 .ts", maker.clip("a.ts"))
    yield Kind("H.264 .flv", maker.clip("a.flv"))
    yield Kind("HEVC .mp4", maker.clip("a.mp4", "libx265"))
    yield Kind("VP9 .webm to .webm", maker.clip("a.webm", "libvpx-vp9", sound_codec="libopus", options={"crf": "12"}), "result.webm")
    yield Kind("AV1 .mkv", maker.clip("a.mkv", "libsvtav1", options={"crf": "20"}))
    yield Kind("MPEG-2 .ts, MP2", maker.clip("a.ts", "mpeg2video", sound_codec="mp2", options={"qmin": "1", "qmax": "2"}))
    yield Kind("MPEG-4 .avi, MP3", maker.clip("a.avi", "mpeg4", sound_codec="libmp3lame", options={"qmin": "1", "qmax": "2"}))
    yield Kind("MJPEG .avi", maker.clip("a.avi", "mjpeg", "yuvj420p", sound_codec="pcm_s16le", options={"qmin": "1", "qmax": "2"}))
    for name, turn in (("90", (0, 1, -1, 0)), ("180", (-1, 0, 0, -1)), ("270", (0, -1, 1, 0)), ("mirrored", (-1, 0, 0, 1))):
        yield Kind(f"rotated: {name}", maker.clip("a.mp4", turn=turn))
    yield Kind("pixel aspect 64:45", maker.marked("a.mp4", sample_aspect_ratio=Fraction(64, 45)))
    yield Kind("interlaced, top first", maker.marked("a.ts", field_order=2, options=fields))
    yield Kind("folder of PNG", maker.stills(".png"))
    yield Kind("folder of JPEG", maker.stills(".jpg", quality=95))


def of_colours(maker: Maker) -> Iterator[Kind]:
    """List chroma formats, depths, ranges, matrices, transparency."""
    yield Kind("4:2:2", maker.clip("a.mp4", pix_fmt="yuv422p"))
    yield Kind("4:4:4", maker.clip("a.mp4", pix_fmt="yuv444p"))
    yield Kind("4:1:1 FFV1", maker.clip("a.mkv", "ffv1", "yuv411p"))
    yield Kind("RGB FFV1", maker.clip("a.mkv", "ffv1", "bgr0"))
    yield Kind("10-bit 4:2:0", maker.clip("a.mp4", "libx265", "yuv420p10le"))
    yield Kind("10-bit 4:2:2 ProRes", maker.clip("a.mov", "prores_ks", "yuv422p10le", sound_codec="pcm_s16le"))
    yield Kind("full range", maker.marked("a.mp4", color_range=2))
    yield Kind("BT.601 tags", maker.marked("a.mp4", colorspace=6, color_primaries=6, color_trc=6))
    yield Kind("BT.709 tags", maker.marked("a.mp4", colorspace=1, color_primaries=1, color_trc=1))
    yield Kind("BT.2020, SDR", maker.marked("a.mp4", colorspace=9, color_primaries=9, color_trc=14))
    yield Kind("HDR (PQ)", maker.marked("a.mp4", "libx265", "yuv420p10le", colorspace=9, color_primaries=9, color_trc=16))
    yield Kind("HDR (HLG)", maker.marked("a.mp4", "libx265", "yuv420p10le", colorspace=9, color_primaries=9, color_trc=18))
    yield Kind("alpha: FFV1 to folder", maker.see_through("a.mkv", "ffv1", "bgra"), "result")
    yield Kind("alpha: VP9", maker.see_through("a.webm", "libvpx-vp9", "yuva420p", **{"auto-alt-ref": "0", "crf": "12"}))


def of_clocks_and_sound(maker: Maker) -> Iterator[Kind]:
    """List rates, start times, edit lists, joined files; gaps, channels and tracks of sound."""
    count = len(maker.pictures)
    uneven = [index / 25 + (0.013 if index % 3 else 0) for index in range(count)]
    yield Kind("variable rate", maker.clip("a.mp4", times=uneven, time_base=Fraction(1, 1000)))
    yield Kind("starts at 3 s, .mkv", maker.clip("a.mkv", start=3.0))
    yield Kind("shortened edit list", lambda folder: sources.shorten_edit_list(maker.clip("a.mp4", options={"bf": "2"})(folder), 240))
    yield Kind("joined .ts, clock starts again", maker.joined(0, 0))
    yield Kind("spliced .ts, 0.2 s too early", maker.joined(1000, 1000 + count / 25 - 0.2))
    yield Kind("hole in the sound", maker.clip("a.mkv", sound_codec="pcm_s16le", sound_gap=(0.15, 0.25)))
    yield Kind("5.1", maker.clip("a.mov", sound=sources.make_clicks(count / 25, 6), sound_codec="pcm_s24le", layout="5.1"))


def measure(kind: Kind, folder: Path) -> tuple[str, ...]:
    """Measure one kind; returns its row."""
    source = kind.make(folder)
    before = read_video(source)
    first = before.frames[0].numpy().copy()
    first[20:60, 20:80] = (200, 30, 30)
    Image.fromarray(first).save(folder / "first.png")
    settings = resolve_settings(
        {"input": {"source": str(source), "first_frame": str(folder / "first.png"), "boxes": [BOX]}, "masks": {"check": False}}
    )
    notes = Notes()
    output = preview(settings, folder / kind.output, notes)
    after = read_video(output)
    outside = torch.ones(before.frames.shape[:3], dtype=torch.bool)
    outside[:, 20 - MARGIN : 60 + MARGIN, 20 - MARGIN : 80 + MARGIN] = False
    late = max(abs(new - old) for new, old in zip(after.times, before.times, strict=True))
    tags = "as the source" if before.tags == after.tags or not output.is_file() else f"{short(before)} to {short(after)}"
    return (
        kind.name,
        output.suffix or "folder",
        f"{after.num_frames} of {before.num_frames}",
        f"{1000 * late:.0f}",
        same(str(before.size), str(after.size)),
        same(str(before.pixel_aspect), str(after.pixel_aspect)),
        same(before.field_order, after.field_order),
        tags,
        same(channels(source), channels(output)),
        click_error(source, output, before),
        f"{psnr(after.frames, before.frames, outside):.1f}",
        "; ".join(text for text in notes.texts if "edited first frame" not in text and "drawn without proof" not in text) or "none",
    )


def same(before: str, after: str) -> str:
    """Format both values, or that they are equal."""
    return before if before == after else f"{before} to {after}"


def short(video: Video) -> str:
    """Format matrix, primaries, transfer and range."""
    tags = video.tags
    return "none" if tags is None else f"{tags.matrix}/{tags.primaries}/{tags.transfer}{' full' if tags.full else ''}"


def channels(path: Path) -> str:
    """Format the channels of every audio track."""
    if not path.is_file():
        return "none"
    try:
        with av.open(f"file:{path}") as container:
            return ", ".join(str(stream.codec_context.channels) for stream in container.streams.audio) or "none"
    except av.error.FFmpegError:
        return "none"


def click_error(source: Path, output: Path, before: Video) -> str:
    """Compute the largest shift of a click in ms; joined files have clicks every 0.2 s in each part."""
    if channels(output) == "none":
        return "none"
    heard = sources.find_click_times(output)
    if len(before.shifts) > 1:
        part = before.num_frames // 2 / 25
        wanted = [time + start for start in (0, part) for time in sources.find_click_times(source.with_name("whole.mp4"))]
    else:
        end = before.times[-1] + 0.04
        wanted = [time for time in sources.find_click_times(source) if time < end]
        heard = [time for time in heard if time < end]
    if len(heard) != len(wanted):
        return f"{len(heard)} of {len(wanted)}"
    return f"{1000 * max((abs(new - old) for new, old in zip(heard, wanted, strict=True)), default=0):.0f}"


def pictures_of(clip: Path | None) -> sources.Pictures:
    """Read a real clip's first frames at the size of all sources, or draw pictures."""
    if clip is None:
        return list(make_clip(FRAMES, SIZE.height, SIZE.width).frames.numpy())
    return list(resize_frames(read_video(clip, VideoSettings(frames=FRAMES)).frames, SIZE).numpy())


def main() -> None:
    """Measure every kind and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows = [HEADER, tuple("---" for _ in HEADER)]
    for kind in kinds(Maker(pictures_of(given.clip))):
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(measure(kind, Path(folder)))
            except (InputError, av.error.FFmpegError, ValueError) as error:
                rows.append((kind.name, f"failed: {error}", *[""] * (len(HEADER) - 2)))
        print(" | ".join(rows[-1]), flush=True)
    page = INTRODUCTION.format(frames=FRAMES, size=SIZE, margin=MARGIN) + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    if given.output:
        given.output.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
