"""Encoder outputs cached on disk by their inputs, so that the next run on a clip needs no encoder.

Outputs are cached per encoder and not per sample: a new first frame, the later windows of another seed, or another model with the same
autoencoder then compute only what is new, and a text encoder of many gigabytes is not read again for a known prompt. The embedded model's
encoders are not cached: they are as fast as reading a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from platformdirs import user_cache_dir
from safetensors import SafetensorError
from safetensors.torch import load, save

from lora_edit.atomic_files import remove_abandoned_files, replace_file
from lora_edit.devices import get_device_name
from lora_edit.models.family import Family
from lora_edit.models.runtime.lazy_module import LazyModule
from lora_edit.types import hash_content

CACHE_FOLDER_VARIABLE = "LORA_EDIT_CACHE"
CACHE_SUFFIX = ".safetensors"
ENCODING_KEY, CHECKSUM_KEY = "encoding", "sha256"
"""Tensors of a cache file: the encoding, and the 32 bytes of its hash."""
LIBRARIES = ("torch", "diffusers", "transformers")


def get_encoding_cache_folder() -> Path:
    """Return the user's folder for encodings: in `LORA_EDIT_CACHE`, or in the platform's cache folder."""
    folder = os.environ.get(CACHE_FOLDER_VARIABLE) or user_cache_dir("lora-edit", appauthor=False, opinion=False)
    return Path(folder).expanduser() / "encodings"


@dataclass(frozen=True)
class DiskCache:
    """Files in `folder`, at most `max_bytes` of them; the least recently used are removed first. `report` takes messages on damaged files.

    Any number of processes may use one folder: a file appears under its name only when it is whole, and a missing one is computed again.
    """

    folder: Path
    max_bytes: float
    report: Callable[[str], None]

    def get(self, key: str) -> torch.Tensor | None:
        """Return the cached tensor on the CPU; None when there is none, or a damaged one."""
        path = self._path(key)
        try:
            tensors = load(path.read_bytes())  # not mapped: a file truncated meanwhile would crash this process
            value = tensors[ENCODING_KEY]
            is_whole = torch.equal(tensors[CHECKSUM_KEY], _compute_checksum(value))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            is_whole = False
        if not is_whole:
            self.report(f"{path}: the cached encoding is damaged and is computed again")
            return None
        self._touch(path)
        return value

    def put(self, key: str, value: torch.Tensor) -> None:
        """Store a copy, unless it exceeds `max_bytes` or is not finite. A full disk is reported and not an error."""
        copy = value.detach().cpu().contiguous()
        if copy.nbytes > self.max_bytes or not bool(torch.isfinite(copy).all()):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(self._path(key), save({ENCODING_KEY: copy, CHECKSUM_KEY: _compute_checksum(copy)}))
            self._evict()
        except OSError as error:
            self.report(f"{self.folder}: an encoding cannot be kept ({error.strerror}); going on without")

    def remove(self, key: str) -> None:
        """Remove the output of `key`, if there is one."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{CACHE_SUFFIX}"

    def _write(self, path: Path, content: bytes) -> None:
        with replace_file(path) as partial:
            partial.touch(0o600)  # readable by the user alone: an autoencoder decodes latents to the clip
            partial.write_bytes(content)

    def _touch(self, path: Path) -> None:
        """Mark a file as used by its time of change, because not every file system keeps times of access."""
        try:
            os.utime(path)
        except OSError:
            return  # removed meanwhile, or owned by another user: it only counts as older

    def _evict(self) -> None:
        """Remove the least recently used files, and unfinished files of killed processes."""
        remove_abandoned_files(self.folder)
        files = []
        for path in self.folder.glob(f"*{CACHE_SUFFIX}"):
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total > self.max_bytes:
                path.unlink(missing_ok=True)
                total -= size


def _compute_checksum(value: torch.Tensor) -> torch.Tensor:
    """Hash a tensor's bytes; `[32]` uint8."""
    content = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    return torch.tensor(list(hashlib.sha256(content.tobytes()).digest()), dtype=torch.uint8)


class EncodingCache:
    """Outputs of encoders by their inputs: in memory with `in_memory`, and in `disk_cache` once it is set.

    `encoders` are all that contribute to the output; `device` is where they compute.
    """

    def __init__(self, device: torch.device, *encoders: LazyModule, in_memory: bool = True) -> None:
        self.device, self.encoders, self.in_memory = device, encoders, in_memory
        self.disk_cache: DiskCache | None = None
        self._memory: dict[str, torch.Tensor] = {}

    def __call__(self, encode: Callable[[], torch.Tensor], *inputs: torch.Tensor | str | None) -> torch.Tensor:
        """Return the output for `inputs`, cached or from `encode`, on the device; the same bytes either way."""
        disk_cache = self.disk_cache if self.disk_cache and all(encoder.identity for encoder in self.encoders) else None
        if disk_cache is None and not self.in_memory:
            return encode().contiguous()
        input_key = hash_content(*inputs)
        if input_key in self._memory:
            return self._memory[input_key]
        output = self._load_or_encode(disk_cache, input_key, encode) if disk_cache else encode().contiguous()
        if self.in_memory:
            self._memory[input_key] = output
        return output

    def _load_or_encode(self, disk_cache: DiskCache, input_key: str, encode: Callable[[], torch.Tensor]) -> torch.Tensor:
        key = hash_content(compute_environment_key(self.device), *(encoder.identity for encoder in self.encoders), input_key)
        cached = disk_cache.get(key)
        if cached is not None:
            return cached.to(self.device)
        output = encode().contiguous()  # as it will be read: the memory layout can change later results
        disk_cache.put(key, output)
        return output


def list_encoding_sources() -> list[Path]:
    """List the files of this package that can change an encoding: families, the reading of checkpoints, configurations."""
    models = Path(__file__).parents[1]
    folders = (models / "families", models / "checkpoints")
    return sorted([*(file for folder in folders for file in folder.rglob("*.py")), *(models / "configs").glob("*.json")])


@cache
def compute_environment_key(device: torch.device) -> str:
    """Return the part of a key that is not the encoder: hashes of the code that loads and calls it, versions of libraries, the device.

    Code elsewhere in the package does not affect encodings, so changing it keeps the cache valid.
    """
    digest = hashlib.sha256()
    for file in list_encoding_sources():
        digest.update(file.read_bytes())
    return " ".join([digest.hexdigest(), *(version(name) for name in LIBRARIES), device.type, get_device_name(device)])


def enable_disk_cache(family: Family, gigabytes: float, report: Callable[[str], None]) -> None:
    """Cache the outputs of the family's encoders in the user's folder; with 0 gigabytes nothing is read or written there."""
    family.device_manager.set_disk_cache(DiskCache(get_encoding_cache_folder(), 1e9 * gigabytes, report) if gigabytes else None)
