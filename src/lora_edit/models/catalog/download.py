"""Getting a model from the Hub: only the files that are needed, with room for them, told beforehand, and resumable.

Nothing is downloaded but by `fetch`, which the command calls when a person has said so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_edit.errors import ModelError
from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.catalog.hub import cache_folder, downloaded_bytes, is_repository, offline
from lora_edit.models.catalog.places import READERS, find, needed_parts

State = Literal["included", "downloaded", "partial", "missing"]

ORIGINAL = ("diffusion_pytorch_model*.safetensors*", "high_noise_model/*.safetensors*", "low_noise_model/*.safetensors*")
"""The transformers' files in repositories of the original layout."""


@dataclass(frozen=True)
class Wanted:
    """Files to get from one repository, as patterns of their names."""

    repo: str
    patterns: tuple[str, ...]


def state(facts: ModelFacts, source: str) -> State:
    """What of a model is on this machine. A file that is still under way does not count."""
    if facts.layout == "included":
        return "included"
    try:
        found = find(facts, source)
    except ModelError:
        return "partial"
    if not found.lacking:
        return "downloaded"
    return "partial" if found.places or not is_repository(source) or downloaded_bytes(source) else "missing"


def plan(facts: ModelFacts, source: str) -> list[Wanted]:
    """What has to be downloaded; what a person's own files lack comes from the repository of the shared parts.

    Raises `ModelError` when a transformer is missing from a place that is no repository.
    """
    lacking = find(facts, source).lacking
    own = [part for part in lacking if part in facts.parts]
    if own and not is_repository(source):
        raise ModelError(f"{source}: {own[0]} of {facts.name} is missing ({lacking[own[0]]}); give a folder or file that has it")
    if not lacking:
        return []
    if not is_repository(source):
        return [Wanted(facts.companions_repo or facts.repo, _patterns(lacking))]
    if facts.layout == "diffusers":
        return [Wanted(source, _patterns(needed_parts(facts)))]
    companions = [part for part in needed_parts(facts) if part not in facts.parts]
    return [Wanted(source, ORIGINAL), Wanted(facts.companions_repo, _patterns(companions))]


def _patterns(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{part}/{ending}" for part in parts for ending in (("*",) if part.startswith(READERS) else ("*.json", "*.safetensors")))


def terms(facts: ModelFacts, source: str) -> str:
    """One line for a person to decide on: what would be downloaded, how large it is about, its licence and where to."""
    repos = " and ".join(wanted.repo for wanted in plan(facts, source))
    size = f"about {facts.download_gb:g} GB" if is_repository(source) else "its shared parts"
    return f"{facts.name}: {size} from {repos}, under {facts.license}, into {cache_folder()}"


def fetch(facts: ModelFacts, source: str) -> None:
    """Download what is missing; a call that is stopped goes on at the next. Progress is the Hub library's own, on stderr.

    Raises `ModelError`: no network, a gated or unknown repository, or too little room, before anything large is fetched.
    """
    from huggingface_hub import snapshot_download

    every = plan(facts, source)
    cache = cache_folder()
    needed = 0
    for wanted in every:
        with telling(facts, wanted.repo):
            files = snapshot_download(wanted.repo, allow_patterns=list(wanted.patterns), cache_dir=cache, dry_run=True)
        if not files:
            found = ", ".join(wanted.patterns[:3])
            raise ModelError(f"{wanted.repo}: has none of {found}; give another repository as {facts.name}@ORG/NAME")
        needed += sum(file.file_size or 0 for file in files if file.will_download)
    check_room(facts, needed, cache)
    for wanted in every:
        with telling(facts, wanted.repo):
            snapshot_download(wanted.repo, allow_patterns=list(wanted.patterns), cache_dir=cache)
    lacking = find(facts, source).lacking
    if lacking:
        part, why = next(iter(lacking.items()))
        raise ModelError(f"{facts.name}: {part} is still missing after the download ({why}); run it again, or give another repository")


def check_room(facts: ModelFacts, needed: int, folder: Path) -> None:
    """Raise `ModelError` when the folder's file system has no room for `needed` bytes."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ModelError(
            f"{facts.name}: {needed / 1e9:.1f} GB are to be downloaded and {folder} has room for {free / 1e9:.1f} GB; make room, or set "
            "HF_HOME to a folder on a larger disk"
        )


@contextmanager
def telling(facts: ModelFacts, repo: str) -> Iterator[None]:
    """Turn the Hub library's failures into one `ModelError`."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its base classes stand for the HTTP library that this version of the Hub's uses; xet, its transport, fails with RuntimeError.
    faults: tuple[type[BaseException], ...] = (OSError, RuntimeError, *HfHubHTTPError.__bases__)
    try:
        yield
    except faults as error:
        raise ModelError(f"{facts.name}: {repo} cannot be downloaded: {why_not(error, repo)}") from error


def why_not(error: BaseException, repo: str) -> str:
    """What kept a download from happening, by the Hub library's own error somewhere behind this one, and what to do."""
    kinds = set()
    behind: BaseException | None = error
    while behind is not None:
        kinds.add(type(behind).__name__)
        behind = behind.__cause__ or behind.__context__
    if offline():
        return "the network is switched off; unset HF_HUB_OFFLINE"
    if "GatedRepoError" in kinds:
        return f"its licence has to be accepted first; do so on https://huggingface.co/{repo}, then `hf auth login`"
    if "RepositoryNotFoundError" in kinds:
        return "the Hub knows no such repository, or shows it to others only; check the name, or `hf auth login`"
    first = (str(error).splitlines() or [""])[0][:160]
    return f"the Hub cannot be reached or broke off ({first or type(error).__name__}); run the command again, it goes on where it stopped"
