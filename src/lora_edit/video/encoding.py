"""Choice of the encoder and its options, by the file's suffix, the requested codec, and the source's pixel format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from av.container import OutputContainer
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from lora_edit.types import ColourTags, Video
from lora_edit.video.chroma_siting import CHROMA_SITING_CODES
from lora_edit.video.colors import BT709_TAGS, SITING_CENTER, SITING_LEFT, UNSPECIFIED, guess_matrix_code
from lora_edit.video.settings import Codec
from lora_edit.video.source_samples import DEFAULT_PIX_FMT, EXACT_RGB_PIX_FMT
from lora_edit.video.timing import Ticks

ALPHA_CODECS: tuple[Codec, ...] = ("prores", "ffv1")
_THREADS = 4  # fixed, because the encoded bytes depend on the thread count
# x264 quantizes chroma more coarsely where it has as many samples as luma; with 10 bits its crf scale goes below 0.
_X264_QUALITY = {
    DEFAULT_PIX_FMT: ["crf=1"],
    "yuv422p": ["crf=1", "chroma-qp-offset=-3"],
    "yuv444p": ["crf=1", "chroma-qp-offset=-6"],
    EXACT_RGB_PIX_FMT: ["crf=-5", "chroma-qp-offset=-6"],
}
_FIELD_ORDER_CODES = {"top": (2, "tff=1"), "bottom": (3, "bff=1")}  # FFmpeg's AVFieldOrder, x264's option


@dataclass(frozen=True)
class Encoding:
    """An FFmpeg encoder, its pixel format and options; `siting` is the position of subsampled chroma (`chroma_siting.py`)."""

    encoder: str
    pix_fmt: str
    options: dict[str, str] = field(default_factory=dict)
    keeps_alpha: bool = False
    siting: str = SITING_LEFT


def choose_encoding(suffix: str, codec: Codec, video: Video, matching_pix_fmt: str | None, siting: str = SITING_LEFT) -> Encoding:
    """Choose how to encode the clip.

    `matching_pix_fmt` is the pixel format that preserves the source's pixels (`source_samples.py`), None where there is none. `siting` is
    the chroma siting of that source.
    """
    if suffix == ".webm":
        options = {"crf": "12", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"}
        return Encoding("libvpx-vp9", DEFAULT_PIX_FMT, options, siting=SITING_CENTER)
    if codec == "prores":
        pix_fmt = "yuv444p10le" if video.alpha is None else "yuva444p10le"
        return Encoding("prores_ks", pix_fmt, {"profile": "4444", "qscale": "4", "alpha_bits": "16"}, keeps_alpha=True)
    if codec == "ffv1":
        pix_fmt = "bgr0" if video.alpha is None else "bgra"
        return Encoding("ffv1", pix_fmt, {"level": "3", "slices": "4", "slicecrc": "1"}, keeps_alpha=True)
    # Fidelity over file size: at crf 1, tuned for PSNR, untouched pixels of real clips keep 50 dB at 15 to 30 Mbit/s.
    # Macroblock-tree rate control is not deterministic on some processors.
    options = {"preset": "medium", "tune": "psnr", "mbtree": "0"}
    pix_fmt = _choose_h264_pix_fmt(codec, video, matching_pix_fmt)
    parameters = [] if siting == SITING_LEFT or pix_fmt != matching_pix_fmt else [f"chromaloc={CHROMA_SITING_CODES[siting]}"]
    if codec == "h264-444":
        options["crf"] = "0"
    else:
        parameters += _X264_QUALITY[pix_fmt]
    if should_interlace(video):
        options |= {"flags": "+ildct+ilme"}
        parameters.append(_FIELD_ORDER_CODES[video.field_order][1])
    return Encoding(
        "libx264", pix_fmt, options | {"x264-params": ":".join(parameters)}, siting=siting if pix_fmt == matching_pix_fmt else SITING_LEFT
    )


def should_interlace(video: Video) -> bool:
    """Whether the clip is written interlaced; with 4:2:0 that needs a height divisible by 4."""
    return video.field_order != "progressive" and video.size.height % 4 == 0


def _choose_h264_pix_fmt(codec: Codec, video: Video, matching_pix_fmt: str | None) -> str:
    has_odd_side = video.size.height % 2 or video.size.width % 2  # 4:2:0 has one chroma sample for 2x2 pixels
    if codec == "h264-444":
        return "yuv444p"
    if codec == "h264" and matching_pix_fmt is not None and (not has_odd_side or matching_pix_fmt in ("yuv444p", EXACT_RGB_PIX_FMT)):
        return matching_pix_fmt
    return "yuv444p" if has_odd_side else DEFAULT_PIX_FMT


def choose_colour_tags(video: Video, pix_fmt: str) -> ColourTags:
    """Choose the clip's colour tags: those of its source, or BT.709 where it has none."""
    tags = video.tags or BT709_TAGS
    if tags.matrix == UNSPECIFIED and guess_matrix_code(video.size) != tags.read_as:
        tags = replace(tags, matrix=tags.read_as)  # of rotated clips or two side by side, where players would guess another matrix
    return replace(tags, full=False) if pix_fmt == EXACT_RGB_PIX_FMT else tags


def add_video_stream(output: OutputContainer, video: Video, encoding: Encoding, tags: ColourTags, ticks: Ticks) -> VideoStream:
    """Add the video stream to `output`."""
    flags = encoding.options.get("flags", "") + "+frame_duration"  # without it, encoders assume 1 / fps
    stream = output.add_stream(encoding.encoder, rate=video.fps, options=encoding.options | {"flags": flags})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = video.size.width, video.size.height
    stream.pix_fmt = encoding.pix_fmt
    context = stream.codec_context
    context.time_base = ticks.time_base
    context.thread_count = _THREADS
    if video.pixel_aspect != 1:
        context.sample_aspect_ratio = video.pixel_aspect
    if should_interlace(video) and encoding.encoder == "libx264":
        context.field_order = _FIELD_ORDER_CODES[video.field_order][0]
    if "yuv" in encoding.pix_fmt:
        context.colorspace, context.color_primaries, context.color_trc = tags.matrix, tags.primaries, tags.transfer
        context.color_range = ColorRange.JPEG if tags.full else ColorRange.MPEG
    return stream
