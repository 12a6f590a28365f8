"""The manifest of cases: its keys and its error messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_edit.errors import SettingsError
from lora_edit.evaluation.manifest import Case, LaterFrame, read_cases, write_cases

GOOD = {"id": "swan", "source": "swan.mp4", "first_frame": "swan.png"}


def manifest(folder: Path, *lines: object) -> Path:
    path = folder / "cases.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_paths_are_relative_to_manifest(tmp_path: Path) -> None:
    (tmp_path / "swan.png").touch()
    (tmp_path / "swan.mp4").touch()
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.touch()
    later = [{"frame": 4, "image": str(elsewhere)}]
    (case,) = read_cases(manifest(tmp_path, "", GOOD | {"later": later, "prompt": "a\u2028b"}, " "))
    assert (case.source, case.first_frame) == (tmp_path / "swan.mp4", tmp_path / "swan.png")
    assert case.later == (LaterFrame(frame=4, image=elsewhere),)
    assert (case.start, case.frames, case.fps, case.mask, case.truth, case.prompt) == (0, None, None, None, None, "a\u2028b")


def test_written_cases_are_read_back(tmp_path: Path) -> None:
    cases = (
        Case(
            id="one",
            source=tmp_path / "data/a.mp4",
            first_frame=tmp_path / "edits/a.png",
            mask=tmp_path / "masks/a",
            later=(LaterFrame(frame=2, image=tmp_path / "edits/a2.png"),),
            prompt="ä",
            truth=tmp_path / "truth.mp4",
            fps=12.5,
            start=3,
            frames=9,
        ),
        Case(id="two", source=tmp_path / "b.mp4", first_frame=tmp_path / "b.png"),
    )
    path = tmp_path / "lists/cases.jsonl"
    assert write_cases(path, cases) == 2
    assert json.loads(path.read_text("utf-8").splitlines()[1]) == {"id": "two", "source": "../b.mp4", "first_frame": "../b.png"}
    restored = read_cases(path, check_files=False)
    assert [[file.resolve() for file in case.get_paths().values()] for case in restored] == [
        list(case.get_paths().values()) for case in cases
    ]
    assert restored[0].model_dump(include={"prompt", "fps", "start", "frames"}) == {"prompt": "ä", "fps": 12.5, "start": 3, "frames": 9}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "the line: "),
        ({"id": "x", "source": "a"}, "first_frame: field required; a case has the keys id, source, first_frame, mask"),
        (GOOD | {"frist": 1}, "frist: extra inputs are not permitted"),
        (GOOD | {"id": "a/b"}, "id: "),
        (GOOD | {"fps": 0}, "fps: "),
        (GOOD | {"start": -1}, "start: "),
        (GOOD | {"later": [{"frame": 0, "image": "a"}]}, "later.0.frame: "),
        (GOOD | {"later": [{"frame": 1, "image": "a"}] * 2}, "later: value error, a frame is given twice"),
        (GOOD | {"id": "first"}, "an earlier line uses the id first"),
    ],
)
def test_fault_is_reported_with_line_number(tmp_path: Path, line: object, words: str) -> None:
    path = manifest(tmp_path, GOOD | {"id": "first"}, "", line)
    with pytest.raises(SettingsError) as caught:
        read_cases(path, check_files=False)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "swan.mp4").touch()
    with pytest.raises(SettingsError, match=r"line 1 \(swan\): first_frame .*swan\.png does not exist"):
        read_cases(manifest(tmp_path, GOOD))


def test_missing_or_empty_manifest_raises(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_cases(tmp_path / "none.jsonl")
    with pytest.raises(SettingsError, match="contains no cases"):
        read_cases(manifest(tmp_path, "", " "))
