"""Metadata of a video stream, and notes about what a result does not preserve."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from av import VideoFrame
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from lora_edit.types import ColourTags, FieldOrder
from lora_edit.video.audio import list_audio_streams
from lora_edit.video.colors import has_known_matrix, is_hdr, read_colour_tags
from lora_edit.video.decode import get_clockwise_degrees, read_orientation
from lora_edit.video.libav import detect_field_order
from lora_edit.video.source_samples import find_matching_pix_fmt

_SQUARE = Fraction(1)
_MAX_PIXEL_ASPECT = 10  # beyond that, a stated pixel aspect is an error of the header


@dataclass(frozen=True)
class StreamMetadata:
    """Fields of `Video` that are read from the file."""

    pixel_aspect: Fraction
    tags: ColourTags
    field_order: FieldOrder
    matching_pix_fmt: str
    notes: tuple[str, ...]


def read_stream_metadata(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> StreamMetadata:
    """Read the metadata of the stream from which `frame` was decoded."""
    is_rotated = get_clockwise_degrees(read_orientation(frame)) % 180 != 0
    aspect = read_pixel_aspect(stream)
    field_order = detect_field_order(frame)
    notes = []
    if is_hdr(frame):
        notes.append("the source is HDR; it is tone-mapped to BT.709 (SDR), and so is the result")
    if not has_known_matrix(frame):
        notes.append(f"the source's colour matrix (H.273 code {int(frame.colorspace)}) is not supported; colours may be wrong")
    if field_order != "progressive":
        outcome = (
            "and rotated, so the result is progressive" if is_rotated else f"and the result keeps its fields, the {field_order} one first"
        )
        notes.append(f"the source is interlaced, {outcome}; deinterlace it first if moving edges show combs (ffmpeg -vf bwdif)")
    omitted = _describe_omitted_tracks(container, stream)
    if omitted:
        notes.append(f"the result leaves out {omitted} of the source")
    return StreamMetadata(
        pixel_aspect=1 / aspect if is_rotated else aspect,
        tags=read_colour_tags(frame),
        field_order="progressive" if is_rotated else field_order,
        matching_pix_fmt=find_matching_pix_fmt(frame),
        notes=tuple(notes),
    )


def read_pixel_aspect(stream: VideoStream) -> Fraction:
    """Read the aspect ratio (width by height) of a stored pixel; 1 where the file states none or an implausible one."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or _SQUARE
    return aspect if 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT else _SQUARE


def _describe_omitted_tracks(container: InputContainer, stream: VideoStream) -> str:
    """Describe the tracks that a result omits; cover art does not count as a track."""
    streams = container.streams
    video = [each for each in streams.video if each is not stream and not each.disposition & Disposition.attached_pic]
    counts = [
        (len(video), "video track"),
        (len(streams.audio) - len(list_audio_streams(container)), "sound track that cannot be decoded"),
        (len(streams.subtitles), "subtitle track"),
        (
            sum(each.discard != Discard.all for each in streams.data),
            "data track",
        ),  # without those of MP4 chapter titles, which are marked to be discarded
    ]
    parts = [f"{count} {name if count == 1 else name.replace('track', 'tracks')}" for count, name in counts if count > 0]
    if "timecode" in stream.metadata or "timecode" in container.metadata:
        parts.append("the timecode")
    return ", ".join(parts)
