"""Copying of the source's audio for the edited range: bit for bit where the container supports the codec, re-encoded otherwise.

Packets are placed by their time stamps. Gaps in the audio stay gaps, and overlapping packets are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from lora_edit.errors import VideoError
from lora_edit.types import Video
from lora_edit.video.continuous_clock import ContinuousClock
from lora_edit.video.decode import is_transport_stream, open_video
from lora_edit.video.libav import get_codec_name
from lora_edit.video.timing import compute_end_time

# Per container: codecs that its usual players support, and the codec with which any other is re-encoded.
_COPYABLE_CODECS = {
    ".mp4": ({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}, "aac"),
    ".mov": ({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"}, "aac"),
    ".mkv": ({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "vorbis", "pcm_s16le", "pcm_s24le", "dts", "truehd"}, "aac"),
    ".webm": ({"opus", "vorbis"}, "libopus"),
}
_AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_CHANNEL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Channel layouts that both AAC and Opus support, by the number of channels."""

_MAX_PLANAR_CHANNELS = 8  # planes of a planar frame that PyAV can access
_BITS_PER_CHANNEL = 96_000
_SEEK_MARGIN = 2.0  # seconds: audio is stored a little before or after the frames that it belongs to
_JITTER = 0.02  # seconds: smaller errors of time stamps are ignored, because containers round them
_AUDIO_PERIOD = Fraction(1, 20)  # seconds; a step back of more than a few packets starts a new part


@dataclass(frozen=True)
class _TimeRange:
    """A range in seconds on the source's clock, made continuous by `shifts`.

    `origin` becomes 0 in the result. `begin` and `end` are infinite where nothing is cut.
    """

    origin: float
    begin: float
    end: float
    shifts: tuple[Fraction, ...]

    @property
    def is_joined(self) -> bool:
        """Whether the source joins several recordings; its time stamps then repeat, so seeking does not work."""
        return len(self.shifts) > 1


@dataclass(frozen=True)
class _TimedPacket:
    """A packet, its begin in seconds on the continuous clock, and its time in the file."""

    packet: Packet[AudioStream]
    begin: float
    file_time: float

    @property
    def end(self) -> float:
        return self.begin + float((self.packet.duration or 0) * self.packet.time_base)


class AudioMuxer:
    """Writer of one audio stream of a result.

    Call `write_until` before each video packet, and `write_rest` at the end.
    """

    def __init__(self, output: OutputContainer, packets: Iterator[Packet[AudioStream]]) -> None:
        self._output = output
        self._packets = packets
        self._next = next(packets, None)

    def write_until(self, seconds: float) -> None:
        """Write the packets up to time `seconds`, so that audio and video are interleaved in the file."""
        while self._next is not None and self._next.pts is not None and float(self._next.pts * self._next.time_base) <= seconds:
            self._output.mux(self._next)
            self._next = next(self._packets, None)

    def write_rest(self) -> None:
        """Write all remaining packets."""
        self.write_until(math.inf)


def list_audio_streams(container: InputContainer) -> list[AudioStream]:
    """List the audio streams that can be decoded; some cameras add others."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None and stream.codec_context.channels]


def add_audio_streams(stack: ExitStack, output: OutputContainer, video: Video, suffix: str) -> list[AudioMuxer]:
    """Add the audio streams of `video.source`, cut to the clip's range, to `output`.

    Raises `VideoError` when the source is missing.
    """
    if not video.has_sound or video.source is None:
        return []
    if not video.source.exists():
        raise VideoError(f"{video.source}: is gone, so its sound cannot be copied; put it back")
    time_range = _compute_time_range(video, video.source)
    with open_video(video.source) as (source, _):
        count = len(list_audio_streams(source))
    packets = []
    for index in range(count):
        source, _ = stack.enter_context(open_video(video.source))
        packets.append(_build_packets(source, list_audio_streams(source)[index], output, time_range, suffix))
    return [AudioMuxer(output, iterator) for iterator in packets]  # the first packet writes the header, so all streams must exist


def extract_audio(video: Video) -> bytes:
    """Extract the audio of the clip's range as the bytes of a WebM file; empty where there is no readable audio."""
    if not video.has_sound or video.source is None:
        return b""
    file = BytesIO()
    try:
        with ExitStack() as stack:
            output = stack.enter_context(av.open(file, "w", format="webm"))
            for muxer in add_audio_streams(stack, output, video, ".webm")[:1]:
                muxer.write_rest()
    except (FFmpegError, VideoError):
        return b""
    return file.getvalue()


def _build_packets(
    source: InputContainer, stream: AudioStream, output: OutputContainer, time_range: _TimeRange, suffix: str
) -> Iterator[Packet[AudioStream]]:
    """Add a stream to `output` and return the iterator of its packets."""
    copyable, encoder = _COPYABLE_CODECS[suffix]
    name = get_codec_name(stream)
    # AAC from a transport stream carries its header in every packet, but MP4 stores it once.
    can_copy = name in copyable and (name != "aac" or bool(stream.codec_context.extradata))
    output_stream = output.add_stream_from_template(stream) if can_copy else _add_encoder(output, stream, encoder)
    if stream.language:
        output_stream.metadata["language"] = stream.language
    return (
        _copy_packets(source, stream, output_stream, time_range, suffix)
        if can_copy
        else _encode_packets(source, stream, output_stream, time_range)
    )


def _compute_time_range(video: Video, path: Path) -> _TimeRange:
    """Compute where to cut. An uncut clip keeps all of its audio, even where that begins before or ends after the frames."""
    half_period = 0.5 / float(video.fps)
    last, end = video.start_time + video.times[-1], video.start_time + compute_end_time(video)
    shifts = tuple(Fraction(shift).limit_denominator(10**6) for shift in video.shifts)
    with open_video(path) as (container, stream):
        stream_start = float((stream.start_time or 0) * Fraction(stream.time_base or 0))
        if len(shifts) > 1:
            has_more = sum(bool(packet.size) for packet in container.demux(stream)) > video.start_frame + video.num_frames
            return _TimeRange(video.start_time, video.start_time if video.start_frame else -math.inf, end if has_more else math.inf, shifts)
        if last > _SEEK_MARGIN:
            container.seek(int(last * av.time_base))
        has_more = any(
            packet.pts is not None and float(packet.pts * packet.time_base) > last + half_period for packet in container.demux(stream)
        )
    begin = -math.inf if video.start_time <= stream_start + half_period else video.start_time
    return _TimeRange(video.start_time, begin, end if has_more else math.inf, shifts)


def _read_packets(source: InputContainer, stream: AudioStream, time_range: _TimeRange) -> Iterator[_TimedPacket]:
    """Read the packets that overlap the range. Each has a time and begins after the previous one."""
    clock = ContinuousClock(_AUDIO_PERIOD, is_transport_stream(source), time_range.shifts)
    if time_range.begin > _SEEK_MARGIN and not time_range.is_joined:
        source.seek(int((time_range.begin - _SEEK_MARGIN) * av.time_base))
    last_begin = -math.inf
    for packet in source.demux(stream):
        if not packet.size or packet.pts is None:
            continue
        tick = Fraction(packet.time_base)
        begin = packet.pts * tick
        continuous = clock.map_time(begin, (packet.duration or 0) * tick) if time_range.is_joined else begin
        timed = _TimedPacket(packet, float(continuous), float(begin))
        if timed.begin >= time_range.end:
            return
        if timed.end <= time_range.begin or timed.begin <= last_begin:
            continue
        last_begin = timed.begin
        yield timed


def _copy_packets(
    source: InputContainer, stream: AudioStream, output_stream: AudioStream, time_range: _TimeRange, suffix: str
) -> Iterator[Packet[AudioStream]]:
    end = -math.inf
    for timed in _read_packets(source, stream, time_range):
        # Only MP4's edit lists can hide the part of a packet that lies before the first frame.
        if suffix not in (".mp4", ".mov") and timed.begin < time_range.begin:
            continue
        if time_range.is_joined and timed.begin < end - _JITTER:  # the previous part is still playing
            continue
        end = timed.end
        packet = timed.packet
        packet.pts = packet.dts = round((timed.begin - time_range.origin) / float(packet.time_base))
        packet.stream = output_stream
        yield packet


def _add_encoder(output: OutputContainer, stream: AudioStream, encoder: str) -> AudioStream:
    rate = stream.codec_context.sample_rate
    if encoder == "libopus" or rate not in _AAC_RATES:
        rate = 48000
    layout = _CHANNEL_LAYOUTS.get(stream.codec_context.channels, "stereo")
    out = output.add_stream(encoder, rate=rate, layout=layout, format="fltp" if encoder == "aac" else "flt")
    assert isinstance(out, AudioStream)
    out.codec_context.bit_rate = _BITS_PER_CHANNEL * max(out.codec_context.channels, 2)
    return out


def _encode_packets(
    source: InputContainer, stream: AudioStream, output_stream: AudioStream, time_range: _TimeRange
) -> Iterator[Packet[AudioStream]]:
    context = output_stream.codec_context
    rate, layout = context.sample_rate, context.layout.name
    position = 0
    for samples, begin in _decode_samples(source, stream, output_stream, time_range):
        target = round((begin - time_range.origin) * rate)
        position = position or target  # no silence before audio that begins late
        pieces = [samples]
        if target > position + _JITTER * rate:
            pieces = [*_generate_silence(target - position, rate, samples.shape[1]), samples]
        elif target < position - _JITTER * rate:
            pieces = [samples[position - target :]]
        for part in pieces:
            if len(part):
                frame = AudioFrame.from_ndarray(np.ascontiguousarray(part).reshape(1, -1), format="flt", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
                position += len(part)
                yield from output_stream.encode(frame)
    if position:
        yield from output_stream.encode(None)


def _generate_silence(count: int, rate: int, channels: int) -> Iterator[np.ndarray]:
    """Generate `count` samples of silence in pieces of up to one second."""
    for start in range(0, count, rate):
        yield np.zeros((min(rate, count - start), channels), np.float32)


def _decode_samples(
    source: InputContainer, stream: AudioStream, output_stream: AudioStream, time_range: _TimeRange
) -> Iterator[tuple[np.ndarray, float]]:
    """Decode samples `[n, channels]` float32 inside the range, with the time of the first in seconds.

    Rate and layout are those of `output_stream`.
    """
    context = output_stream.codec_context
    source_format: tuple[object, ...] = ()
    resampler: av.AudioResampler | None = None
    for timed in _read_packets(source, stream, time_range):
        shift = timed.begin - timed.file_time
        frames: list[AudioFrame] = []
        with suppress(FFmpegError):  # a broken packet becomes silence, the others are still good
            frames = [frame for frame in timed.packet.decode() if isinstance(frame, AudioFrame)]
        for frame in frames:
            named_frame = _set_named_layout(frame)
            if resampler is None or source_format != (named_frame.format.name, named_frame.layout.name, named_frame.sample_rate):
                source_format = (named_frame.format.name, named_frame.layout.name, named_frame.sample_rate)
                resampler = av.AudioResampler(format="flt", layout=context.layout, rate=context.sample_rate)
            pieces = (_cut_samples(piece, time_range, shift) for piece in resampler.resample(named_frame))
            yield from ((samples, begin) for samples, begin in pieces if len(samples))


def _set_named_layout(frame: AudioFrame) -> AudioFrame:
    """Give a frame without a named layout (PCM of recorders) the usual layout for its number of channels."""
    count = frame.layout.nb_channels
    if (
        f"{count} channel" not in frame.layout.name
        or count not in _CHANNEL_LAYOUTS
        or (frame.format.is_planar and count >= _MAX_PLANAR_CHANNELS)
    ):
        return frame
    output = AudioFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name, layout=_CHANNEL_LAYOUTS[count])
    output.sample_rate, output.pts, output.time_base = frame.sample_rate, frame.pts, frame.time_base
    return output


def _cut_samples(frame: AudioFrame, time_range: _TimeRange, shift: float) -> tuple[np.ndarray, float]:
    """Cut the samples `[n, channels]` to the range; also return the time of the first in seconds."""
    assert frame.pts is not None and frame.time_base is not None
    begin, rate = float(frame.pts * frame.time_base) + shift, frame.sample_rate
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    # An encoder's delay would come before the first frame, so audio from before the origin is always cut.
    low = max(0, round((max(time_range.begin, time_range.origin) - begin) * rate))
    high = len(samples) if math.isinf(time_range.end) else max(0, round((time_range.end - begin) * rate))
    return samples[low:high], begin + low / rate
