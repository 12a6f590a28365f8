"""The watermark: what it costs, where it is found again, and where it is not."""

from __future__ import annotations

import io

import av
import cv2
import numpy as np
import pytest
import torch

from lora_edit.provenance.watermark import (
    MAX_AMPLITUDE,
    MAX_FALSE_POSITIVE_PROBABILITY,
    PEAK,
    detect_watermark,
    embed_watermark,
    measure_marked_area,
)

HEIGHT, WIDTH, NUM_FRAMES = 144, 192, 5


def draw_frames(seed: int = 0) -> torch.Tensor:
    """A picture of soft shapes that drifts, with grain."""
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.uniform(40, 215, (10, 14, 3)), (WIDTH + 20, HEIGHT + 20), interpolation=cv2.INTER_CUBIC)
    frames = [base[i : i + HEIGHT, 2 * i : 2 * i + WIDTH] + rng.normal(0, 3, (HEIGHT, WIDTH, 1)) for i in range(NUM_FRAMES)]
    return torch.from_numpy(np.clip(np.stack(frames), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def region() -> torch.Tensor:
    """A soft-edged box of 100x100 pixels."""
    weights = torch.zeros(HEIGHT, WIDTH)
    weights[20:120, 50:150] = 0.5
    weights[22:118, 52:148] = 1.0
    return weights


@pytest.fixture(scope="module")
def marked(region: torch.Tensor) -> torch.Tensor:
    return embed_watermark(draw_frames(), region.expand(NUM_FRAMES, -1, -1))


def test_only_pixels_with_weight_change_and_by_little(marked: torch.Tensor, region: torch.Tensor) -> None:
    frames = draw_frames()
    difference = marked.int() - frames.int()
    assert not difference[:, region == 0].any()
    assert 1 <= int(difference.abs().max()) <= round(MAX_AMPLITUDE * PEAK * 1.2)
    assert 10 * np.log10(255**2 / float(difference[:, region == 1].square().float().mean())) > 44


def test_marking_is_deterministic_and_leaves_its_input(region: torch.Tensor, marked: torch.Tensor) -> None:
    frames = draw_frames()
    again = embed_watermark(frames[2], region)
    assert torch.equal(again, marked[2]) and torch.equal(frames, draw_frames())


def test_the_mark_does_not_flicker(region: torch.Tensor) -> None:
    """Equal frames stay equal."""
    frames = draw_frames()[:1].expand(3, -1, -1, -1).contiguous()
    marked = embed_watermark(frames, region.expand(3, -1, -1))
    assert torch.equal(marked[0], marked[1]) and torch.equal(marked[0], marked[2]) and not torch.equal(marked, frames)


def test_black_and_white_stay_in_range(region: torch.Tensor) -> None:
    frames = torch.zeros(2, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    frames[1] = 255
    marked = embed_watermark(frames, region.expand(2, -1, -1))
    assert int(marked[0].max()) <= 4 and int(marked[1].min()) >= 251


def test_the_mark_is_found_and_nothing_else(marked: torch.Tensor) -> None:
    found = detect_watermark(iter(marked))
    assert found.found and found.scale == 1 and found.num_frames == NUM_FRAMES
    assert found.false_positive_probability <= MAX_FALSE_POSITIVE_PROBABILITY
    for frames, key in ((draw_frames(), None), (draw_frames(1), None), (marked, b"another key")):
        other = detect_watermark(iter(frames)) if key is None else detect_watermark(iter(frames), key)
        assert not other.found and other.score < 7


def encode_h264(frames: torch.Tensor, crf: int) -> torch.Tensor:
    """Encode and decode frames as H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode())
    with av.open(io.BytesIO(file.getvalue())) as container:
        return torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))


def resize(frames: torch.Tensor, scale: float) -> torch.Tensor:
    """Resize frames."""
    size = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
    return torch.from_numpy(np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames.numpy()]))


def test_the_mark_survives_encoding(marked: torch.Tensor) -> None:
    assert detect_watermark(encode_h264(marked, 20)).found


@pytest.mark.parametrize("scale", [0.5, 0.83, 1.21])
def test_the_mark_survives_cropping_and_resizing(marked: torch.Tensor, scale: float) -> None:
    found = detect_watermark(resize(marked[:, 10:, 7:], scale))
    assert found.found and found.scale == pytest.approx(scale, rel=0.05)


def test_a_single_frame_as_jpeg_suffices(marked: torch.Tensor) -> None:
    data = cv2.imencode(".jpg", marked[3].numpy()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    frame = torch.from_numpy(np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]))
    assert detect_watermark([frame]).found


def test_empty_and_flat_clips_carry_no_mark() -> None:
    assert detect_watermark([]).num_frames == 0 and not detect_watermark([]).found
    flat = detect_watermark([torch.full((40, 30, 3), 128, dtype=torch.uint8)])
    assert not flat.found and flat.false_positive_probability == 1
    assert not detect_watermark([torch.zeros(1, 1, 3, dtype=torch.uint8)]).found


def test_frames_of_another_size_are_ignored(marked: torch.Tensor) -> None:
    found = detect_watermark([*marked, marked[0, :50, :50].contiguous()])
    assert found.found and found.num_frames == NUM_FRAMES


def test_the_area_is_the_mean_over_frames(region: torch.Tensor) -> None:
    assert measure_marked_area([region, torch.zeros_like(region)]) == pytest.approx(float(region.sum()) / 2)
    assert measure_marked_area([]) == 0
