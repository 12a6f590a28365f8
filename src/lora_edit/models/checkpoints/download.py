"""Downloads from the Hub: only the required files, announced first, with a check of disk space, and resumable.

`download_missing_parts` is the only function that downloads; the command calls it on request only.
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
    """Files to download from one repository, as patterns of their names."""

    repo: str
    patterns: tuple[str, ...]


def get_download_state(record: ModelRecord, source: str) -> DownloadState:
    """Return the state of a model's download. An unfinished file does not count."""
    if record.layout == "included":
        return "included"
    try:
        checkpoint = find_parts(record, source)
    except ModelError:
        return "partial"
    if not checkpoint.missing:
        return "downloaded"
    return "partial" if checkpoint.parts or not is_repository(source) or count_downloaded_bytes(source) else "missing"


def plan_downloads(record: ModelRecord, source: str) -> list[DownloadRequest]:
    """Plan the downloads; parts that a user's own files lack come from the repository of the shared parts.

    Raises `ModelError` when a transformer is missing from a source that is no repository.
    """
    missing = find_parts(record, source).missing
    own = [part for part in missing if part in record.transformer_parts]
    if own and not is_repository(source):
        raise ModelError(f"{source}: {own[0]} of {record.name} is missing ({missing[own[0]]}); give a folder or file that has it")
    if not missing:
        return []
    if not is_repository(source):
        return [DownloadRequest(record.companions_repo or record.repo, _build_patterns(missing))]
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
    """Describe a download in one line: files, approximate size, licence and destination."""
    repos = " and ".join(request.repo for request in plan_downloads(record, source))
    size = f"about {record.download_gb:g} GB" if is_repository(source) else "its shared parts"
    return f"{record.name}: {size} from {repos}, under {record.license}, into {get_hub_cache_folder()}"


def download_missing_parts(record: ModelRecord, source: str) -> None:
    """Download missing parts; the next call resumes an interrupted one. The Hub library reports progress on stderr.

    Raises `ModelError` without network, for a gated or unknown repository, and for too little disk space, before any large file is fetched.
    """
    from huggingface_hub import snapshot_download

    requests = plan_downloads(record, source)
    cache = get_hub_cache_folder()
    required_bytes = 0
    for request in requests:
        with convert_hub_errors(record, request.repo):
            files = snapshot_download(request.repo, allow_patterns=list(request.patterns), cache_dir=cache, dry_run=True)
        if not files:
            patterns = ", ".join(request.patterns[:3])
            raise ModelError(f"{request.repo}: has none of {patterns}; give another repository as {record.name}@ORG/NAME")
        required_bytes += sum(file.file_size or 0 for file in files if file.will_download)
    check_disk_space(record, required_bytes, cache)
    for request in requests:
        with convert_hub_errors(record, request.repo):
            snapshot_download(request.repo, allow_patterns=list(request.patterns), cache_dir=cache)
    missing = find_parts(record, source).missing
    if missing:
        part, reason = next(iter(missing.items()))
        raise ModelError(f"{record.name}: {part} is still missing after the download ({reason}); run it again, or give another repository")


def get_free_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the file system that a folder is on, or will be on."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def check_disk_space(record: ModelRecord, required_bytes: int, folder: Path) -> None:
    """Raise `ModelError` when the folder's file system has less than `required_bytes` free."""
    free = get_free_disk_bytes(folder)
    if required_bytes > free:
        raise ModelError(
            f"{record.name}: {required_bytes / 1e9:.1f} GB are to be downloaded and {folder} has room for {free / 1e9:.1f} GB; "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


@contextmanager
def convert_hub_errors(record: ModelRecord, repo: str) -> Iterator[None]:
    """Convert the Hub library's errors to one `ModelError`."""
    from huggingface_hub.errors import HfHubHTTPError

    # The base classes are those of the HTTP library in this version of the Hub's; xet, its transport, raises RuntimeError.
    errors: tuple[type[BaseException], ...] = (OSError, RuntimeError, *HfHubHTTPError.__bases__)
    try:
        yield
    except errors as error:
        raise ModelError(f"{record.name}: {repo} cannot be downloaded: {explain_download_error(error, repo)}") from error


def explain_download_error(error: BaseException, repo: str) -> str:
    """Explain a failed download by the Hub library's own error in the chain of causes, and say what to do."""
    names = set()
    cause: BaseException | None = error
    while cause is not None:
        names.add(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    if is_offline():
        return "the network is switched off; unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
    if "GatedRepoError" in names:
        return f"its licence has to be accepted first; do so on https://huggingface.co/{repo}, then `hf auth login`"
    if "RepositoryNotFoundError" in names:
        return "the Hub has no such repository, or a private one; check the name, or `hf auth login`"
    first = (str(error).splitlines() or [""])[0][:160]
    return f"the Hub cannot be reached or broke off ({first or type(error).__name__}); run the command again, it goes on where it stopped"
