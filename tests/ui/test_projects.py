"""Projects on disk: history of states, imported files, and access by name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from lora_edit.errors import RunError
from lora_edit.ui.projects import MAX_HISTORY, Mark, Project, ProjectStore


def has_steps(project: Project) -> tuple[bool, bool]:
    """Return whether undo and redo have a state."""
    before, after = project.read_adjacent_states()
    return before is not None, after is not None


def test_every_change_can_be_undone_and_redone(tmp_path: Path) -> None:
    project = ProjectStore(tmp_path).create_project()
    project.update_state(prompt="a dog")
    project.update_state(prompt="a cat", marks=(Mark(kind="point", frame=3, x=1, y=2),))
    assert project.undo().prompt == "a dog"
    assert project.undo().prompt == ""
    assert has_steps(project) == (False, True)
    assert project.undo() == project.read_state()
    assert project.undo(-2).marks[0].frame == 3
    project.undo()
    project.update_state(prompt="a hen")
    assert has_steps(project) == (True, False)
    assert project.read_state().marks == ()


def test_an_equal_state_is_not_stored(tmp_path: Path) -> None:
    project = ProjectStore(tmp_path).create_project()
    project.update_state(seed=0)
    assert has_steps(project) == (False, False)


def test_an_invalid_change_is_not_stored(tmp_path: Path) -> None:
    project = ProjectStore(tmp_path).create_project()
    with pytest.raises(ValidationError):
        project.update_state(shape="round")
    assert has_steps(project) == (False, False)


def test_history_is_bounded(tmp_path: Path) -> None:
    project = ProjectStore(tmp_path).create_project()
    for number in range(MAX_HISTORY + 30):
        project.update_state(seed=number + 1)
    assert project.read_state().seed == MAX_HISTORY + 30
    assert project.undo(10**6).seed == 31


def test_imported_files_never_change(tmp_path: Path) -> None:
    project, source = ProjectStore(tmp_path / "projects").create_project(), tmp_path / "First Frame.PNG"
    source.write_bytes(b"one")
    first = project.import_file(source)
    source.write_bytes(b"two")
    second = project.import_file(source)
    assert first != second
    assert (project.path / first).read_bytes() == b"one"
    assert first.endswith(".png")
    assert (project.read_original_name(first), project.read_original_name("given/0.png"), project.read_original_name("")) == (
        "First Frame.PNG",
        "",
        "",
    )


def test_a_rejected_file_leaves_no_copy(tmp_path: Path) -> None:
    project, source = ProjectStore(tmp_path / "projects").create_project(), tmp_path / "first.png"
    source.write_bytes(b"one")
    with project.stage_file(source) as stored_file:
        pass
    with pytest.raises(RunError), project.stage_file(source):
        raise RunError("rejected")
    assert {file.name for file in (project.path / "given").iterdir()} == {Path(stored_file).name, Path(stored_file).stem + ".name"}


@pytest.mark.parametrize("name", ["", "..", "../x", "0" * 32, "a/b", "A" * 32])
def test_only_existing_projects_open(tmp_path: Path, name: str) -> None:
    ProjectStore(tmp_path).create_project()
    with pytest.raises(RunError, match="does not exist"):
        ProjectStore(tmp_path).open_project(name)


def test_projects_have_unique_names(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    one, two = store.create_project(), store.create_project()
    one.update_state(prompt="mine")
    assert store.open_project(two.id).read_state().prompt == ""
    assert store.open_project(one.id) == Project(tmp_path / one.id)


def test_concurrent_changes_are_all_stored(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    name = store.create_project().id
    threads = [threading.Thread(target=lambda seed=seed: store.open_project(name).update_state(seed=seed)) for seed in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    project = store.open_project(name)
    seeds = [project.read_state().seed, *(project.undo().seed for _ in range(20))]
    assert sorted(seeds) == list(range(21))
