"""A project's states: nothing is lost, everything can be undone, nobody reaches another's."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from lora_edit.errors import RunError
from lora_edit.ui.projects import MAX_HISTORY, Folder, Mark, Shelf


def steps(folder: Folder) -> tuple[bool, bool]:
    """Is there something to undo, and to redo?"""
    before, after = folder.neighbours()
    return before is not None, after is not None


def test_every_change_can_be_undone_and_done_again(tmp_path: Path) -> None:
    folder = Shelf(tmp_path).new()
    folder.change(prompt="a dog")
    folder.change(prompt="a cat", marks=(Mark(kind="point", frame=3, x=1, y=2),))
    assert folder.step_back().prompt == "a dog"
    assert folder.step_back().prompt == ""
    assert steps(folder) == (False, True)
    assert folder.step_back() == folder.now()
    assert folder.step_back(-2).marks[0].frame == 3
    folder.step_back()
    folder.change(prompt="a hen")
    assert steps(folder) == (True, False)
    assert folder.now().marks == ()


def test_a_change_that_changes_nothing_is_no_step(tmp_path: Path) -> None:
    folder = Shelf(tmp_path).new()
    folder.change(seed=0)
    assert steps(folder) == (False, False)


def test_a_change_that_makes_no_sense_leaves_all_as_it_was(tmp_path: Path) -> None:
    folder = Shelf(tmp_path).new()
    with pytest.raises(ValidationError):
        folder.change(shape="round")
    assert steps(folder) == (False, False)


def test_history_is_bounded(tmp_path: Path) -> None:
    folder = Shelf(tmp_path).new()
    for number in range(MAX_HISTORY + 30):
        folder.change(seed=number + 1)
    assert folder.now().seed == MAX_HISTORY + 30
    assert folder.step_back(10**6).seed == 31


def test_kept_files_never_change(tmp_path: Path) -> None:
    folder, given = Shelf(tmp_path / "shelf").new(), tmp_path / "First Frame.PNG"
    given.write_bytes(b"one")
    first = folder.keep(given)
    given.write_bytes(b"two")
    second = folder.keep(given)
    assert first != second
    assert (folder.path / first).read_bytes() == b"one"
    assert first.endswith(".png")
    assert (folder.name_of(first), folder.name_of("given/0.png"), folder.name_of("")) == ("First Frame.PNG", "", "")


def test_a_file_that_is_refused_leaves_no_copy(tmp_path: Path) -> None:
    folder, given = Shelf(tmp_path / "shelf").new(), tmp_path / "first.png"
    given.write_bytes(b"one")
    with folder.keeping(given) as kept:
        pass
    with pytest.raises(RunError), folder.keeping(given):
        raise RunError("refused")
    assert {file.name for file in (folder.path / "given").iterdir()} == {Path(kept).name, Path(kept).stem + ".name"}


@pytest.mark.parametrize("name", ["", "..", "../x", "0" * 32, "a/b", "A" * 32])
def test_only_projects_that_are_there_open(tmp_path: Path, name: str) -> None:
    Shelf(tmp_path).new()
    with pytest.raises(RunError, match="not here"):
        Shelf(tmp_path).open(name)


def test_projects_have_names_of_their_own(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    one, two = shelf.new(), shelf.new()
    one.change(prompt="mine")
    assert shelf.open(two.id).now().prompt == ""
    assert shelf.open(one.id) == Folder(tmp_path / one.id)


def test_changes_asked_for_at_once_are_both_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    name = shelf.new().id
    people = [threading.Thread(target=lambda seed=seed: shelf.open(name).change(seed=seed)) for seed in range(1, 21)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    folder = shelf.open(name)
    seen = [folder.now().seed, *(folder.step_back().seed for _ in range(20))]
    assert sorted(seen) == list(range(21))
