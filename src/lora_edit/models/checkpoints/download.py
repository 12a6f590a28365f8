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
from lora_edit.models.checkpoints.hub import count_downloaded_bytes, get_hub_cache_folder, is_offline, is_repository
from lora_edit.models.checkpoints.layout import PREPROCESSOR_PREFIXES, find_parts, list_required_parts
from lora_edit.models.record import ModelRecord

DownloadState = Literal["included", "downloaded", "partial", "missing"]

ORIGINAL_LAYOUT_PATTERNS = ("diffusion_pytorch_model*.safetensors*", "high_noise_model/*.safetensors*", "low_noise_model/*.safetensors*")
"""The transformers' files in repositories of the original layout."""


@dataclass(frozen=True)
class DownloadRequest:
    """Files to get from one repository, as patterns of their names."""

    repo: str
    patterns: tuple[str, ...]


def get_download_state(record: ModelRecord, source: str) -> DownloadState:
    """What of a model is on this machine. A file that is still under way does not count."""
    if record.layout == "included":
        return "included"
    try:
        found = find_parts(record, source)
    except ModelError:
        return "partial"
    if not found.missing:
        return "downloaded"
    return "partial" if found.parts or not is_repository(source) or count_downloaded_bytes(source) else "missing"


def plan_downloads(record: ModelRecord, source: str) -> list[DownloadRequest]:
    """What has to be downloaded; what a person's own files lack comes from the repository of the shared parts.

    Raises `ModelError` when a transformer is missing from a place that is no repository.
    """
    lacking = find_parts(record, source).missing
    own = [part for part in lacking if part in record.transformer_parts]
    if own and not is_repository(source):
        raise ModelError(f"{source}: {own[0]} of {record.name} is missing ({lacking[own[0]]}); give a folder or file that has it")
    if not lacking:
        return []
    if not is_repository(source):
        return [DownloadRequest(record.companions_repo or record.repo, _build_patterns(lacking))]
    if record.layout == "diffusers":
        return [DownloadRequest(source, _build_patterns(list_required_parts(record)))]
    companions = [part for part in list_required_parts(record) if part not in record.transformer_parts]
    return [DownloadRequest(source, ORIGINAL_LAYOUT_PATTERNS), DownloadRequest(record.companions_repo, _build_patterns(companions))]


def _build_patterns(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        f"{part}/{ending}"
        for part in parts
        for ending in (("*",) if part.startswith(PREPROCESSOR_PREFIXES) else ("*.json", "*.safetensors"))
    )


def describe_download(record: ModelRecord, source: str) -> str:
    """One line for a person to decide on: what would be downloaded, how large it is about, its licence and where to."""
    repos = " and ".join(wanted.repo for wanted in plan_downloads(record, source))
    size = f"about {record.download_gb:g} GB" if is_repository(source) else "its shared parts"
    return f"{record.name}: {size} from {repos}, under {record.license}, into {get_hub_cache_folder()}"


def download_missing_parts(record: ModelRecord, source: str) -> None:
    """Download what is missing; a call that is stopped goes on at the next. Progress is the Hub library's own, on stderr.

    Raises `ModelError`: no network, a gated or unknown repository, or too little room, before anything large is fetched.
    """
    from huggingface_hub import snapshot_download

    every = plan_downloads(record, source)
    cache = get_hub_cache_folder()
    needed = 0
    for wanted in every:
        with convert_hub_errors(record, wanted.repo):
            files = snapshot_download(wanted.repo, allow_patterns=list(wanted.patterns), cache_dir=cache, dry_run=True)
        if not files:
            found = ", ".join(wanted.patterns[:3])
            raise ModelError(f"{wanted.repo}: has none of {found}; give another repository as {record.name}@ORG/NAME")
        needed += sum(file.file_size or 0 for file in files if file.will_download)
    check_disk_space(record, needed, cache)
    for wanted in every:
        with convert_hub_errors(record, wanted.repo):
            snapshot_download(wanted.repo, allow_patterns=list(wanted.patterns), cache_dir=cache)
    lacking = find_parts(record, source).missing
    if lacking:
        part, why = next(iter(lacking.items()))
        raise ModelError(f"{record.name}: {part} is still missing after the download ({why}); run it again, or give another repository")


def check_disk_space(record: ModelRecord, required_bytes: int, folder: Path) -> None:
    """Raise `ModelError` when the folder's file system has no room for `needed` bytes."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if required_bytes > free:
        raise ModelError(
            f"{record.name}: {required_bytes / 1e9:.1f} GB are to be downloaded and {folder} has room for {free / 1e9:.1f} GB; "
            f"make room, or set "
            "HF_HOME to a folder on a larger disk"
        )


@contextmanager
def convert_hub_errors(record: ModelRecord, repo: str) -> Iterator[None]:
    """Turn the Hub library's failures into one `ModelError`."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its base classes stand for the HTTP library that this version of the Hub's uses; xet, its transport, fails with RuntimeError.
    faults: tuple[type[BaseException], ...] = (OSError, RuntimeError, *HfHubHTTPError.__bases__)
    try:
        yield
    except faults as error:
        raise ModelError(f"{record.name}: {repo} cannot be downloaded: {explain_download_error(error, repo)}") from error


def explain_download_error(error: BaseException, repo: str) -> str:
    """What kept a download from happening, by the Hub library's own error somewhere behind this one, and what to do."""
    kinds = set()
    behind: BaseException | None = error
    while behind is not None:
        kinds.add(type(behind).__name__)
        behind = behind.__cause__ or behind.__context__
    if is_offline():
        return "the network is switched off; unset HF_HUB_OFFLINE"
    if "GatedRepoError" in kinds:
        return f"its licence has to be accepted first; do so on https://huggingface.co/{repo}, then `hf auth login`"
    if "RepositoryNotFoundError" in kinds:
        return "the Hub knows no such repository, or shows it to others only; check the name, or `hf auth login`"
    first = (str(error).splitlines() or [""])[0][:160]
    return f"the Hub cannot be reached or broke off ({first or type(error).__name__}); run the command again, it goes on where it stopped"
