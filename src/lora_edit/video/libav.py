"""An adapter for PyAV: file names that look like protocols, side data that it does not know, decoders that skip alpha."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.sidedata import sidedata
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lora_edit.types import FieldOrder

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read the alpha layer of WebM, which FFmpeg's own skip."""


def open_input(path: Path) -> InputContainer:
    """A file for reading. Raises FFmpeg's errors and `OSError`."""
    return av.open(_to_file_url(path))


def open_output(path: Path, container_format: str, options: dict[str, str] | None = None) -> OutputContainer:
    """A file for writing in FFmpeg's format `form`, without the random identifiers and version texts that containers like to hold."""
    return av.open(_to_file_url(path), "w", format=container_format, options=options or {}, container_options={"fflags": "+bitexact"})


def read_display_matrix(frame: VideoFrame) -> bytes | None:
    """The frame's nine 32-bit numbers that say how players turn it; None where there are none."""
    kinds: Any = sidedata.Type
    if not hasattr(kinds, "_missing_") or kinds._missing_.__func__ is not _create_unknown_member:
        # FFmpeg knows kinds of side data (EXIF among them) that PyAV 18's table lacks, and a frame with one cannot be asked for any.
        kinds._missing_ = classmethod(_create_unknown_member)
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else bytes(cast(bytes, data))


def build_decoder(stream: VideoStream) -> Callable[[Packet[Stream]], list[VideoFrame]]:
    """What turns the stream's packets into frames, alpha included."""
    name = _ALPHA_DECODERS.get(get_codec_name(stream), "")
    if name and {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1":
        context = cast(VideoCodecContext, av.CodecContext.create(name, "r"))
        return lambda packet: context.decode(packet if packet.size else None)
    return lambda packet: cast(list[VideoFrame], packet.decode())


def run_filters(frame: VideoFrame, filters: list[tuple[str, str]]) -> VideoFrame:
    """A frame through FFmpeg's filters, each with its arguments."""
    graph = av.filter.Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    for name, arguments in filters:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    time, frame.pts = frame.pts, 0
    graph.push(frame)
    frame.pts = time
    filtered = graph.pull()
    assert isinstance(filtered, VideoFrame)
    filtered.pts = time
    return filtered


def detect_field_order(frame: VideoFrame) -> FieldOrder:
    """Which field of the frame comes first. PyAV does not tell, but FFmpeg's filter that selects frames by it does."""
    if not frame.interlaced_frame:
        return "progressive"
    try:
        run_filters(frame, [("select", "not(interlace_type-TOPFIRST)")])
    except BlockingIOError:  # the frame was not selected
        return "bottom"
    return "top"


def set_field_order(frame: VideoFrame, order: FieldOrder) -> VideoFrame:
    """The frame marked as one picture, or as two fields of which the one of `order` comes first; encoders go by each frame's own mark."""
    return run_filters(frame, [("setfield", {"progressive": "prog", "top": "tff", "bottom": "bff"}[order])])


def get_codec_name(stream: Stream) -> str:
    """The codec's name, such as `mp3`; a decoder's own name may be another (`mp3float`)."""
    return stream.codec_context.codec.canonical_name


def _create_unknown_member(kinds: Any, value: int) -> Any:
    member = object.__new__(kinds)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


def _to_file_url(path: Path) -> str:
    """The path with its protocol: FFmpeg takes what stands before a colon in a name for one."""
    return f"file:{path}"
