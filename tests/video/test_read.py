"""Tests of reading: kinds of sources, ranges, orientation, times, and error messages."""

import shutil
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from lora_edit.errors import VideoError
from lora_edit.types import Size
from lora_edit.video.read import probe_video, read_image, read_video
from lora_edit.video.settings import VideoSettings
from lora_edit.video.write import write_video
from video.clips import SAMPLES, make_clip, mean_error, write_with_sound


@pytest.fixture
def video_file(tmp_path):
    """A 20-frame MP4 with sound."""
    path = tmp_path / "clip.mp4"
    write_with_sound(path, make_clip(20))
    return path


def set_display_matrix(path, matrix):
    """Write a display matrix (a, b, c, d) to an MP4's first track header."""
    data = bytearray(path.read_bytes())
    position = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[position : position + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def save_images(folder, names, size=(20, 10), mode="RGB"):
    folder.mkdir()
    for level, name in enumerate(names):
        Image.new(mode, size, tuple([level * 10] * len(mode))).save(folder / name)


def test_read_whole_clip(video_file):
    video = read_video(video_file)
    assert (video.num_frames, video.size, video.fps, video.has_sound, video.alpha) == (20, Size(48, 64), Fraction(25), True, None)
    assert video.times == pytest.approx([i / 25 for i in range(20)])
    assert video.source == video_file and video.start_time == 0.0


def test_range_has_the_same_frames(video_file):
    whole, part = read_video(video_file), read_video(video_file, VideoSettings(start=7, frames=5))
    assert torch.equal(part.frames, whole.frames[7:12])
    assert part.start_time == pytest.approx(7 / 25) and part.times[0] == 0.0


@pytest.mark.parametrize(("start", "frames", "message"), [(20, None, "the clip has 20 frames"), (15, 6, "ask for 5 or fewer")])
def test_range_past_the_end_reports_the_length(video_file, start, frames, message):
    with pytest.raises(VideoError, match=message):
        read_video(video_file, VideoSettings(start=start, frames=frames))


def test_fps_override_changes_times_and_drops_sound(video_file):
    video = read_video(video_file, VideoSettings(fps=10))
    assert video.fps == 10 and video.times[1] == 0.1 and not video.has_sound


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_variable_frame_times_are_preserved(tmp_path, ending):
    times = (0.0, 0.05, 0.3, 0.31, 0.5)
    write_video(tmp_path / f"v{ending}", make_clip(5, times=times))
    assert read_video(tmp_path / f"v{ending}").times == pytest.approx(times, abs=2e-5)


@pytest.mark.parametrize(
    ("matrix", "degrees", "rotate"),
    [
        ((0, 1, -1, 0), 90, lambda f: f.rot90(-1, (1, 2))),
        ((-1, 0, 0, -1), 180, lambda f: f.rot90(2, (1, 2))),
        ((0, -1, 1, 0), 270, lambda f: f.rot90(1, (1, 2))),
        ((-1, 0, 0, 1), 180, lambda f: f.flip(2)),
    ],
)
def test_rotation_is_applied(tmp_path, clip, matrix, degrees, rotate):
    path = tmp_path / "turned.mp4"
    write_video(path, clip)
    upright = read_video(path).frames
    set_display_matrix(path, matrix)
    assert torch.equal(read_video(path).frames, rotate(upright))
    info = probe_video(path)
    assert info.rotation == degrees and info.size == read_video(path).size


def test_probe_video(video_file, tmp_path):
    info = probe_video(video_file)
    assert (info.num_frames, info.size, info.fps, info.has_audio, info.rotation) == (20, Size(48, 64), Fraction(25), True, 0)
    save_images(tmp_path / "stills", ["1.png", "2.png"])
    assert probe_video(tmp_path / "stills").num_frames == 2


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114), (9, 0.2627, 0.0593)])
def test_colour_tags_are_applied(tmp_path, clip, full_range, matrix, red, blue):
    rgb = clip.frames.double()
    luma = rgb @ torch.tensor([red, 1 - red - blue, blue], dtype=torch.double)
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    low, luma_span, chroma_span = (0, 1.0, 1.0) if full_range else (16, 219 / 255, 224 / 255)
    planes = torch.stack([low + luma * luma_span, *(128 + plane * chroma_span for plane in chroma)], dim=1).round().byte().numpy()
    path = tmp_path / "tagged.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full_range else 1
        for frame in planes:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="yuv444p")))
        output.mux(stream.encode(None))
    frames = read_video(path).frames
    assert mean_error(frames, clip.frames) < 0.5
    assert (frames.double() - rgb).mean((0, 1, 2)).abs().max() < 0.1


@pytest.mark.parametrize("ending", [".gif", ".webp", ".png"])
def test_animations(tmp_path, ending):
    images = [Image.fromarray(np.full((10, 12, 3), 60 * i, np.uint8)) for i in range(4)]
    path = tmp_path / f"animation{ending}"
    options = {"lossless": True} if ending == ".webp" else {}
    images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 80, 120, 40], **options)
    video = read_video(path)
    assert video.frames[:, 0, 0, 0].tolist() == [0, 60, 120, 180]
    assert video.times == pytest.approx([0.0, 0.04, 0.12, 0.24]) and not video.has_sound
    part = read_video(path, VideoSettings(start=1, frames=2))
    assert torch.equal(part.frames, video.frames[1:3]) and part.start_time == pytest.approx(0.04)


def test_image_folder_is_in_natural_order(tmp_path):
    save_images(tmp_path / "f", ["1.png", "2.png", "10.png"])
    (tmp_path / "f" / "notes.txt").write_text("not a frame")
    video = read_video(tmp_path / "f")
    assert video.frames[:, 0, 0, 0].tolist() == [0, 10, 20] and video.size == Size(10, 20)
    assert read_video(tmp_path / "f", VideoSettings(start=2)).frames[0, 0, 0, 0] == 20


def test_image_folder_of_two_sizes_reports_the_file(tmp_path):
    save_images(tmp_path / "f", ["1.png", "2.png"])
    Image.new("RGB", (21, 10)).save(tmp_path / "f" / "3.png")
    with pytest.raises(VideoError, match=r"3\.png: is 21x10 but 1\.png is 20x10"):
        read_video(tmp_path / "f")


def test_alpha_of_a_folder(tmp_path):
    save_images(tmp_path / "f", ["1.png", "2.png"], mode="RGBA")
    video = read_video(tmp_path / "f")
    assert video.alpha is not None and video.alpha[:, 0, 0].tolist() == [0, 10]


@pytest.mark.parametrize("kind", ["missing", "empty file", "empty folder", "text", "sound"])
def test_paths_that_are_not_videos(tmp_path, kind):
    path = tmp_path / "x.mp4"
    if kind == "empty file":
        path.touch()
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is no video\n" * 50)
    elif kind == "sound":
        path = tmp_path / "x.wav"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
            frame.sample_rate = 8000
            output.mux(stream.encode(frame))
    for call in (read_video, probe_video):
        with pytest.raises(VideoError, match=r".*x\.(mp4|wav): .*; "):
            call(path)


@pytest.mark.parametrize("name", ["front.mp4", "plain.mkv"])
def test_truncated_file_reports_readable_frames(tmp_path, name):
    path = tmp_path / name
    source = tmp_path / "source.mkv"
    write_video(source, make_clip(50))
    with av.open(str(source)) as original, av.open(str(path), "w", options={"movflags": "faststart"} if "mp4" in name else {}) as copy:
        stream = copy.add_stream_from_template(original.streams.video[0])
        for packet in original.demux(original.streams.video[0]):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"only \d+ frames could be read"):
        read_video(path)
    assert read_video(path, VideoSettings(frames=5)).num_frames == 5


def test_truncated_header(video_file):
    video_file.write_bytes(video_file.read_bytes()[:2000])
    with pytest.raises(VideoError, match="not a video that can be read"):
        read_video(video_file)


def test_damaged_file_reports_readable_frames(tmp_path):
    path = tmp_path / "damaged.mkv"
    write_video(path, make_clip(30), "ffv1")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(range(200)) * 2
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"only \d+ frames could be read"):
        read_video(path)


class TestReadImage:
    def test_orientation_is_applied(self, tmp_path):
        image = Image.new("RGB", (8, 4), "red")
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg").shape == (8, 4, 3)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "RGB"])
    def test_modes(self, tmp_path, mode):
        if mode == "I;16":
            image = Image.fromarray(np.full((4, 5), 65535, np.uint16))
        else:
            image = Image.new("RGB", (5, 4), "white").convert(mode)
        path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
        image.save(path)
        assert read_image(path).unique().tolist() == [255]

    def test_errors(self, tmp_path):
        Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "clear.png")
        (tmp_path / "text.png").write_text("no picture")
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "whole.png")
        (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4000])
        for name, message in [("clear", "flatten"), ("text", "not a picture"), ("half", "damaged"), ("gone", "no such file")]:
            with pytest.raises(VideoError, match=message):
                read_image(tmp_path / f"{name}.png")


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample clips are missing")
def test_real_clip(tmp_path):
    shutil.copy(SAMPLES / "kitten/source.mp4", tmp_path / "kitten.mp4")
    video = read_video(tmp_path / "kitten.mp4")
    assert (video.num_frames, video.size, video.fps) == (16, Size(512, 512), Fraction(8))
