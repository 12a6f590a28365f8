"""Downloads from a Hub that is a folder: consent, licence, disk space, files, and incomplete downloads."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import DryRunError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from typer.testing import CliRunner

from lora_edit.cli import model_cards
from lora_edit.cli.main import app
from lora_edit.errors import ModelError
from lora_edit.models.checkpoints import download, locate
from lora_edit.models.checkpoints.download import download_missing_parts, get_download_state, plan_downloads
from lora_edit.models.checkpoints.hub import get_hub_cache_folder, get_repository_folder
from lora_edit.models.checkpoints.layout import list_required_parts
from lora_edit.models.checkpoints.locate import find_weights
from lora_edit.models.record import ModelRecord
from single_files import save_comfyui, save_original
from tiny_wan import WANS, save_tiny

I2V, FUN = WANS["wan2.1-i2v-480p"], WANS["wan2.1-fun-1.3b"]
SHARED = I2V.repo


class Hub:
    """Stand-in for `huggingface_hub.snapshot_download`: repositories are folders, files go to the library's layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, bool]] = []
        self.breaks_after: int | None = None
        self.fault: BaseException | None = None

    def snapshot_download(self, repo: str, *, allow_patterns: list[str], cache_dir: Path, dry_run: bool = False) -> Any:
        """Copy the matching files; all of them, or until the connection breaks."""
        self.asked.append((repo, dry_run))
        if self.fault is not None:
            raise DryRunError("cannot be accessed") from self.fault
        names = [str(path.relative_to(self.folder / repo)) for path in sorted((self.folder / repo).rglob("*")) if path.is_file()]
        wanted = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns)]
        home = Path(cache_dir) / f"models--{repo.replace('/', '--')}"
        there = home / "snapshots" / "abc"
        if dry_run:
            return [
                SimpleNamespace(
                    filename=name, file_size=(self.folder / repo / name).stat().st_size, will_download=not (there / name).exists()
                )
                for name in wanted
            ]
        for number, name in enumerate(wanted):
            if number == self.breaks_after:
                (home / "blobs").mkdir(exist_ok=True)
                (home / "blobs" / "1234.incomplete").write_bytes(b"begun")
                raise ConnectionError("the line is down")
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / repo / name, there / name)
        return str(there)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub, an empty folder of its library, and online mode."""
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return made


@pytest.fixture
def i2v(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> ModelRecord:
    """A tiny Wan in diffusers' layout on the Hub, with unneeded files."""
    record = save_tiny(I2V, hub.folder / SHARED)
    (hub.folder / SHARED / "examples").mkdir()
    (hub.folder / SHARED / "examples" / "large.mp4").write_bytes(b"x" * 1000)
    (hub.folder / SHARED / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"x")
    monkeypatch.setattr(locate, "KNOWN_MODELS", (record,))
    return record


def test_a_download_gets_only_required_files(i2v: ModelRecord, hub: Hub) -> None:
    """A dry run first; then all files, which load without another call."""
    assert get_download_state(i2v, SHARED) == "missing"
    download_missing_parts(i2v, SHARED)
    assert hub.asked == [(SHARED, True), (SHARED, False)]
    assert get_download_state(i2v, SHARED) == "downloaded" and plan_downloads(i2v, SHARED) == []
    there = get_repository_folder(SHARED) / "snapshots" / "abc"
    assert find_weights(i2v, SHARED) == there
    assert not (there / "examples").exists() and not list(there.rglob("*.bin"))
    assert {path.name for path in there.iterdir()} == {"transformer", "vae", "text_encoder", "tokenizer", "image_encoder"}


@pytest.mark.parametrize("after", range(1, 9))
def test_an_interrupted_download_is_partial_and_resumes(i2v: ModelRecord, hub: Hub, after: int) -> None:
    """At every file; an incomplete model is never loaded."""
    hub.breaks_after = after
    with pytest.raises(ModelError, match=r"broke off \(the line is down\); run the command again, it goes on where it stopped"):
        download_missing_parts(i2v, SHARED)
    assert get_download_state(i2v, SHARED) == "partial" and find_weights(i2v, SHARED) is None
    with pytest.raises(ModelError, match=r"is downloaded in part and lacks .*; `lora-edit models --download wan2\.1-i2v-480p` goes on"):
        model_cards.require_model(i2v.name)
    hub.breaks_after = None
    download_missing_parts(i2v, SHARED)
    assert get_download_state(i2v, SHARED) == "downloaded"


def test_an_incomplete_download_is_an_error(i2v: ModelRecord, hub: Hub) -> None:
    """The library may return an incomplete folder when the network fails; the parts are checked again."""
    (hub.folder / SHARED / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"text_encoder is still missing after the download \(no \*\.safetensors"):
        download_missing_parts(i2v, SHARED)


def test_original_layouts_get_companions_from_another_repository(i2v: ModelRecord, hub: Hub) -> None:
    """Fun's own repository has them as pickles, which are not downloaded; nor are the second repository's transformers."""
    record, _ = save_original(FUN, hub.folder / FUN.repo)
    (hub.folder / FUN.repo / "Wan2.1_VAE.pth").write_bytes(b"x")
    download_missing_parts(record, FUN.repo)
    assert get_download_state(record, FUN.repo) == "downloaded"
    own, shared = (get_repository_folder(repo) / "snapshots" / "abc" for repo in (FUN.repo, SHARED))
    assert not list(own.rglob("*.pth")) and (own / "diffusion_pytorch_model-00001-of-00003.safetensors").is_file()
    assert not (shared / "transformer").exists() and (shared / "vae").is_dir()
    assert get_download_state(i2v, SHARED) == "partial", "the other model's transformer is not here"


def test_a_local_file_may_get_companions_from_the_hub(i2v: ModelRecord, hub: Hub, tmp_path: Path) -> None:
    """Only the parts that are not beside it."""
    record, _, (file,) = save_comfyui(FUN, tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "clip_vision")
    assert [(wanted.repo, wanted.patterns) for wanted in plan_downloads(record, str(file))] == [
        (SHARED, ("image_encoder/*.json", "image_encoder/*.safetensors"))
    ]
    download_missing_parts(record, str(file))
    assert get_download_state(record, str(file)) == "downloaded"
    file.unlink()
    with pytest.raises(ModelError, match="no such file or folder"):
        plan_downloads(record, str(file))


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("short", [False, True])
def test_disk_space_is_checked_at_the_destination(i2v: ModelRecord, hub: Hub, monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    """For the remaining bytes, on the file system of the Hub library's folder, which need not exist yet."""
    names = [path for part in ("transformer", "vae", "text_encoder", "image_encoder") for path in (hub.folder / SHARED / part).iterdir()]
    files = [path for path in names if path.suffix != ".bin"] + list((hub.folder / SHARED / "tokenizer").iterdir())
    needed = sum(path.stat().st_size for path in files)
    asked: list[Path] = []

    def disk_usage(folder: Path) -> Usage:
        asked.append(folder)
        return Usage(0, 0, needed - short)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    if short:
        with pytest.raises(ModelError, match=r"GB are to be downloaded and .*cache has room for .* GB; make room, or set HF_HOME"):
            download_missing_parts(i2v, SHARED)
        assert hub.asked == [(SHARED, True)], "nothing was fetched"
    else:
        download_missing_parts(i2v, SHARED)
    assert asked == [get_hub_cache_folder().parent]


def http(kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    """Build the library's own error without its HTTP response."""
    return kind.__new__(kind)


FAULTS = [
    (http(GatedRepoError), "its licence has to be accepted first; do so on https://huggingface.co/Wan-AI/"),
    (http(RepositoryNotFoundError), "the Hub has no such repository"),
    (ConnectionError("no route"), "the Hub cannot be reached or broke off"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=["gated", "unknown", "no network"])
def test_download_errors_are_explained(i2v: ModelRecord, hub: Hub, fault: BaseException, words: str) -> None:
    """One line, with what to do."""
    hub.fault = fault
    outcome = CliRunner().invoke(app, ["models", "--download", I2V.name])
    assert outcome.exit_code == 2 and outcome.stdout == ""
    told, error, end = outcome.stderr.split("\n")
    assert told.startswith("wan2.1-i2v-480p: about 90 GB from Wan-AI/Wan2.1-I2V-14B-480P-Diffusers, under Apache-2.0, into ")
    assert error.startswith("error: ") and words in error and end == ""


def test_offline_mode_is_explained(i2v: ModelRecord, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variables."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.fault = ConnectionError("off")
    with pytest.raises(ModelError, match="the network is switched off; unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"):
        download_missing_parts(i2v, SHARED)


def test_the_command_downloads_and_lists(i2v: ModelRecord, hub: Hub) -> None:
    """Licence before, the model's card after; a second call downloads nothing; a missing name is an error."""
    outcome = CliRunner().invoke(app, ["models", I2V.name, "--download", "--json"])
    assert outcome.exit_code == 0, outcome.stderr
    card = json.loads(outcome.stdout)["models"][0]
    assert card["state"] == "downloaded" and card["weights"].startswith("in ")
    again = CliRunner().invoke(app, ["models", I2V.name, "--download"])
    assert again.stderr == "" and "downloaded" in again.stdout and len(hub.asked) == 2
    assert "give a NAME" in CliRunner().invoke(app, ["models", "--download"]).stderr


def empty_files(folder: Path) -> tuple[str, str]:
    """A clip and a picture that exist and are empty."""
    paths = (folder / "no-clip.mp4", folder / "x.png")
    for path in paths:
        path.touch()
    return str(paths[0]), str(paths[1])


@pytest.mark.parametrize(("answer", "fetched"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_the_command_asks_before_downloading(
    i2v: ModelRecord, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, fetched: bool
) -> None:
    """At a terminal only; size, licence and destination precede the question."""
    monkeypatch.setattr(model_cards, "is_interactive", lambda: True)
    clip, picture = empty_files(tmp_path)
    edit = ["edit", clip, "--first-frame", picture, "--box", "1,2,3,4", "--model", I2V.name, "--output", str(tmp_path / "o.mp4")]
    outcome = CliRunner().invoke(app, edit, input=answer)
    assert outcome.exit_code == 2
    assert "about 90 GB" in outcome.stderr and "Apache-2.0" in outcome.stderr and "Download now? [y/N]" in outcome.stderr
    assert get_download_state(i2v, SHARED) == ("downloaded" if fetched else "missing")
    assert ("is not downloaded" in outcome.stderr) is not fetched
    assert ("no-clip.mp4" in outcome.stderr) is fetched, "with the model here, the clip is looked at next"


def test_the_command_does_not_ask_without_a_terminal(i2v: ModelRecord, hub: Hub, tmp_path: Path) -> None:
    """Scripts get the command, the size and the licence; nothing is downloaded."""
    clip, picture = empty_files(tmp_path)
    edit = ["edit", clip, "--first-frame", picture, "--box", "1,2,3,4", "--model", I2V.name, "--output", "o.mp4"]
    outcome = CliRunner().invoke(app, edit)
    assert outcome.exit_code == 2 and hub.asked == []
    line = outcome.stderr.strip()
    assert "\n" not in line and "get it with `lora-edit models --download wan2.1-i2v-480p`" in line and "Apache-2.0" in line


def test_further_parts_are_part_of_a_model(i2v: ModelRecord, hub: Hub) -> None:
    """A second encoder and its tokenizer; a model without prompts has neither."""
    more = replace(i2v, other_parts=("text_encoder_2", "tokenizer_2"))
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(hub.folder / SHARED / part, hub.folder / SHARED / f"{part}_2")
    download_missing_parts(more, SHARED)
    assert get_download_state(more, SHARED) == "downloaded" and find_weights(more, SHARED) is not None
    assert (get_repository_folder(SHARED) / "snapshots" / "abc" / "tokenizer_2" / "tokenizer.json").is_file()
    assert not {"text_encoder", "tokenizer"} & set(list_required_parts(replace(i2v, text_length=0)))


def test_a_complete_snapshot_precedes_a_newer_partial_one(i2v: ModelRecord, hub: Hub) -> None:
    """When a newer version is not complete yet; of complete ones, the last `main`."""
    download_missing_parts(i2v, SHARED)
    home = get_repository_folder(SHARED)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("def", "utf-8")
    (home / "snapshots" / "def" / "transformer").mkdir(parents=True)
    shutil.copy(home / "snapshots" / "abc" / "transformer" / "config.json", home / "snapshots" / "def" / "transformer")
    assert find_weights(i2v, SHARED) == home / "snapshots" / "abc"
    shutil.copytree(home / "snapshots" / "abc", home / "snapshots" / "def", dirs_exist_ok=True)
    assert find_weights(i2v, SHARED) == home / "snapshots" / "def"


def test_a_repository_without_the_files_is_refused(i2v: ModelRecord, hub: Hub) -> None:
    """Before any download."""
    (hub.folder / "someone" / "else").mkdir(parents=True)
    (hub.folder / "someone" / "else" / "README.md").write_text("", "utf-8")
    with pytest.raises(ModelError, match=r"someone/else: has none of transformer/\*\.json"):
        download_missing_parts(i2v, "someone/else")
    assert download.get_download_state(i2v, "someone/else") == "missing"
