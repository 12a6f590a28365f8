"""The page for participants: one HTML file and its media, without a method's name in text, attributes or file names."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import torch
from jinja2 import Environment, StrictUndefined

from lora_edit.atomic_files import write_text
from lora_edit.errors import RunError, SettingsError
from lora_edit.reporting import Reporter
from lora_edit.studies.users.answer_key import KEY_FILE, AnswerKey, Group, make_key, read_key, write_key
from lora_edit.studies.users.clips import ClipResults, check_clips, find_clips
from lora_edit.studies.users.questions import GROUPS_PER_PARTICIPANT, QUESTIONS
from lora_edit.types import Video
from lora_edit.video.read import read_image, read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def build_page(clips_folder: Path, output: Path, reporter: Reporter, seed: int = 0) -> Path:
    """Write `output/page/` for participants and `output/key.json` for the person who runs the study; return the path of the page.

    - `clips_folder`: the folder of clips, see `find_clips`.
    - `seed`: draws the order of the methods in each group.

    The same files give the same study, so an interrupted call can be repeated. Raises `InputError` before anything is written.
    """
    clips = find_clips(clips_folder)
    _check_location(clips_folder, output)
    if len(clips[0].results) > len(_LETTERS):
        raise SettingsError(f"{clips_folder}: {len(clips[0].results)} methods; a group shows at most {len(_LETTERS)}, so compare fewer")
    check_clips(clips, reporter)
    key = make_key(clips, seed)
    _check_output(output, key)
    media = output / "page" / "media"
    media.mkdir(parents=True, exist_ok=True)
    write_key(output, key)
    for clip, group in zip(clips, key.groups, strict=True):
        _write_media(media, clip, group)
        reporter.step("page", group.group, len(clips))
    page = output / "page" / "index.html"
    write_text(page, render_page(key))
    return page


def _check_location(clips_folder: Path, output: Path) -> None:
    if output.resolve().is_relative_to(clips_folder.resolve()):
        raise SettingsError(f"{output}: is inside the folder of cases; choose a folder outside {clips_folder}")


def _check_output(output: Path, key: AnswerKey) -> None:
    """Raise `RunError` unless the folder is new, empty, or that of the same study."""
    if output.exists() and not output.is_dir():
        raise RunError(f"{output}: is a file; choose a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / KEY_FILE).is_file() or read_key(output) != key:
        raise RunError(f"{output}: contains something other than a study of these files; choose another folder")


def _write_media(folder: Path, clip: ClipResults, group: Group) -> None:
    """Re-encode all media in the same way, so that neither sound nor metadata nor formats reveal the method behind a result."""
    save_image(folder / f"{group.group}_first.png", read_image(clip.first_frame))
    write_video(folder / f"{group.group}_source.mp4", _read_even_sized(clip.source), overwrite=True)
    for option, method in enumerate(group.options, start=1):
        write_video(folder / f"{group.group}_{option}.mp4", _read_even_sized(clip.results[method]), overwrite=True)


def _read_even_sized(path: Path) -> Video:
    """Read a clip without sound and pad odd sides by repeating the last row or column, as not all browsers play odd sizes."""
    video = read_video(path)
    odd_height, odd_width = video.size.height % 2, video.size.width % 2
    frames = video.frames
    if odd_height:
        frames = torch.cat([frames, frames[:, -1:]], dim=1)
    if odd_width:
        frames = torch.cat([frames, frames[:, :, -1:]], dim=2)
    return replace(video, frames=frames, alpha=None, source=None, has_sound=False)


def render_page(key: AnswerKey) -> str:
    """Render the page as HTML with script and styles. Of the key it contains the id of the study and the numbers of groups and options."""
    facts = {
        "id": key.study,
        "groups": len(key.groups),
        "letters": list(_LETTERS[: len(key.methods)]),
        "perParticipant": min(GROUPS_PER_PARTICIPANT, len(key.groups)),
        "questions": [asdict(question) for question in QUESTIONS],
    }
    package = files("lora_edit.studies.users")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(package.joinpath("page.html.j2").read_text("utf-8"))
    return template.render(facts=facts, script=package.joinpath("page.js").read_text("utf-8"))
