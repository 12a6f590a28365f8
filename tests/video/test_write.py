"""Tests of writing: exact frames, times and audio, reproducible bytes, and protection of existing files."""

from fractions import Fraction

import av
import pytest
import torch

from lora_edit.errors import VideoError
from lora_edit.types import Video
from lora_edit.video.colors import array_to_frame, frame_to_array
from lora_edit.video.read import read_video
from lora_edit.video.settings import VideoSettings
from lora_edit.video.write import write_video
from video.clips import SAMPLES, make_clip, mean_error, read_audio_packets, write_with_sound

# Largest mean error in levels of 255 of each format on smooth images.
TARGETS = [
    ("a.mp4", "h264", 3.0),
    ("a.mov", "h264", 3.0),
    ("a.mkv", "h264", 3.0),
    ("a.mp4", "h264-444", 0.5),
    ("a.mov", "prores", 0.5),
    ("a.mkv", "ffv1", 0.0),
    ("a.webm", "h264", 1.5),
    ("a.gif", "h264", 8.0),
    ("folder", "h264", 0.0),
]


@pytest.mark.parametrize(("name", "codec", "bound"), TARGETS)
@pytest.mark.parametrize(("num_frames", "height", "width"), [(16, 48, 64), (1, 48, 64), (5, 47, 63)])
def test_frames_size_and_duration(tmp_path, name, codec, bound, num_frames, height, width):
    clip = make_clip(num_frames, height, width)
    write_video(tmp_path / name, clip, codec)
    back = read_video(tmp_path / name)
    assert back.frames.shape == clip.frames.shape and back.fps == clip.fps
    assert back.times == pytest.approx(clip.times, abs=1e-6)
    assert mean_error(back.frames, clip.frames) <= bound
    if name != "folder":
        with av.open(str(tmp_path / name)) as container:
            assert container.duration / av.time_base == pytest.approx(num_frames / 25, abs=0.0011)


@pytest.mark.parametrize(("name", "codec"), [target[:2] for target in TARGETS if target[0] != "folder"])
def test_bytes_are_reproducible(tmp_path, name, codec):
    clip = make_clip(24)
    written = []
    for _ in range(2):
        write_video(tmp_path / name, clip, codec, overwrite=True)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_output_has_colour_tags(tmp_path, clip):
    write_video(tmp_path / "a.mp4", clip)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)


@pytest.mark.parametrize(("pix_fmt", "bound"), [("yuv420p", 0.7), ("yuv444p", 0.5), ("yuv444p10le", 0.0)])
def test_yuv_round_trip_has_no_colour_shift(clip, pix_fmt, bound):
    back = torch.stack([torch.from_numpy(frame_to_array(array_to_frame(frame, pix_fmt))) for frame in clip.frames.numpy()])
    assert mean_error(back, clip.frames) <= bound
    assert (back.float() - clip.frames.float()).mean((0, 1, 2)).abs().max() < 0.05


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "ffv1"), ("folder", "h264"), ("a.mov", "prores"), ("a.mp4", "h264")])
def test_alpha(tmp_path, name, codec):
    alpha = make_clip(4).frames[..., 0].contiguous()
    write_video(tmp_path / name, make_clip(4, alpha=alpha), codec)
    back = read_video(tmp_path / name).alpha
    if codec == "h264" and name == "a.mp4":
        assert back is None
    else:
        assert back is not None and int((back.int() - alpha.int()).abs().max()) <= (1 if codec == "prores" else 0)


class TestAudio:
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "source.mp4"
        write_with_sound(path, make_clip(50))
        return path

    @pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
    def test_whole_audio_is_copied_bit_for_bit(self, tmp_path, source, ending):
        out = tmp_path / f"out{ending}"
        write_video(out, read_video(source))
        assert [data for _, data in read_audio_packets(out)] == [data for _, data in read_audio_packets(source)]
        if ending == ".mp4":
            assert read_audio_packets(out) == read_audio_packets(source)

    @pytest.mark.parametrize("ending", [".mp4", ".mkv"])
    def test_trimmed_audio_is_cut_at_packets(self, tmp_path, source, ending):
        out = tmp_path / f"out{ending}"
        write_video(out, read_video(source, VideoSettings(start=10, frames=20)))
        source_times = {data: time for time, data in read_audio_packets(source)}
        copied = read_audio_packets(out)
        assert all(float(time + Fraction(10, 25) - source_times[data]) == pytest.approx(0, abs=0.0011) for time, data in copied)
        span = float(copied[-1][0] - copied[0][0])
        assert 0.8 - 3 * 1024 / 48000 < span < 0.8 + 1024 / 48000

    def test_webm_reencodes_audio(self, tmp_path, source):
        write_video(tmp_path / "out.webm", read_video(source, VideoSettings(start=10, frames=20)))
        with av.open(str(tmp_path / "out.webm")) as container:
            assert container.streams.audio[0].codec_context.name == "opus"
            samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples / 48000 == pytest.approx(0.8, abs=0.03)

    def test_unsupported_codec_becomes_aac(self, tmp_path):
        write_with_sound(tmp_path / "s.mkv", make_clip(25), codec="pcm_s16le", rate=22050)
        write_video(tmp_path / "out.mp4", read_video(tmp_path / "s.mkv"))
        with av.open(str(tmp_path / "out.mp4")) as container:
            audio = container.streams.audio[0]
            assert audio.codec_context.name == "aac" and audio.codec_context.sample_rate == 22050
            assert float(audio.duration * audio.time_base) == pytest.approx(1.0, abs=0.06)

    def test_new_rate_and_gif_have_no_audio(self, tmp_path, source):
        write_video(tmp_path / "out.mp4", read_video(source, VideoSettings(fps=12)))
        write_video(tmp_path / "out.gif", read_video(source, VideoSettings(frames=3)))
        assert not read_video(tmp_path / "out.mp4").has_sound

    def test_missing_source(self, tmp_path, source):
        video = read_video(source)
        source.unlink()
        with pytest.raises(VideoError, match="is gone"):
            write_video(tmp_path / "out.mp4", video)
        assert list(tmp_path.iterdir()) == []


class TestRejections:
    def test_existing_file_is_never_overwritten(self, tmp_path, clip):
        path = tmp_path / "a.mp4"
        path.write_text("precious")
        with pytest.raises(VideoError, match="exists already"):
            write_video(path, clip)
        assert path.read_text() == "precious"
        write_video(path, clip, overwrite=True)
        assert read_video(path).num_frames == 6

    def test_folder_with_other_files_is_never_replaced(self, tmp_path, clip):
        folder = tmp_path / "holiday"
        folder.mkdir()
        (folder / "photo.jpg").write_text("precious")
        for overwrite in (False, True):
            with pytest.raises(VideoError, match="not empty"):
                write_video(folder, clip, overwrite=overwrite)
        assert (folder / "photo.jpg").read_text() == "precious"

    def test_folder_of_frames_is_replaced_with_overwrite(self, tmp_path, clip):
        write_video(tmp_path / "frames", make_clip(9))
        with pytest.raises(VideoError, match="not empty"):
            write_video(tmp_path / "frames", clip)
        write_video(tmp_path / "frames", clip, overwrite=True)
        assert torch.equal(read_video(tmp_path / "frames").frames, clip.frames)

    @pytest.mark.parametrize(
        ("name", "codec", "message"),
        [("a.avi", "h264", r"\.mp4, \.mov, \.mkv, \.webm, \.gif"), ("a.mp4", "prores", r"\.mov, \.mkv"), ("a.mov", "ffv1", r"\.mkv")],
    )
    def test_unsupported_suffix_or_codec(self, tmp_path, clip, name, codec, message):
        with pytest.raises(VideoError, match=message):
            write_video(tmp_path / name, clip, codec)

    def test_failure_leaves_nothing_behind(self, tmp_path, clip):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(VideoError, match="cannot be written"):
            write_video(tmp_path / "file" / "a.mp4", clip)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample clips are missing")
def test_audio_of_sample_clip_is_copied(tmp_path):
    source = SAMPLES / "cups/source.mp4"
    video = read_video(source, VideoSettings(start=100, frames=4))
    cropped = Video(video.frames[:, :64, :64].contiguous(), video.fps, video.times, None, video.source, video.start_time, video.has_sound)
    write_video(tmp_path / "out.mp4", cropped)
    source_packets = {data for _, data in read_audio_packets(source)}
    assert all(data in source_packets for _, data in read_audio_packets(tmp_path / "out.mp4"))
