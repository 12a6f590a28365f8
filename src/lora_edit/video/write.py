"""Clips to files: `write_video` picks the container by the name's ending, never harms an older file, and writes the same bytes twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from lora_edit.errors import VideoError
from lora_edit.types import Video
from lora_edit.video.colors import HD, Colours, array_to_frame
from lora_edit.video.kept import source_samples
from lora_edit.video.lossless import holds_only_frames, save_frames
from lora_edit.video.settings import Codec
from lora_edit.video.sound import Sound, add_sound
from lora_edit.video.timing import Ticks, frame_ticks, ticks_of

_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}
_CODECS: dict[str, tuple[Codec, ...]] = {
    ".mp4": ("h264", "h264-444"),
    ".mov": ("h264", "h264-444", "prores"),
    ".mkv": ("h264", "h264-444", "prores", "ffv1"),
    ".webm": ("h264",),  # the default codec's name: WebM always gets VP9
    ".gif": ("h264",),  # likewise
}
_THREADS = 4  # fixed, because encoders write other bytes for other thread counts


@dataclass(frozen=True)
class _Encoding:
    encoder: str
    pix_fmt: str
    options: dict[str, str] = field(default_factory=dict)
    keeps_alpha: bool = False


def write_video(path: Path, video: Video, codec: Codec = "h264", *, overwrite: bool = False, like: Video | None = None) -> None:
    """Write the clip with its exact frames, size, times and sound.

    With `like`, the clip that `video` was edited from, a 4:2:0 file gets its source file's own samples, stored in that file's colours,
    wherever the pixels are the same (`video/kept.py`).

    `path` ends in .mp4, .mov, .mkv, .webm (VP9) or .gif (256 colours per frame, no sound, times in hundredths of a second), or is a
    folder, which gets lossless PNG frames. `h264-444` loses nothing but the rounding to YUV (at most 2 levels of 255). Transparency is
    kept by prores, ffv1 and folders. The file appears only when it is whole.
    Raises `VideoError` for another ending, a codec that the container cannot hold, or an existing file unless `overwrite`.
    """
    suffix = check_output(path, codec, overwrite=overwrite)
    if not suffix:
        save_frames(path, video.frames, video.alpha)
        return
    partial = path.with_name(f".{path.stem}-{os.getpid()}.partial{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".gif":
            _write_gif(partial, video)
        else:
            _write_file(partial, video, suffix, _encoding(suffix, codec, video), like)
        check_output(path, codec, overwrite=overwrite)
        os.replace(partial, path)
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: cannot be written ({reason}); choose a writable folder with free space") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_output(path: Path, codec: Codec = "h264", *, overwrite: bool = False) -> str:
    """The ending that decides the format ("" for a folder). Raises `VideoError` where `write_video` would refuse."""
    suffix = path.suffix.lower()
    if suffix and suffix not in _FORMATS and not path.is_dir():
        raise VideoError(f"{path}: cannot write {suffix}; end the name in {', '.join(_FORMATS)}, or give a folder name for PNG frames")
    if path.is_dir():
        if suffix in _FORMATS:
            raise VideoError(f"{path}: is a folder; choose another file name")
        if any(path.iterdir()) and not (overwrite and holds_only_frames(path)):
            raise VideoError(f"{path}: the folder is not empty; choose another folder, or add --overwrite if it holds only PNG frames")
        return ""
    if path.exists() and not overwrite:
        raise VideoError(f"{path}: exists already; choose another name or add --overwrite")
    if suffix and codec not in _CODECS[suffix]:
        fitting = ", ".join(ending for ending, codecs in _CODECS.items() if codec in codecs)
        raise VideoError(f"{path}: {suffix} cannot hold codec {codec}; end the name in {fitting}, or leave the codec out")
    return suffix


def _encoding(suffix: str, codec: Codec, video: Video) -> _Encoding:
    if suffix == ".webm":
        options = {"crf": "12", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"}
        return _Encoding("libvpx-vp9", "yuv420p", options)
    if codec == "prores":
        pix_fmt = "yuv444p10le" if video.alpha is None else "yuva444p10le"
        return _Encoding("prores_ks", pix_fmt, {"profile": "4444", "qscale": "4", "alpha_bits": "16"}, keeps_alpha=True)
    if codec == "ffv1":
        pix_fmt = "bgr0" if video.alpha is None else "bgra"
        return _Encoding("ffv1", pix_fmt, {"level": "3", "slices": "4", "slicecrc": "1"}, keeps_alpha=True)
    odd = video.size.height % 2 or video.size.width % 2  # 4:2:0 shares one colour among 2x2 pixels
    # Fidelity over file size: at crf 1, tuned for error instead of looks, untouched pixels of real clips keep 50 dB at 15 to 30 Mbit/s.
    # Macroblock-tree rate control differs from run to run on some processors.
    options = {"preset": "medium", "tune": "psnr", "crf": "0" if codec == "h264-444" else "1", "mbtree": "0"}
    return _Encoding("libx264", "yuv444p" if codec == "h264-444" or odd else "yuv420p", options)


def _write_file(path: Path, video: Video, suffix: str, encoding: _Encoding, like: Video | None) -> None:
    ticks = frame_ticks(video)
    with ExitStack() as stack:
        kept = stack.enter_context(source_samples(like if encoding.pix_fmt == "yuv420p" else None))
        colours = HD if kept is None else kept.colours
        # "bitexact" leaves out the random identifiers and version texts that containers like to hold.
        output = stack.enter_context(av.open(str(path), "w", format=_FORMATS[suffix], container_options={"fflags": "+bitexact"}))
        stream = _add_stream(output, video, encoding, colours, ticks)
        sound = add_sound(stack, output, video, suffix)
        pictures = enumerate(_pictures(video, encoding.keeps_alpha))
        for (index, picture), start, duration in zip(pictures, ticks.starts, ticks.durations, strict=True):
            frame = array_to_frame(picture, encoding.pix_fmt, colours)
            if kept is not None:
                frame = kept.keep(frame, picture, index)
            frame.pts, frame.duration, frame.time_base = start, duration, ticks.time_base
            _mux(output, stream.encode(frame), sound)
        _mux(output, stream.encode(None), sound)
        if sound is not None:
            sound.rest()


def _add_stream(output: OutputContainer, video: Video, encoding: _Encoding, colours: Colours, ticks: Ticks) -> VideoStream:
    stream = output.add_stream(encoding.encoder, rate=video.fps, options=encoding.options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = video.size.width, video.size.height
    stream.pix_fmt = encoding.pix_fmt
    context = stream.codec_context
    context.time_base = ticks.time_base
    context.thread_count = _THREADS
    if "yuv" in encoding.pix_fmt:
        context.colorspace, context.color_primaries, context.color_trc = colours.matrix, colours.primaries, colours.transfer
        context.color_range = ColorRange.JPEG if colours.full else ColorRange.MPEG
    return stream


def _mux(output: OutputContainer, packets: list[Packet[VideoStream]], sound: Sound | None) -> None:
    for packet in packets:
        if sound is not None and packet.dts is not None:
            sound.before(float(packet.dts * packet.time_base))
        output.mux(packet)


def _pictures(video: Video, keeps_alpha: bool) -> Iterator[np.ndarray]:
    for index, rgb in enumerate(video.frames):
        if keeps_alpha and video.alpha is not None:
            rgb = torch.cat([rgb, video.alpha[index, :, :, None]], dim=-1)
        yield rgb.contiguous().cpu().numpy()


def _write_gif(path: Path, video: Video) -> None:
    ticks = ticks_of(video, Fraction(1, 100))
    with av.open(str(path), "w", format="gif", options={"loop": "0", "final_delay": str(ticks.durations[-1])}) as output:
        stream = output.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt = video.size.width, video.size.height, "pal8"
        stream.codec_context.time_base = ticks.time_base
        graph = _palette_graph(video, ticks)
        for picture, start in zip(_pictures(video, keeps_alpha=False), ticks.starts, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = start, ticks.time_base
            graph.push(frame)
            _encode_ready(output, stream, graph)
        graph.push(None)
        _encode_ready(output, stream, graph)
        output.mux(stream.encode(None))


def _palette_graph(video: Video, ticks: Ticks) -> av.filter.Graph:
    """A filter that gives every frame its own 256 colours."""
    graph = av.filter.Graph()
    rgb = av.VideoFormat("rgb24", video.size.width, video.size.height)
    source = graph.add_buffer(width=video.size.width, height=video.size.height, format=rgb, time_base=ticks.time_base)
    split, palette, use = graph.add("split"), graph.add("palettegen", "stats_mode=single"), graph.add("paletteuse", "new=1")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _encode_ready(output: OutputContainer, stream: VideoStream, graph: av.filter.Graph) -> None:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        output.mux(stream.encode(frame))
