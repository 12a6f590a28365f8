"""Limits on input files: what is larger is refused from its header, before it is decoded.

They are far above what people edit, and low enough that a damaged or hostile file neither fills the memory nor keeps a core busy for long.
"""

from __future__ import annotations

MAX_PIXELS = 150_000_000
"""Pixels of one picture or video frame. 16K (15360x8640) has 133 million, and takes 1.3 GB while it is converted."""

MAX_ANIMATION_FRAMES = 20_000
"""Frames of an animation: 13 minutes at 25 frames per second. Each is composed from the ones before it, so none can be skipped."""

MAX_ANIMATION_PIXELS = 2**30
"""Pixels of all frames of an animation, which takes three bytes for each: 518 frames of 1920x1080."""

MAX_IMAGES = 100_000
"""Pictures of a folder: more than an hour at 25 frames per second."""

MAX_STREAMS = 1000
"""Streams of a video file; FFmpeg's own default."""

MAX_CHAPTERS = 10_000
"""Chapters of a video file that are kept."""

MAX_FRAME_RATE = 1000
"""Frames per second; a higher stated rate is an error of the header. High-speed cameras store slow motion at usual rates."""

MIN_FRAME_RATE = 1 / 86400
"""Frames per second; time lapses show a frame a day at least."""

MAX_TEXT_BYTES = 50_000_000
"""Bytes of a text file: settings, manifests, configurations, answers. The largest, an index of a checkpoint, has less than one million."""

MAX_TENSORS = 50_000
"""Tensors of a safetensors file. The largest models that can be loaded have less than 5,000."""
