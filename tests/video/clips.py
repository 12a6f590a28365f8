"""Synthetic test clips: smoothly moving gradients with all colours, and a tone as audio."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from lora_edit.types import Video

SAMPLES = Path(__file__).parents[2].parent / "shared/samples"


def make_clip(num_frames: int = 6, height: int = 48, width: int = 64, fps: Fraction = Fraction(25), **changes) -> Video:
    """Make a clip of drifting colour gradients, so that every frame differs."""
    rows, columns = np.mgrid[0:height, 0:width]
    phase = np.arange(num_frames)[:, None, None] * 0.4
    waves = [np.sin(rows / 9 + phase), np.cos(columns / 11 - phase), np.sin((rows + columns) / 13 + phase)]
    frames = torch.from_numpy(np.stack([(wave * 110 + 127).round() for wave in waves], axis=-1).astype(np.uint8))
    times = changes.pop("times", tuple(float(i / fps) for i in range(num_frames)))
    return Video(frames, fps, times, **changes)


def write_with_sound(path: Path, clip: Video, codec: str = "aac", rate: int = 48000) -> None:
    """Write a clip in H.264 with a rising tone of the same length."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=clip.fps, options={"g": "10"})
        video.width, video.height, video.pix_fmt = clip.size.width, clip.size.height, "yuv420p"
        audio = output.add_stream(codec, rate=rate, layout="mono")
        for picture in clip.frames.numpy():
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(video.encode(None))
        seconds = np.arange(int(rate * clip.num_frames / clip.fps)) / rate
        frame = av.AudioFrame.from_ndarray(np.sin(2000 * seconds * (1 + seconds)).astype(np.float32)[None] * 0.5, "fltp", "mono")
        frame.sample_rate = rate
        output.mux(audio.encode(frame))
        output.mux(audio.encode(None))


def read_audio_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """Read times and contents of the packets of the first audio stream."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size]


def mean_error(left: torch.Tensor, right: torch.Tensor) -> float:
    """Compute the mean absolute difference in levels of 255."""
    return float((left.int() - right.int()).abs().float().mean())
