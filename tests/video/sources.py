"""Source files as other programs write them, generated with PyAV: containers, tracks, tags and errors."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lora_edit.types import Video
from video.clips import make_clip

RATE = 48000
Pictures = Sequence[np.ndarray]
Turn = tuple[int, int, int, int]


def pictures(num_frames: int = 50, height: int = 96, width: int = 160, grain: int = 6) -> Pictures:
    """Make drifting gradients `[H, W, 3]` uint8 with up to `grain` levels of noise, so that pixels are not equal by chance."""
    noise = np.random.default_rng(0).integers(-grain, grain + 1, (height, width, 3))
    smooth = make_clip(num_frames, height, width).frames.numpy().astype(int)
    return [(frame * 4 // 5 + 20 + noise).clip(0, 255).astype(np.uint8) for frame in smooth]


def make_clicks(seconds: float = 2.0, channels: int = 1) -> np.ndarray:
    """Make samples `[channels, n]` float32 with a click of 10 ms every 0.2 s, starting at 0.1 s."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.8 * np.sin(2 * np.pi * 1500 * time) * ((time + 0.1) % 0.2 < 0.01)
    return np.repeat(sound[None].astype(np.float32), channels, axis=0)


def find_click_times(path: Path, track: int = 0) -> list[float]:
    """Find the times of the clicks in a file's audio, in seconds after its first frame."""
    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        origin = float(next(container.decode(stream)).pts * stream.time_base)
    times: list[float] = []
    with av.open(f"file:{path}") as container:
        stream = container.streams.audio[track]
        resampler = av.AudioResampler(format="flt", layout=stream.codec_context.layout, rate=stream.codec_context.sample_rate)
        for frame in (piece for decoded in container.decode(stream) for piece in resampler.resample(decoded)):
            level = np.abs(frame.to_ndarray()).reshape(-1, frame.layout.nb_channels).max(1)
            for index in np.flatnonzero(level > 0.3):
                time = float(frame.pts * frame.time_base) + index / frame.sample_rate - origin
                if not times or time > times[-1] + 0.05:
                    times.append(time)
    return times


def write_source(
    path: Path,
    frames: Pictures,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    layout: str = "mono",
    options: dict[str, str] | None = None,
    start: float = 0.0,
    times: Sequence[float] | None = None,
    time_base: Fraction | None = None,
    sound_gap: tuple[float, float] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    form: str | None = None,
    container_options: dict[str, str] | None = None,
    shape: Callable[[np.ndarray], av.VideoFrame] | None = None,
) -> Path:
    """Write a clip of 25 frames a second.

    `sound` is `[channels, n]` at 48 kHz; the part inside `sound_gap` (seconds) is omitted. `prepare` configures the video stream. `shape`
    converts an image to a frame of `pix_fmt`.
    """
    with av.open(f"file:{path}", "w", format=form, options=container_options or {}) as output:
        stream = output.add_stream(
            codec, rate=25, options={"crf": "12", **(options or {})} if codec.startswith("libx26") else options or {}
        )
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base or Fraction(1, 25)
        prepare(stream)
        tracks = [] if sound is None else [output.add_stream(sound_codec, rate=RATE, layout=layout)]
        for index, picture in enumerate(frames):
            frame = shape(picture) if shape else av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.time_base = stream.codec_context.time_base
            frame.pts = round((times[index] if times else index / 25) / frame.time_base) + round(start / float(frame.time_base))
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for track in tracks:
            assert sound is not None
            _write_sound(output, track, sound, layout, start, sound_gap)
    return path


def _write_sound(
    output: av.container.OutputContainer,
    track: av.AudioStream,
    sound: np.ndarray,
    layout: str,
    start: float,
    gap: tuple[float, float] | None,
) -> None:
    step = 1024
    for first in range(0, sound.shape[1], step):
        if gap and gap[0] <= first / RATE < gap[1]:
            continue
        piece = np.ascontiguousarray(sound[:, first : first + step].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, first + round(start * RATE), Fraction(1, RATE)
        output.mux(track.encode(frame))
    output.mux(track.encode(None))


def remux(source: Path, target: Path, offset: float = 0.0) -> Path:
    """Copy the packets to another container, `offset` seconds later."""
    with av.open(f"file:{source}") as original, av.open(f"file:{target}", "w") as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in original.streams}
        for packet in original.demux():
            if packet.size:
                shift = round(offset / float(packet.time_base))
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    return target


def shorten_edit_list(path: Path, milliseconds: int) -> Path:
    """Shorten an MP4's edit list to its first part, as a lossless trim does."""
    data = bytearray(path.read_bytes())
    position = data.index(b"elst") + 12
    data[position : position + 4] = struct.pack(">I", milliseconds)
    path.write_bytes(data)
    return path


def set_display_matrix(path: Path, matrix: Turn) -> Path:
    """Write a display matrix (a, b, c, d) to an MP4's first track header."""
    data = bytearray(path.read_bytes())
    position = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[position : position + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def plain(path: Path, num_frames: int = 25) -> Path:
    """Write a 4:2:0 clip with clicks in AAC."""
    return write_source(path, pictures(num_frames), sound=make_clicks(num_frames / 25))


def repaint(video: Video) -> Video:
    """Paint a box of 60x40 pixels red, like an edit."""
    frames = video.frames.clone()
    frames[:, 20:60, 20:80] = frames.new_tensor([200, 30, 30])
    return replace(video, frames=frames)
