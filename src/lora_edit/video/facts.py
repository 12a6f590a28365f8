"""What a video file says beside its pixels, and one remark on what of it a result does not carry."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from av import VideoFrame
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from lora_edit.types import ColourTags, FieldOrder
from lora_edit.video.colors import has_known_matrix, is_hdr, tags_of
from lora_edit.video.decode import clockwise_degrees, orientation
from lora_edit.video.kept import kept_format
from lora_edit.video.libav import first_field
from lora_edit.video.sound import sound_streams

_SQUARE = Fraction(1)
_MOST_ASPECT = 10  # beyond that a stated pixel aspect is a fault of the header


@dataclass(frozen=True)
class StreamFacts:
    """Fields of `Video` that the file states; `notes` as there."""

    pixel_aspect: Fraction
    tags: ColourTags
    field_order: FieldOrder
    kept_format: str
    notes: tuple[str, ...]


def facts_of(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> StreamFacts:
    """What the file says of the stream that `frame` was decoded from."""
    turned = clockwise_degrees(orientation(frame)) % 180 != 0
    aspect = pixel_aspect(stream)
    order = first_field(frame)
    notes = []
    if is_hdr(frame):
        notes.append("the source is HDR; it is tone-mapped to BT.709 (SDR), and so is the result")
    if not has_known_matrix(frame):
        notes.append(f"the source's colour matrix (H.273 code {int(frame.colorspace)}) is not supported; colours may be wrong")
    if order != "progressive":
        kept = "and rotated, so the result is progressive" if turned else f"and the result keeps its fields, the {order} one first"
        notes.append(f"the source is interlaced, {kept}; deinterlace it first if moving edges show combs (ffmpeg -vf bwdif)")
    left_out = _tracks_left_out(container, stream)
    if left_out:
        notes.append(f"the result leaves out {left_out} of the source")
    return StreamFacts(
        pixel_aspect=1 / aspect if turned else aspect,
        tags=tags_of(frame),
        field_order="progressive" if turned else order,
        kept_format=kept_format(frame),
        notes=tuple(notes),
    )


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width by height of a stored pixel; 1 where the file does not say or says nonsense."""
    stated = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or _SQUARE
    return stated if 1 / _MOST_ASPECT <= stated <= _MOST_ASPECT else _SQUARE


def _tracks_left_out(container: InputContainer, stream: VideoStream) -> str:
    """The tracks that no result carries, in words; cover art counts as no track."""
    streams = container.streams
    video = [each for each in streams.video if each is not stream and not each.disposition & Disposition.attached_pic]
    counted = [
        (len(video), "video track"),
        (len(streams.audio) - len(sound_streams(container)), "sound track that cannot be decoded"),
        (len(streams.subtitles), "subtitle track"),
        (sum(each.discard != Discard.all for each in streams.data), "data track"),  # the titles of MP4's chapters are to be discarded
    ]
    words = [f"{count} {name if count == 1 else name.replace('track', 'tracks')}" for count, name in counted if count > 0]
    if "timecode" in stream.metadata or "timecode" in container.metadata:
        words.append("the timecode")
    return ", ".join(words)
