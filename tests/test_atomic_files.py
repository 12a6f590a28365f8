"""Files and folders appear complete or not at all, and what ended processes left is removed."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import pytest

from lora_edit import atomic_files
from lora_edit.atomic_files import (
    build_partial_path,
    copy_file,
    is_partial,
    remove_abandoned_files,
    replace_file,
    replace_folder,
    write_bytes,
    write_text,
)
from lora_edit.errors import RunError
from lora_edit.file_lock import try_lock
from lora_edit.run import Run
from source_tree import PACKAGE, dotted, nodes, place


def list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def make_abandoned(target: Path, ended_process: int, suffix: str = "") -> Path:
    """The temporary path that an ended process would have used for the target."""
    own = build_partial_path(target, suffix)
    return own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{ended_process}-"))


def test_writes_replace_the_file_and_leave_nothing_else(tmp_path: Path) -> None:
    for content in ("first", "second\n"):
        write_text(tmp_path / "new" / "a.txt", content)
        assert (tmp_path / "new" / "a.txt").read_bytes() == content.encode()
    copy_file(tmp_path / "new" / "a.txt", tmp_path / "new" / "b.txt")
    assert (tmp_path / "new" / "b.txt").read_text() == "second\n"
    assert list_names(tmp_path / "new") == {"a.txt", "b.txt"}


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a.txt")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "a.txt").read_text() == "text"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_error_keeps_the_old_file_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space") as caught:
        write_text(tmp_path / "a.txt", "new")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert list_names(tmp_path) == {"a.txt"} and (tmp_path / "a.txt").read_text() == "old"


def test_an_exception_in_the_block_keeps_the_old_content(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "folder" / "0.txt", "old")

    def interrupt(partial: Path) -> None:
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replace_file(tmp_path / "a.txt") as partial:
        interrupt(partial)
    with pytest.raises(KeyboardInterrupt), replace_folder(tmp_path / "folder") as partial:
        interrupt(partial / "0.txt")
    assert list_names(tmp_path) == {"a.txt", "folder"}
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "folder" / "0.txt").read_text() == "old"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic_files, "_exchange", lambda first, second: False)
    for names in ({"0", "1", "2"}, {"1"}):
        with replace_folder(tmp_path / "frames") as partial:
            assert is_partial(partial) and is_partial(partial / "1")
            for name in names:
                (partial / name).write_text("x")
        assert list_names(tmp_path / "frames") == names and list_names(tmp_path) == {"frames"}


def test_an_older_folder_has_its_name_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can exchange names, neither is renamed away."""
    write_text(tmp_path / "frames" / "0", "old")
    if not atomic_files._exchange(tmp_path / "frames", tmp_path / "frames"):
        pytest.skip("this file system cannot exchange names")
    monkeypatch.setattr(os, "rename", None)
    with replace_folder(tmp_path / "frames") as partial:
        (partial / "0").write_text("new")
    assert (tmp_path / "frames" / "0").read_text() == "new"


def test_only_what_ended_processes_left_is_removed(tmp_path: Path, ended_process: int) -> None:
    abandoned = make_abandoned(tmp_path / "a.json", ended_process)
    folder = make_abandoned(tmp_path / "frames", ended_process)
    nested = make_abandoned(tmp_path / "lora" / "edit.safetensors", ended_process, ".safetensors")
    of_others = [
        build_partial_path(tmp_path / "a.json"),  # of this process
        tmp_path / f".deadbeef-deadbeef-{ended_process}-1.partial",  # of another host
        tmp_path / ".notes.partial",
        tmp_path / "a.part",
    ]
    write_bytes(folder / "0.png", b"half")
    for path in (abandoned, nested, *of_others):
        write_bytes(path.parent / "content", b"half")
        os.replace(path.parent / "content", path)
    assert set(remove_abandoned_files(tmp_path)) == {abandoned, folder, nested}
    assert all(path.exists() for path in of_others) and not folder.exists() and not nested.exists()


def test_only_the_targets_own_files_are_removed_from_a_folder_of_other_files(tmp_path: Path, ended_process: int) -> None:
    own, other = (make_abandoned(tmp_path / name, ended_process, ".mp4") for name in ("out.mp4", "other.mp4"))
    for path in (own, other):
        path.write_bytes(b"half")
    assert remove_abandoned_files(tmp_path, tmp_path / "out.mp4") == [own]
    assert list_names(tmp_path) == {other.name}


def test_a_folder_renamed_away_before_a_crash_returns(tmp_path: Path, ended_process: int) -> None:
    own = build_partial_path(tmp_path / "frames")
    host = own.name.split("-")[1]
    write_text(tmp_path / f".frames-{host}-{ended_process}.previous" / "0", "old")
    remove_abandoned_files(tmp_path)
    assert list_names(tmp_path) == {"frames"} and (tmp_path / "frames" / "0").read_text() == "old"


def test_the_lock_names_its_owner_and_survives_nothing(tmp_path: Path) -> None:
    """A second lock fails while the first is held, also from this process; an old lock file of an ended process does not matter."""
    (tmp_path / ".lock").write_text("left by an ended process")
    run = Run(tmp_path)
    with run.lock():
        assert try_lock(tmp_path / ".lock") is None
        with pytest.raises(RunError, match=rf"process {os.getpid()} on .* is working on this run"), run.lock():
            pass
    with run.lock():
        pass


def test_a_file_system_without_locks_has_one_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of an ended process is then recognised by its identifier."""
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = try_lock(tmp_path / ".lock")
    assert lock is not None and try_lock(tmp_path / ".lock") is None
    lock.release()
    second = try_lock(tmp_path / ".lock")
    assert second is not None
    second.release()


def test_a_run_folder_that_cannot_be_written_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match=r"cannot be written.*copy it to a writable disk"), Run(tmp_path).lock():
        pass


RENAMING_CALLS = {"os.replace", "os.rename", "shutil.copyfile", "shutil.copy", "shutil.copy2", "shutil.move"}


def test_the_package_writes_files_here_only() -> None:
    """Other modules write to a path that `replace_file` or `replace_folder` yields, and append to logs."""
    faults = []
    for path, node in nodes(PACKAGE):
        if isinstance(node, ast.Call) and path.name != "atomic_files.py":
            function, owner = dotted(node.func), dotted(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            writes = function.rpartition(".")[2] in {"write_text", "write_bytes"} and owner not in {"", "partial"}
            if writes or function in RENAMING_CALLS:
                faults.append(f"{place(path, node)}: {function}")
    assert not faults, faults
