"""A project's states: nothing is lost, everything can be undone, nobody reaches another's."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from lora_edit.errors import RunError
from lora_edit.ui.projects import MAX_HISTORY, Mark, Project, ProjectStore


def steps(folder: Project) -> tuple[bool, bool]:
    """Is there something to undo, and to redo?"""
    before, after = folder.read_adjacent_states()
    return before is not None, after is not None


def test_every_change_can_be_undone_and_done_again(tmp_path: Path) -> None:
    folder = ProjectStore(tmp_path).create_project()
    folder.update_state(prompt="a dog")
    folder.update_state(prompt="a cat", marks=(Mark(kind="point", frame=3, x=1, y=2),))
    assert folder.undo().prompt == "a dog"
    assert folder.undo().prompt == ""
    assert steps(folder) == (False, True)
    assert folder.undo() == folder.read_state()
    assert folder.undo(-2).marks[0].frame == 3
    folder.undo()
    folder.update_state(prompt="a hen")
    assert steps(folder) == (True, False)
    assert folder.read_state().marks == ()


def test_a_change_that_changes_nothing_is_no_step(tmp_path: Path) -> None:
    folder = ProjectStore(tmp_path).create_project()
    folder.update_state(seed=0)
    assert steps(folder) == (False, False)


def test_a_change_that_makes_no_sense_leaves_all_as_it_was(tmp_path: Path) -> None:
    folder = ProjectStore(tmp_path).create_project()
    with pytest.raises(ValidationError):
        folder.update_state(shape="round")
    assert steps(folder) == (False, False)


def test_history_is_bounded(tmp_path: Path) -> None:
    folder = ProjectStore(tmp_path).create_project()
    for number in range(MAX_HISTORY + 30):
        folder.update_state(seed=number + 1)
    assert folder.read_state().seed == MAX_HISTORY + 30
    assert folder.undo(10**6).seed == 31


def test_kept_files_never_change(tmp_path: Path) -> None:
    folder, given = ProjectStore(tmp_path / "shelf").create_project(), tmp_path / "First Frame.PNG"
    given.write_bytes(b"one")
    first = folder.import_file(given)
    given.write_bytes(b"two")
    second = folder.import_file(given)
    assert first != second
    assert (folder.path / first).read_bytes() == b"one"
    assert first.endswith(".png")
    assert (folder.read_original_name(first), folder.read_original_name("given/0.png"), folder.read_original_name("")) == (
        "First Frame.PNG",
        "",
        "",
    )


def test_a_file_that_is_refused_leaves_no_copy(tmp_path: Path) -> None:
    folder, given = ProjectStore(tmp_path / "shelf").create_project(), tmp_path / "first.png"
    given.write_bytes(b"one")
    with folder.stage_file(given) as kept:
        pass
    with pytest.raises(RunError), folder.stage_file(given):
        raise RunError("refused")
    assert {file.name for file in (folder.path / "given").iterdir()} == {Path(kept).name, Path(kept).stem + ".name"}


@pytest.mark.parametrize("name", ["", "..", "../x", "0" * 32, "a/b", "A" * 32])
def test_only_projects_that_are_there_open(tmp_path: Path, name: str) -> None:
    ProjectStore(tmp_path).create_project()
    with pytest.raises(RunError, match="not here"):
        ProjectStore(tmp_path).open_project(name)


def test_projects_have_names_of_their_own(tmp_path: Path) -> None:
    shelf = ProjectStore(tmp_path)
    one, two = shelf.create_project(), shelf.create_project()
    one.update_state(prompt="mine")
    assert shelf.open_project(two.id).read_state().prompt == ""
    assert shelf.open_project(one.id) == Project(tmp_path / one.id)


def test_changes_asked_for_at_once_are_both_kept(tmp_path: Path) -> None:
    shelf = ProjectStore(tmp_path)
    name = shelf.create_project().id
    people = [threading.Thread(target=lambda seed=seed: shelf.open_project(name).update_state(seed=seed)) for seed in range(1, 21)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    folder = shelf.open_project(name)
    seen = [folder.read_state().seed, *(folder.undo().seed for _ in range(20))]
    assert sorted(seen) == list(range(21))
