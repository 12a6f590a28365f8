"""What encoders said, kept on disk by what they were asked: the next run on the same clip asks them nothing.

The seam is each encoder and not the sample: a new first frame, another seed's later windows, or another model with the same autoencoder
then ask only for what is new, and a text encoder of many gigabytes is not read for a prompt that was read before. The embedded model's
encoders are not among them: they take no longer than a file does.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lora_edit.devices import get_device_name
from lora_edit.models.family import Family
from lora_edit.models.runtime.lazy_module import LazyModule
from lora_edit.types import hash_content

CACHE_FOLDER_VARIABLE = "LORA_EDIT_CACHE"
CACHE_SUFFIX, PARTIAL_SUFFIX = ".safetensors", ".part"
ENCODING_KEY, CHECKSUM_KEY = "encoding", "sha256"
"""Tensors of a file: the encoding, and the 32 bytes of its hash."""
LIBRARIES = ("torch", "diffusers", "transformers")
STALE_SECONDS = 3600
"""Seconds after which an unfinished file is one that nobody is writing any more."""


def get_encoding_cache_folder() -> Path:
    """This person's folder for encodings: in `LORA_EDIT_CACHE`, or where the platform keeps what programs can make again."""
    own, home = os.environ.get(CACHE_FOLDER_VARIABLE), Path.home()
    if own:
        return Path(own).expanduser() / "encodings"
    if sys.platform == "win32":
        general = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        general = home / "Library" / "Caches"
    else:
        general = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return general / "lora-edit" / "encodings"


@dataclass(frozen=True)
class DiskCache:
    """Files in `folder`, `limit` bytes of them at most, the least recently used removed first; `tell` hears of damaged ones.

    Any number of processes may use one folder: a file appears whole under its name or not at all, and one that is gone is made again.
    """

    folder: Path
    max_bytes: float
    report: Callable[[str], None]

    def get(self, key: str) -> torch.Tensor | None:
        """What was kept, on the CPU; None when there is nothing, or nothing whole."""
        path = self._path(key)
        try:
            found = load(path.read_bytes())  # not mapped: a file that somebody cuts short would end this process
            value = found[ENCODING_KEY]
            whole = torch.equal(found[CHECKSUM_KEY], _compute_checksum(value))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            whole = False
        if not whole:
            self.report(f"{path}: kept encoding is damaged; it is made anew")
            return None
        self._touch(path)
        return value

    def put(self, key: str, value: torch.Tensor) -> None:
        """Keep a copy, unless it is larger than the limit or holds numbers that are not finite. A disk that is full is no fault."""
        own = value.detach().cpu().contiguous()
        if own.nbytes > self.max_bytes or not bool(torch.isfinite(own).all()):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(self._path(key), save({ENCODING_KEY: own, CHECKSUM_KEY: _compute_checksum(own)}))
            self._evict()
        except OSError as error:
            self.report(f"{self.folder}: an encoding cannot be kept ({error.strerror}); going on without")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{CACHE_SUFFIX}"

    def _write(self, path: Path, content: bytes) -> None:
        # Readable by this person alone: an autoencoder turns latents back into the clip.
        handle, name = tempfile.mkstemp(suffix=PARTIAL_SUFFIX, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

    def _touch(self, path: Path) -> None:
        """Used now. Times of reading are not kept everywhere, so it is the time of change."""
        try:
            os.utime(path)
        except OSError:
            return  # removed meanwhile, or another person's: it only counts as older

    def _evict(self) -> None:
        """Remove what was not used for longest, and what killed processes left."""
        files = []
        for path in self.folder.iterdir():
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix in (CACHE_SUFFIX, PARTIAL_SUFFIX):
                files.append((facts.st_mtime, facts.st_size, path))
        newest, total = max((time for time, _, _ in files), default=0.0), sum(size for _, size, _ in files)
        for time, size, path in sorted(files):
            unfinished = path.suffix == PARTIAL_SUFFIX
            if (total > self.max_bytes and not unfinished) or (unfinished and newest - time > STALE_SECONDS):
                path.unlink(missing_ok=True)
                total -= size


def _compute_checksum(value: torch.Tensor) -> torch.Tensor:
    """The hash of a tensor's bytes, `[32]` uint8."""
    content = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    return torch.tensor(list(hashlib.sha256(content.tobytes()).digest()), dtype=torch.uint8)


class EncodingCache:
    """What encoders said, by what they were asked: in memory where `remember`, and in `store` once there is one.

    `encoders` are all that have a part in the answer; `device` is where they compute.
    """

    def __init__(self, device: torch.device, *encoders: LazyModule, in_memory: bool = True) -> None:
        self.device, self.encoders, self.in_memory = device, encoders, in_memory
        self.disk_cache: DiskCache | None = None
        self._memory: dict[str, torch.Tensor] = {}

    def __call__(self, encode: Callable[[], torch.Tensor], *inputs: torch.Tensor | str | None) -> torch.Tensor:
        """What was said when `asked` was asked before, else what `make` says now, on the device; the same bytes either way."""
        store = self.disk_cache if self.disk_cache and all(encoder.identity for encoder in self.encoders) else None
        if store is None and not self.in_memory:
            return encode().contiguous()
        question = hash_content(*inputs)
        if question in self._memory:
            return self._memory[question]
        answer = self._load_or_encode(store, question, encode) if store else encode().contiguous()
        if self.in_memory:
            self._memory[question] = answer
        return answer

    def _load_or_encode(self, disk_cache: DiskCache, input_key: str, encode: Callable[[], torch.Tensor]) -> torch.Tensor:
        key = hash_content(compute_environment_key(self.device), *(encoder.identity for encoder in self.encoders), input_key)
        found = disk_cache.get(key)
        if found is not None:
            return found.to(self.device)
        answer = encode().contiguous()  # as it will be read: how numbers lie in memory can change what is computed from them
        disk_cache.put(key, answer)
        return answer


def list_encoding_sources() -> list[Path]:
    """The files of this package that can change an encoding: families, the reading of checkpoints, configurations."""
    models = Path(__file__).parents[1]
    folders = (models / "families", models / "checkpoints")
    return sorted([*(file for folder in folders for file in folder.rglob("*.py")), *(models / "configs").glob("*.json")])


@cache
def compute_environment_key(device: torch.device) -> str:
    """Return what decides an encoding's last digits beside the encoder: code that loads and calls it, libraries, and the device.

    Code elsewhere in the package has no influence, so changing it keeps the cache valid.
    """
    digest = hashlib.sha256()
    for file in list_encoding_sources():
        digest.update(file.read_bytes())
    return " ".join([digest.hexdigest(), *(version(name) for name in LIBRARIES), device.type, get_device_name(device)])


def enable_disk_cache(family: Family, gigabytes: float, report: Callable[[str], None]) -> None:
    """Let the family's encoders keep what they say in this person's folder; with 0 gigabytes nothing is looked up or kept there."""
    store = DiskCache(get_encoding_cache_folder(), 1e9 * gigabytes, report) if gigabytes else None
    for expert in family.experts():
        parts = getattr(expert, "parts", None)
        for part in vars(parts).values() if parts else ():
            known = getattr(part, "cache", None)
            if isinstance(known, EncodingCache):
                known.disk_cache = store
