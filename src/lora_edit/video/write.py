"""Writing of clips: the suffix selects the container, existing files are never damaged, and the same clip gives the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from lora_edit.atomic_files import build_partial_path, remove_abandoned_files, replace_file
from lora_edit.errors import VideoError
from lora_edit.types import Finish, OnFrame, Video
from lora_edit.video.audio import AudioMuxer, add_audio_streams
from lora_edit.video.chapters import add_chapters
from lora_edit.video.colors import SITING_LEFT, array_to_frame
from lora_edit.video.encoding import add_video_stream, choose_colour_tags, choose_encoding, should_interlace
from lora_edit.video.formats import FORMATS, check_codec, check_format, check_output_name, check_overwrite
from lora_edit.video.libav import open_output, set_field_order
from lora_edit.video.png_frames import holds_only_frames, save_frames
from lora_edit.video.settings import Codec
from lora_edit.video.source_samples import DEFAULT_PIX_FMT, open_source_samples
from lora_edit.video.timing import Ticks, compute_frame_ticks, quantize_frame_times

MAX_SIDE = 16384
"""Largest side in pixels that x264 supports."""


def write_video(
    path: Path,
    video: Video,
    codec: Codec = "h264",
    *,
    overwrite: bool = False,
    source_clip: Video | None = None,
    on_frame: OnFrame = lambda done, total: None,
    finish: Finish | None = None,
) -> None:
    """Write a clip with its exact frames, size, times and audio.

    - `path` ends in .mp4, .mov, .mkv, .webm (VP9) or .gif (256 colours per frame, no audio, times in hundredths of a second), or is a
      folder for lossless PNG frames. The file appears only when it is complete.
    - `codec`: `h264-420` plays everywhere, whatever the source. `h264-444` loses only the rounding to YUV (at most 2 levels of 255).
      prores, ffv1 and folders preserve transparency.
    - `source_clip` is the clip from which `video` was edited. With it, a file of codec `h264` contains the samples of the source file
      wherever the pixels are equal, and keeps that file's pixel format (`video/source_samples.py`).
    - `on_frame` is called after each encoded frame, `finish` with the complete file before it gets its final name, to sign it.

    Raises `VideoError` for another suffix, for a codec that the container does not support, and for an existing file unless `overwrite` is
    set.
    """
    suffix = check_output(path, codec, overwrite=overwrite)
    target = Path(os.path.realpath(path))  # writes through a link instead of replacing it
    remove_abandoned_files(target.parent, target)
    if not suffix:
        save_frames(path, video.frames, video.alpha, finish)
        return
    try:
        with replace_file(target, suffix) as partial:
            _write_file(partial, video, suffix, codec, source_clip, on_frame)
            check_output(path, codec, overwrite=overwrite)
            if finish:
                finish(partial, target)
    except (FFmpegError, OSError) as error:
        raise _build_write_error(path, error) from error


def verify_output_writable(path: Path, video: Video, codec: Codec = "h264") -> None:
    """Raise `VideoError` where a clip like `video` could not be written to `path`, by writing its first frame to a temporary file."""
    suffix = path.suffix.lower() if path.suffix.lower() in FORMATS else ""
    target = Path(os.path.realpath(path))
    partial = build_partial_path(target, suffix)
    first_frame = replace(
        video, frames=video.frames[:1], times=video.times[:1], alpha=None, source=None, has_sound=False, last_duration=None
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if suffix:
            _write_file(partial, first_frame, suffix, codec, first_frame)
        else:
            partial.mkdir()
            partial.rmdir()
    except (FFmpegError, OSError) as error:
        raise _build_write_error(path, error, video) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def describe_output_losses(path: Path, video: Video, codec: Codec = "h264") -> tuple[str, ...]:
    """Describe which properties of `video`, the clip to be edited, a result at `path` loses, and which not every player supports."""
    suffix = path.suffix.lower() if path.suffix.lower() in FORMATS else ""
    kind = suffix or "a folder of pictures"
    encoding = choose_encoding(suffix, codec, video, video.matching_pix_fmt) if suffix not in ("", ".gif") else None
    is_h264 = encoding is not None and encoding.encoder == "libx264"
    notes = []
    if video.alpha is not None and suffix and not (encoding and encoding.keeps_alpha):
        notes.append(f"transparency is left out: {kind} holds none; use --codec prores (.mov), --codec ffv1 (.mkv) or a folder of pictures")
    if video.has_sound and encoding is None:
        notes.append(f"the sound is left out: {kind} holds none")
    if video.chapters and encoding is None:
        notes.append(f"the chapters are left out: {kind} holds none")
    if video.pixel_aspect != 1 and not is_h264 and not (codec == "prores" and suffix == ".mov"):
        notes.append(
            f"the pixel aspect {video.pixel_aspect} is left out: the result ({kind}) does not store it; end the name in .mp4 or .mov"
        )
    if video.field_order != "progressive" and not (is_h264 and should_interlace(video)):
        notes.append(f"the field order is left out: the result ({kind}) does not store it")
    if encoding and is_h264 and codec == "h264" and encoding.pix_fmt == video.matching_pix_fmt != DEFAULT_PIX_FMT:
        notes.append(f"the result is {encoding.pix_fmt}, which keeps the source's pixels; where players lack it, use --codec h264-420")
    if is_h264 and codec == "h264" and video.source is not None and video.tags is None:
        alternatives = "--codec h264-444 keeps them up to 2 of 255 levels, a folder of pictures and --codec ffv1 (.mkv) exactly"
        notes.append(
            f"{kind} averages the colours of 2x2 pixels, so those of the source's pictures change a little everywhere; {alternatives}"
        )
    return tuple(notes)


def _build_write_error(path: Path, error: FFmpegError | OSError, video: Video | None = None) -> VideoError:
    if isinstance(error, FFmpegError) and video is not None and max(video.size.height, video.size.width) > MAX_SIDE:
        return VideoError(f"{path}: frames of {video.size} are larger than H.264 holds ({MAX_SIDE}); scale the source down")
    reason = getattr(error, "strerror", None) or error
    return VideoError(f"{path}: cannot be written ({reason}); choose a writable folder with free space")


def check_output(path: Path, codec: Codec = "h264", *, overwrite: bool = False) -> str:
    """Check an output path and return the suffix that selects the format ("" for a folder). Raises `VideoError` as `write_video` does."""
    suffix = path.suffix.lower()
    check_output_name(path)
    check_format(path)
    if path.is_dir():
        if suffix in FORMATS:
            raise VideoError(f"{path}: is a folder; choose another file name")
        if any(path.iterdir()) and not (overwrite and holds_only_frames(path)):
            raise VideoError(f"{path}: the folder is not empty; choose another folder, or add --overwrite if it holds only PNG frames")
        return ""
    check_overwrite(path, overwrite=overwrite)
    check_codec(path, codec)
    return suffix


def _write_file(
    path: Path, video: Video, suffix: str, codec: Codec, source_clip: Video | None, on_frame: OnFrame = lambda done, total: None
) -> None:
    if suffix == ".gif":
        _write_gif(path, video)
        return
    ticks = compute_frame_ticks(video)
    with ExitStack() as stack:
        source_samples = stack.enter_context(open_source_samples(source_clip))
        encoding = choose_encoding(
            suffix,
            codec,
            video,
            source_clip.matching_pix_fmt if source_clip else None,
            source_samples.siting if source_samples else SITING_LEFT,
        )
        tags = choose_colour_tags(video, encoding.pix_fmt)
        output = stack.enter_context(open_output(path, FORMATS[suffix]))
        stream = add_video_stream(output, video, encoding, tags, ticks)
        add_chapters(output, video)
        audio_muxers = add_audio_streams(stack, output, video, suffix)
        is_interlaced = encoding.encoder == "libx264" and should_interlace(video)
        images = enumerate(_iterate_frames(video, encoding.keeps_alpha))
        for (index, image), start, duration in zip(images, ticks.starts, ticks.durations, strict=True):
            frame = array_to_frame(image, encoding.pix_fmt, tags, encoding.siting)
            if source_samples is not None and source_samples.pix_fmt == encoding.pix_fmt:
                frame = source_samples.merge_source_samples(frame, image, index)
            if is_interlaced:
                frame = set_field_order(frame, video.field_order)
            frame.pts, frame.duration, frame.time_base = start, duration, ticks.time_base
            if video.last_duration is not None and index == video.num_frames - 1:
                frame.pict_type = PictureType.I  # last in decoding order too: MP4 stores an individual duration for that frame only
            _mux_packets(output, stream.encode(frame), audio_muxers)
            on_frame(index + 1, video.num_frames)
        _mux_packets(output, stream.encode(None), audio_muxers)
        for muxer in audio_muxers:
            muxer.write_rest()


def _mux_packets(output: OutputContainer, packets: list[Packet[VideoStream]], audio_muxers: list[AudioMuxer]) -> None:
    for packet in packets:
        for muxer in audio_muxers:
            if packet.dts is not None:
                muxer.write_until(float(packet.dts * packet.time_base))
        output.mux(packet)


def _iterate_frames(video: Video, keeps_alpha: bool) -> Iterator[np.ndarray]:
    for index, rgb in enumerate(video.frames):
        if keeps_alpha and video.alpha is not None:
            rgb = torch.cat([rgb, video.alpha[index, :, :, None]], dim=-1)
        yield rgb.contiguous().cpu().numpy()


def _write_gif(path: Path, video: Video) -> None:
    ticks = quantize_frame_times(video, Fraction(1, 100))
    with open_output(path, "gif", {"loop": "0", "final_delay": str(ticks.durations[-1])}) as output:
        stream = output.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt = video.size.width, video.size.height, "pal8"
        stream.codec_context.time_base = ticks.time_base
        graph = _build_palette_graph(video, ticks)
        for image, start in zip(_iterate_frames(video, keeps_alpha=False), ticks.starts, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = start, ticks.time_base
            graph.push(frame)
            _encode_filtered_frames(output, stream, graph)
        graph.push(None)
        _encode_filtered_frames(output, stream, graph)
        output.mux(stream.encode(None))


def _build_palette_graph(video: Video, ticks: Ticks) -> av.filter.Graph:
    """Build the filter graph that chooses 256 colours for each frame."""
    graph = av.filter.Graph()
    rgb_format = av.VideoFormat("rgb24", video.size.width, video.size.height)
    source = graph.add_buffer(width=video.size.width, height=video.size.height, format=rgb_format, time_base=ticks.time_base)
    split, palette, palette_use = graph.add("split"), graph.add("palettegen", "stats_mode=single"), graph.add("paletteuse", "new=1")
    source.link_to(split)
    split.link_to(palette_use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(palette_use, 0, 1)
    palette_use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _encode_filtered_frames(output: OutputContainer, stream: VideoStream, graph: av.filter.Graph) -> None:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        output.mux(stream.encode(frame))
