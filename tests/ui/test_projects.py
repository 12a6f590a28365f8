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


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[1]", b"{}", b"[" * 100_000, b'{"states": [], "at": 0}', b'{"states": [{}], "at": -1}']
)
def test_damaged_records_are_named(tmp_path: Path, content: bytes) -> None:
    """What the page shows instead of an internal error. A damaged record of an unfinished edit counts as none."""
    project = ProjectStore(tmp_path).create_project()
    files = {"states.json": project.read_state, "made.json": project.read_results}
    for name, read in files.items():
        (project.path / name).write_bytes(content)
        with pytest.raises(RunError, match=f"{name} of this project is damaged"):
            read()
    (project.path / "unfinished.json").write_bytes(content)
    assert project.read_unfinished_edit() is None


def test_a_current_state_past_the_end_is_the_last_one(tmp_path: Path) -> None:
    project = ProjectStore(tmp_path).create_project()
    (project.path / "states.json").write_text('{"states": [{}, {"seed": 3}], "at": 9}')
    assert project.read_state().seed == 3


@pytest.mark.parametrize(
    ("name", "shown", "suffix"),
    [
        ("clip.MP4", "clip.MP4", ".mp4"),
        ("a\u202egnp.mp4", "agnp.mp4", ".mp4"),  # a direction character would show it as a4pm.png
        ("a\n\x1b[31m.mov", "a[31m.mov", ".mov"),
        ("x" * 200 + ".mp4", "x" * 96 + ".mp4", ".mp4"),
        ("a.%03d", "a.%03d", ""),
        ("a." + "y" * 150, "y" * 100, ""),
        ("noname", "noname", ""),
    ],
)
def test_an_imported_file_keeps_a_harmless_name(tmp_path: Path, name: str, shown: str, suffix: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    project = ProjectStore(tmp_path / "runs").create_project()
    stored_file = project.import_file(tmp_path / name)
    assert project.read_original_name(stored_file) == shown
    assert (project.path / stored_file).suffix == suffix


@pytest.mark.parametrize("name", [None, "", "..", "0" * 32, "../" + "0" * 32, "A" * 32, "0" * 31 + "\n", "\0" * 32])
def test_other_names_open_no_project(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(RunError, match="does not exist"):
        ProjectStore(tmp_path).open_project(name)
