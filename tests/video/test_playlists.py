"""Files that name other files are not read: a clip from elsewhere must not show files of this computer, or contact other hosts."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lora_edit.errors import VideoError
from lora_edit.video.read import probe_video, read_video
from lora_edit.video.write import write_video
from video.clips import make_clip

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{place}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{place}'\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{place}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\na=x:{place}\n"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><image href="{place}"/></svg>'


@pytest.fixture
def private_clip(tmp_path: Path) -> Path:
    """A clip in another folder."""
    (tmp_path / "private").mkdir()
    write_video(tmp_path / "private" / "clip.mp4", make_clip())
    (tmp_path / "given").mkdir()
    return tmp_path / "private" / "clip.mp4"


@pytest.mark.parametrize("ending", ["m3u8", "mp4", "mpd", "ffconcat", "sdp"])
@pytest.mark.parametrize("text", [HLS, CONCAT, DASH, SDP, SVG], ids=["hls", "concat", "dash", "sdp", "svg"])
def test_a_playlist_shows_no_other_file(private_clip: Path, tmp_path: Path, text: str, ending: str) -> None:
    for place in (str(private_clip), f"file://{private_clip}", "../private/clip.mp4"):
        playlist = tmp_path / "given" / f"a.{ending}"
        playlist.write_text(text.format(place=place))
        for read in (probe_video, read_video):
            with pytest.raises(VideoError):
                read(playlist)


def test_without_the_check_a_playlist_would_show_another_file(private_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playlist = tmp_path / "given" / "a.m3u8"
    playlist.write_text(HLS.format(place=private_clip))
    with pytest.raises(VideoError, match="is a playlist, which names other files; give the video itself"):
        read_video(playlist)
    monkeypatch.setattr("lora_edit.video.libav.PLAYLIST_FORMATS", frozenset())
    assert read_video(playlist).num_frames == make_clip().num_frames


def test_a_playlist_contacts_no_host(tmp_path: Path) -> None:
    requested: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        for number, text in enumerate((HLS, CONCAT, DASH, SDP, SVG)):
            playlist = tmp_path / f"{number}.m3u8"
            playlist.write_text(text.format(place=f"http://127.0.0.1:{listener.server_port}/clip.mp4"))
            with pytest.raises(VideoError):
                read_video(playlist)
        listener.shutdown()
    assert requested == []


def test_a_clip_under_the_name_of_a_playlist_is_read(private_clip: Path, tmp_path: Path) -> None:
    shutil.copyfile(private_clip, tmp_path / "clip.m3u8")
    assert read_video(tmp_path / "clip.m3u8").num_frames == make_clip().num_frames
