"""The source's sound for the edited range: packets copied bit for bit where the container takes them, encoded again where not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from lora_edit.errors import VideoError
from lora_edit.types import Video
from lora_edit.video.decode import open_video

# Codecs that the container's usual players expect in it; any other is encoded again with the last column's codec.
_COPIED = {
    ".mp4": ({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}, "aac"),
    ".mov": ({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"}, "aac"),
    ".mkv": ({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "vorbis", "pcm_s16le", "pcm_s24le", "dts", "truehd"}, "aac"),
    ".webm": ({"opus", "vorbis"}, "libopus"),
}
_AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_SEEK_MARGIN = 2.0  # seconds: sound lies in the file a little before or after the pictures that it belongs to


@dataclass(frozen=True)
class _Range:
    """Seconds on the source's clock. `origin` becomes 0 in the result; `begin` and `end` are infinite where nothing is cut."""

    origin: float
    begin: float
    end: float


class Sound:
    """The sound stream of a result that is being written. Call `before` ahead of each picture packet, `rest` at the end."""

    def __init__(self, output: OutputContainer, packets: Iterator[Packet[AudioStream]]) -> None:
        self._output = output
        self._packets = packets
        self._next = next(packets, None)

    def before(self, seconds: float) -> None:
        """Write the packets that a player needs before `seconds`, so that sound and pictures lie side by side in the file."""
        while self._next is not None and _begin(self._next) <= seconds:
            self._output.mux(self._next)
            self._next = next(self._packets, None)

    def rest(self) -> None:
        """Write every packet that is left."""
        self.before(math.inf)


def add_sound(stack: ExitStack, output: OutputContainer, video: Video, suffix: str) -> Sound | None:
    """Give `output` the first sound stream of `video.source`, cut to the clip's range; None where there is no sound.

    Raises `VideoError` when the source is gone.
    """
    if not video.has_sound or video.source is None:
        return None
    if not video.source.exists():
        raise VideoError(f"{video.source}: is gone, so its sound cannot be copied; put it back")
    wanted = _sound_range(video, video.source)
    source, _ = stack.enter_context(open_video(video.source))
    stream = source.streams.audio[0]
    copied, encoder = _COPIED[suffix]
    # AAC from a transport stream carries its header in every packet, and MP4 wants it once.
    if stream.codec_context.name in copied and (stream.codec_context.name != "aac" or stream.codec_context.extradata):
        return Sound(output, _copied_packets(source, stream, output.add_stream_from_template(stream), wanted, suffix))
    return Sound(output, _encoded_packets(source, stream, _add_encoder(output, stream, encoder), wanted))


def _sound_range(video: Video, path: Path) -> _Range:
    """Where to cut. The whole clip keeps the whole sound, even where it begins earlier or ends later than the pictures."""
    half = 0.5 / float(video.fps)
    last = video.start_time + video.times[-1]
    with open_video(path) as (container, stream):
        first = float((stream.start_time or 0) * Fraction(stream.time_base or 0))
        if last > _SEEK_MARGIN:
            container.seek(int(last * av.time_base))
        later = any(packet.pts is not None and float(packet.pts * packet.time_base) > last + half for packet in container.demux(stream))
    begin = -math.inf if video.start_time <= first + half else video.start_time
    return _Range(video.start_time, begin, last + 2 * half if later else math.inf)


def _begin(packet: Packet[AudioStream]) -> float:
    assert packet.pts is not None
    return float(packet.pts * packet.time_base)


def _source_packets(source: InputContainer, stream: AudioStream, wanted: _Range) -> Iterator[Packet[AudioStream]]:
    """The packets that overlap the range; every one has a time."""
    if wanted.begin > _SEEK_MARGIN:
        source.seek(int((wanted.begin - _SEEK_MARGIN) * av.time_base))
    for packet in source.demux(stream):
        if packet.size and packet.pts is not None:
            begin = _begin(packet)
            if begin >= wanted.end:
                return
            if begin + float((packet.duration or 0) * packet.time_base) <= wanted.begin:
                continue
            yield packet


def _copied_packets(
    source: InputContainer, stream: AudioStream, out: AudioStream, wanted: _Range, suffix: str
) -> Iterator[Packet[AudioStream]]:
    for packet in _source_packets(source, stream, wanted):
        begin = _begin(packet)
        # Only MP4's edit lists can hide the part of a packet that lies before the first picture.
        if suffix not in (".mp4", ".mov") and begin < wanted.begin:
            continue
        packet.pts = packet.dts = round((begin - wanted.origin) / float(packet.time_base))
        packet.stream = out
        yield packet


def _add_encoder(output: OutputContainer, stream: AudioStream, encoder: str) -> AudioStream:
    rate = stream.codec_context.sample_rate
    if encoder == "libopus" or rate not in _AAC_RATES:
        rate = 48000
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    out = output.add_stream(encoder, rate=rate, layout=layout, format="fltp" if encoder == "aac" else "flt")
    assert isinstance(out, AudioStream)
    out.codec_context.bit_rate = 192_000
    return out


def _encoded_packets(source: InputContainer, stream: AudioStream, out: AudioStream, wanted: _Range) -> Iterator[Packet[AudioStream]]:
    context = out.codec_context
    resampler = av.AudioResampler(format="fltp", layout=context.layout, rate=context.sample_rate)
    position: int | None = None
    for packet in _source_packets(source, stream, wanted):
        for decoded in packet.decode():
            assert isinstance(decoded, AudioFrame)
            for frame in resampler.resample(decoded):
                kept, begin = _cut(frame, wanted)
                if kept.shape[1] == 0:
                    continue
                position = round((begin - wanted.origin) * frame.sample_rate) if position is None else position
                piece = AudioFrame.from_ndarray(kept, format="fltp", layout=context.layout.name)
                piece.sample_rate, piece.pts, piece.time_base = frame.sample_rate, position, Fraction(1, frame.sample_rate)
                position += kept.shape[1]
                yield from out.encode(piece)
    if position is not None:
        yield from out.encode(None)


def _cut(frame: AudioFrame, wanted: _Range) -> tuple[np.ndarray, float]:
    """The samples `[channels, samples]` inside the range, and the time of the first in seconds."""
    assert frame.pts is not None and frame.time_base is not None
    begin, rate = float(frame.pts * frame.time_base), frame.sample_rate
    samples = frame.to_ndarray()
    # Encoders' own delay would lie before the first picture: never keep sound from before the origin.
    low = max(0, round((max(wanted.begin, wanted.origin) - begin) * rate))
    high = samples.shape[1] if math.isinf(wanted.end) else max(0, round((wanted.end - begin) * rate))
    return np.ascontiguousarray(samples[:, low:high]), begin + low / rate
