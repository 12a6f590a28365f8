"""Tests of reading a source and writing its edit: metadata, times, audio and the pixels outside the edit are preserved."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from lora_edit.errors import VideoError
from lora_edit.evaluation.psnr import psnr
from lora_edit.types import Chapter, FieldOrder, Video
from lora_edit.video.libav import detect_field_order, set_field_order
from lora_edit.video.read import probe_video, read_video
from lora_edit.video.record import video_from_record, video_to_record
from lora_edit.video.settings import VideoSettings
from lora_edit.video.truncation import is_file_truncated
from lora_edit.video.write import describe_output_losses, write_video
from video.clips import mean_error
from video.sources import (
    Turn,
    find_click_times,
    make_clicks,
    pictures,
    plain,
    remux,
    repaint,
    set_display_matrix,
    shorten_edit_list,
    write_source,
)

FEW = 6


def write_and_read_edit(source: Path, output: Path) -> tuple[Video, Video]:
    """Read a source, write its edit and read that; return both clips."""
    video = read_video(source)
    write_video(output, repaint(video), source_clip=video, overwrite=True)
    return video, read_video(output)


def compute_background_psnr(video: Video, result: Video) -> float:
    """Compute the PSNR outside the edit and 8 pixels around it, because decoders blur colours across its border."""
    outside = torch.ones(video.frames.shape[:3], dtype=torch.bool)
    outside[:, 12:68, 12:88] = False
    return psnr(result.frames, video.frames, outside)


class TestMetadata:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
    def test_pixel_aspect(self, tmp_path: Path, name: str) -> None:
        def anamorphic(stream: av.VideoStream) -> None:
            stream.codec_context.sample_aspect_ratio = Fraction(64, 45)

        source = write_source(tmp_path / f"source{name[1:]}", pictures(FEW), prepare=anamorphic)
        video, result = write_and_read_edit(source, tmp_path / name)
        assert video.pixel_aspect == result.pixel_aspect == Fraction(64, 45)
        assert "pixel aspect" in describe_output_losses(tmp_path / "a.webm", video)[0]
        if name == "a.mp4":
            video, result = write_and_read_edit(set_display_matrix(source, (0, 1, -1, 0)), tmp_path / "turned.mp4")
            assert video.pixel_aspect == result.pixel_aspect == Fraction(45, 64)

    @pytest.mark.parametrize("order", ["top", "bottom"])
    @pytest.mark.parametrize(
        ("codec", "container", "pix_fmt"), [("libx264", "ts", "yuv420p"), ("mpeg4", "avi", "yuv420p"), ("prores_ks", "mov", "yuv422p10le")]
    )
    def test_field_order(self, tmp_path: Path, order: FieldOrder, codec: str, container: str, pix_fmt: str) -> None:
        """The field order is marked in each frame of source and result, because players use those marks."""

        def woven(picture: np.ndarray) -> av.VideoFrame:
            return set_field_order(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt), order)

        source = write_source(
            tmp_path / f"fields.{container}", pictures(FEW), codec, pix_fmt, options={"flags": "+ildct+ilme"}, shape=woven
        )
        video, result = write_and_read_edit(source, tmp_path / "a.mp4")
        assert (video.field_order, result.field_order, result.tags) == (order, order, video.tags)
        assert any("interlaced" in note for note in video.notes)
        with av.open(str(tmp_path / "a.mp4")) as container_:
            assert {detect_field_order(frame) for frame in container_.decode(video=0)} == {order}

    def test_field_order_of_dv(self, tmp_path: Path) -> None:
        """European DV has the bottom field first, though only its frames state that and its header does not."""
        source = write_source(tmp_path / "a.dv", pictures(2, 576, 720), "dvvideo", form="dv")
        assert read_video(source).field_order == "bottom"

    def test_colour_tags(self, tmp_path: Path) -> None:
        def wide(stream: av.VideoStream) -> None:
            stream.codec_context.colorspace, stream.codec_context.color_primaries, stream.codec_context.color_trc = 9, 9, 14

        video, result = write_and_read_edit(write_source(tmp_path / "source.mp4", pictures(FEW), prepare=wide), tmp_path / "a.mp4")
        assert video.tags is not None and video.tags == result.tags
        assert (video.tags.matrix, video.tags.primaries, video.tags.transfer) == (9, 9, 14)

    @pytest.mark.parametrize("transfer", [16, 18])
    def test_high_dynamic_range_is_tone_mapped(self, tmp_path: Path, transfer: int) -> None:
        """Greys of PQ and HLG with known light have about the same brightness on a BT.709 display."""
        codes = {16: {0.0: 0, 0.3738: 107, 0.5807: 224}, 18: {0.0: 0, 0.5: 143, 0.75: 224}}[transfer]  # none, less, 203 cd/m2
        pixels = np.zeros((96, 160, 3), np.uint16)
        for column, level in enumerate(codes):
            pixels[:, 50 * column : 50 * column + 50] = round(level * 65535)

        def hdr(stream: av.VideoStream) -> None:
            stream.codec_context.colorspace, stream.codec_context.color_primaries, stream.codec_context.color_trc = 9, 9, transfer

        def deep(picture: np.ndarray) -> av.VideoFrame:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb48le")
            return frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1, src_color_range=2)

        source = write_source(tmp_path / "hdr.mkv", [pixels], "libx265", "yuv420p10le", prepare=hdr, shape=deep)
        video, result = write_and_read_edit(source, tmp_path / "a.mp4")
        for column, expected in enumerate(codes.values()):
            assert abs(int(video.frames[0, 80, 50 * column + 25, 1]) - expected) <= 8
        assert result.tags is not None and (result.tags.matrix, result.tags.transfer) == (1, 1)
        assert "HDR" in video.notes[0]

    @pytest.mark.parametrize("num_frames", [5, 6, 25])
    def test_last_duration(self, tmp_path: Path, num_frames: int) -> None:
        # In some of these the last displayed frame is decoded before another one.
        video = replace(read_video(plain(tmp_path / "a.mp4", num_frames)), has_sound=False, last_duration=0.4)
        write_video(tmp_path / "b.mp4", video)
        back = read_video(tmp_path / "b.mp4")
        assert back.last_duration == pytest.approx(0.4, abs=0.001) and back.times == pytest.approx(video.times)

    def test_notes_list_omitted_tracks(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.mkv"), "w") as output:
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            output.add_stream("libx264", rate=25)
            for picture in pictures(3):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
        assert read_video(tmp_path / "a.mkv").notes == ("the result leaves out 1 video track of the source",)

    @pytest.mark.parametrize("container", ["mp4", "mkv"])
    def test_chapters(self, tmp_path: Path, container: str) -> None:
        """Chapters are cut to the range and do not count as omitted tracks."""
        source = tmp_path / f"source.{container}"
        with av.open(str(source), "w") as output:
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            marks = [{"id": i, "start": 400 * i, "end": 400 * i + 400, "time_base": Fraction(1, 1000)} for i in range(3)]
            output.set_chapters([mark | {"metadata": {"title": f"part {mark['id']}"}} for mark in marks])
            for picture in pictures(30):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
        part = read_video(source, VideoSettings(start=15, frames=10))
        assert part.notes == () and part.chapters == (Chapter("part 1", 0, 0.2), Chapter("part 2", 0.2, 0.4))
        for name in ("a.mp4", "a.mov", "a.mkv", "a.webm"):
            write_video(tmp_path / name, part)
            assert read_video(tmp_path / name).chapters == part.chapters
        assert describe_output_losses(tmp_path / "a.gif", part) == ("the chapters are left out: .gif holds none",)
        assert read_video(source, VideoSettings(fps=12)).chapters == ()
        assert video_from_record(video_to_record(part), part.frames, None).chapters == part.chapters

    def test_record_preserves_metadata(self, tmp_path: Path) -> None:
        def marked(stream: av.VideoStream) -> None:
            stream.codec_context.sample_aspect_ratio = Fraction(16, 15)

        video = read_video(write_source(tmp_path / "a.mp4", pictures(FEW), "libx264", "yuv422p", prepare=marked))
        assert video_from_record(video_to_record(video), video.frames, None) == replace(video, source=(tmp_path / "a.mp4").resolve())


class TestTruncation:
    """Files with missing data are rejected; complete files whose header states too much are not."""

    def test_shortened_edit_list(self, tmp_path: Path) -> None:
        source = write_source(tmp_path / "a.mp4", pictures(50), options={"bf": "2", "g": "10"})
        assert read_video(shorten_edit_list(source, 400)).num_frames == 10

    @pytest.mark.parametrize("offset", [0.2, 3.0])
    def test_matroska_with_late_start(self, tmp_path: Path, offset: float) -> None:
        video = read_video(write_source(tmp_path / "a.mkv", pictures(25), start=offset))
        assert video.num_frames == 25 and video.start_time == pytest.approx(offset)

    def test_dropped_frames(self, tmp_path: Path) -> None:
        times = [i / 25 for i in range(25) if not 10 <= i <= 12]
        video = read_video(write_source(tmp_path / "a.avi", pictures(22), "mjpeg", "yuvj420p", times=times, time_base=Fraction(1, 25)))
        assert video.times == pytest.approx(times)

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
    def test_truncated_files_are_detected(self, tmp_path: Path, name: str) -> None:
        kind = ("mjpeg", "yuvj420p") if name == "a.avi" else ("libx264", "yuv420p")
        options = {"movflags": "faststart"} if name == "a.mp4" else {}
        path = write_source(tmp_path / name, pictures(25), *kind, container_options=options)
        assert not is_file_truncated(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        assert is_file_truncated(path)
        with pytest.raises(VideoError, match=r"end of the file is missing; only \d+ frames|only \d+ frames"):
            read_video(path)


class TestFileNames:
    def test_colon_in_file_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        plain(Path("take:2.mp4"), FEW)
        write_video(Path("take:4.mp4"), read_video(Path("take:2.mp4")))
        assert read_video(Path("take:4.mp4")).num_frames == FEW

    def test_long_file_name(self, tmp_path: Path) -> None:
        video = read_video(plain(tmp_path / "a.mp4", FEW))
        path = tmp_path / f"{'好' * 80}.mp4"
        write_video(path, video)
        assert path.is_file() and len(list(tmp_path.iterdir())) == 2

    def test_writing_through_a_link_preserves_it(self, tmp_path: Path) -> None:
        (tmp_path / "disc").mkdir()
        (tmp_path / "a.mp4").symlink_to(tmp_path / "disc" / "real.mp4")
        write_video(tmp_path / "a.mp4", read_video(plain(tmp_path / "source.mp4", FEW)))
        assert (tmp_path / "a.mp4").is_symlink() and (tmp_path / "disc" / "real.mp4").is_file()


class TestSound:
    @pytest.mark.parametrize(("container", "codec", "output"), [("mkv", "pcm_s16le", "mp4"), ("ts", "mp2", "mp4"), ("mkv", "aac", "webm")])
    def test_audio_gap_is_preserved(self, tmp_path: Path, container: str, codec: str, output: str) -> None:
        source = tmp_path / f"a.{container}"
        write_source(source, pictures(50), sound=make_clicks(), sound_codec=codec, sound_gap=(0.4, 1.2))
        write_and_read_edit(source, tmp_path / f"b.{output}")
        assert find_click_times(tmp_path / f"b.{output}") == pytest.approx([0.1, 0.3, 1.3, 1.5, 1.7, 1.9], abs=0.03)

    @pytest.mark.parametrize("output", ["mp4", "mkv", "webm"])
    @pytest.mark.parametrize("offsets", [(1000.0, 1000.8), (0.0, 0.0), (1000.0, 5000.0)])
    def test_joined_recordings(self, tmp_path: Path, offsets: tuple[float, ...], output: str) -> None:
        whole = plain(tmp_path / "whole.mp4")
        parts = [remux(whole, tmp_path / f"{number}.ts", offset).read_bytes() for number, offset in enumerate(offsets)]
        (tmp_path / "joined.ts").write_bytes(b"".join(parts))
        video, _ = write_and_read_edit(tmp_path / "joined.ts", tmp_path / f"a.{output}")
        assert video.num_frames == 50 and video.times == pytest.approx([i / 25 for i in range(50)], abs=0.001)
        assert find_click_times(tmp_path / f"a.{output}") == pytest.approx([0.1 + i / 5 for i in range(10)], abs=0.01)
        part = read_video(tmp_path / "joined.ts", VideoSettings(start=30, frames=15))
        write_video(tmp_path / f"b.{output}", part)
        assert find_click_times(tmp_path / f"b.{output}") == pytest.approx([0.1, 0.3, 0.5], abs=0.03)

    @pytest.mark.parametrize(("layout", "channels"), [("5.1", 6), ("7.1", 8), ("mono", 1)])
    @pytest.mark.parametrize("output", ["mp4", "webm"])
    def test_channel_layouts(self, tmp_path: Path, layout: str, channels: int, output: str) -> None:
        source = write_source(tmp_path / "a.mov", pictures(25), sound=make_clicks(1, channels), sound_codec="pcm_s24le", layout=layout)
        write_and_read_edit(source, tmp_path / f"a.{output}")
        with av.open(str(tmp_path / f"a.{output}")) as container:
            assert container.streams.audio[0].codec_context.channels == channels
        assert len(find_click_times(tmp_path / f"a.{output}")) == 5

    @pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libmp3lame"), ("a.mkv", "flac"), ("a.mov", "alac")])
    def test_supported_codecs_are_copied(self, tmp_path: Path, name: str, codec: str) -> None:
        source = tmp_path / f"source{name[1:]}"
        write_source(source, pictures(25), sound=make_clicks(1, 2), sound_codec=codec, layout="stereo")
        write_and_read_edit(source, tmp_path / name)
        contents = []
        for path in (source, tmp_path / name):
            with av.open(str(path)) as container:
                contents.append([bytes(packet) for packet in container.demux(audio=0) if packet.size])
        assert contents[0] == contents[1]

    def test_all_audio_tracks_are_written(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.mkv"), "w") as output:
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            tracks = [output.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
            tracks[1].metadata["language"] = "fra"
            for picture in pictures(25):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
            for track in tracks:
                frame = av.AudioFrame.from_ndarray(make_clicks(1), format="fltp", layout="mono")
                frame.sample_rate = 48000
                output.mux([*track.encode(frame), *track.encode(None)])
        write_and_read_edit(tmp_path / "a.mkv", tmp_path / "b.mp4")
        assert [len(find_click_times(tmp_path / "b.mp4", track)) for track in (0, 1)] == [5, 5]
        with av.open(str(tmp_path / "b.mp4")) as container:
            assert container.streams.audio[1].language == "fra"


# Smallest PSNR in dB outside the edit of a clip with little grain, by the pixel format of its source.
BACKGROUNDS = [
    ("libx264", "yuv420p", "mp4", None, 51),
    ("libx264", "yuv422p", "mp4", None, 51),
    ("libx264", "yuv444p", "mp4", None, 51),
    ("mjpeg", "yuvj420p", "avi", None, 51),
    ("mjpeg", "yuvj422p", "avi", None, 51),
    ("mjpeg", "yuvj444p", "avi", None, 51),
    ("ffv1", "yuv411p", "mkv", None, 51),
    ("ffv1", "bgr0", "mkv", None, 51),
    ("libx264", "yuv420p", "mp4", (0, 1, -1, 0), 51),
    ("libx264", "yuv420p", "mp4", (0, -1, 1, 0), 51),
    ("libx264", "yuv420p", "mp4", (1, 0, 0, -1), 51),
    ("libx264", "yuv420p", "mp4", (-1, 0, 0, -1), 51),
    ("libx264", "yuv422p", "mp4", (0, 1, -1, 0), 51),
]


@pytest.mark.parametrize(("codec", "pix_fmt", "container", "turn", "bound"), BACKGROUNDS)
def test_background_psnr(tmp_path: Path, codec: str, pix_fmt: str, container: str, turn: Turn | None, bound: float) -> None:
    source = write_source(tmp_path / f"a.{container}", pictures(FEW, grain=1), codec, pix_fmt, options={"qmin": "1", "qmax": "2"})
    if turn:
        set_display_matrix(source, turn)
    video, result = write_and_read_edit(source, tmp_path / "b.mp4")
    assert compute_background_psnr(video, result) >= bound
    assert bool(describe_output_losses(tmp_path / "b.mp4", video)) == (video.matching_pix_fmt != "yuv420p")
    write_video(tmp_path / "c.mp4", repaint(video), "h264-420", source_clip=video)
    with av.open(str(tmp_path / "c.mp4")) as written:
        assert written.streams.video[0].pix_fmt in ("yuv420p", "yuvj420p")


class TestImages:
    """Images as frames of videos, as stills and in folders."""

    def test_video_frames_with_exif(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x10F] = "Camera"
        with av.open(str(tmp_path / "lapse.mov"), "w") as output:
            stream = output.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuvj420p"
            for number, picture in enumerate(pictures(3)):
                Image.fromarray(picture).save(tmp_path / "still.jpg", exif=exif, quality=95)
                if number == 0:
                    stream.codec_context.open()
                packet = av.Packet((tmp_path / "still.jpg").read_bytes())
                packet.stream, packet.time_base, packet.pts, packet.dts, packet.is_keyframe = stream, Fraction(1, 25), number, number, True
                output.mux(packet)
        assert read_video(tmp_path / "lapse.mov").num_frames == 3 and probe_video(tmp_path / "lapse.mov").rotation == 0

    @pytest.mark.parametrize("ending", [".jpg", ".tif", ".bmp", ".png"])
    def test_still_is_a_clip_of_one_frame(self, tmp_path: Path, ending: str) -> None:
        image = Image.fromarray(pictures(1)[0])
        exif = Image.Exif()
        exif[0x112] = 6
        image.save(tmp_path / f"a{ending}", **({} if ending == ".bmp" else {"exif": exif}))
        video = read_video(tmp_path / f"a{ending}")
        assert video.num_frames == 1 and probe_video(tmp_path / f"a{ending}").size == video.size
        assert video.frames.shape[1:3] == ((96, 160) if ending == ".bmp" else (160, 96))

    def test_colours_of_an_image_folder(self, tmp_path: Path) -> None:
        """By default an .mp4 for every player, with a note on its losses; every pixel's colour with h264-444 and in folders."""
        (tmp_path / "frames").mkdir()
        for number, picture in enumerate(pictures(3)):
            Image.fromarray(picture).save(tmp_path / "frames" / f"{number}.png")
        video = read_video(tmp_path / "frames")
        assert "averages the colours of 2x2 pixels" in describe_output_losses(tmp_path / "a.mp4", video)[0]
        assert describe_output_losses(tmp_path / "a.mp4", video, "h264-444") == describe_output_losses(tmp_path / "a", video) == ()
        write_video(tmp_path / "a.mp4", video, "h264-444", source_clip=video)
        assert (read_video(tmp_path / "a.mp4").frames.int() - video.frames.int()).abs().max() <= 2
        write_video(tmp_path / "a", video)
        assert torch.equal(read_video(tmp_path / "a").frames, video.frames)

    @pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
    def test_alpha_of_webm(self, tmp_path: Path, codec: str) -> None:
        def see_through(picture: np.ndarray) -> av.VideoFrame:
            alpha = np.full((96, 160, 1), 255, np.uint8)
            alpha[:, :80] = 0
            return av.VideoFrame.from_ndarray(np.dstack([picture, alpha]), format="rgba").reformat(format="yuva420p")

        def marked(stream: av.VideoStream) -> None:
            stream.metadata["alpha_mode"] = "1"

        options = {"auto-alt-ref": "0", "crf": "10", "b": "1M"}
        source = tmp_path / "a.webm"
        write_source(source, pictures(FEW), codec, "yuva420p", options=options, shape=see_through, prepare=marked)
        video = read_video(source)
        assert video.alpha is not None and video.alpha[:, :, :70].max() < 10 and video.alpha[:, :, 90:].min() > 245
        assert "transparency is left out" in describe_output_losses(tmp_path / "b.mp4", video)[0]
        write_video(tmp_path / "b.mkv", video, "ffv1")
        back = read_video(tmp_path / "b.mkv")
        assert back.alpha is not None and mean_error(back.alpha, video.alpha) < 1
