"""Text and JSON files that are damaged, huge, or no files at all are refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lora_edit import text_files
from lora_edit.errors import InputError, RunError
from lora_edit.text_files import parse_json, read_bytes_file, read_json_object, read_text_file


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    """They may never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{path}: is a pipe or device"):
            read_text_file(path)


def test_files_above_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_TEXT_BYTES", 4)
    (tmp_path / "a").write_bytes(b"12345")
    with pytest.raises(InputError, match="has 5 bytes, 4 at most"):
        read_bytes_file(tmp_path / "a")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "{", "\ufeff{}"])
def test_json_that_cannot_be_read_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


@pytest.mark.parametrize("content", [b"", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_other_contents_than_an_object_name_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.json: .*; make it again"):
        read_json_object(tmp_path / "a.json", RunError, "make it again")
    with pytest.raises(RunError, match=r"b\.json: cannot be read \(No such file.*; make it again"):
        read_json_object(tmp_path / "b.json", RunError, "make it again")
    with pytest.raises(RunError, match="Is a directory"):
        read_json_object(tmp_path, RunError, "make it again")
