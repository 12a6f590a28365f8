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

from lora_edit.devices import device_name
from lora_edit.models.family import Family
from lora_edit.models.later import Later
from lora_edit.types import content_hash

FOLDER_VARIABLE = "LORA_EDIT_CACHE"
ENDING, UNFINISHED = ".safetensors", ".part"
VALUE, CHECK = "encoding", "sha256"
"""Tensors of a file: the encoding, and the 32 bytes of its hash."""
LIBRARIES = ("torch", "diffusers", "transformers")
TOO_OLD = 3600
"""Seconds after which an unfinished file is one that nobody is writing any more."""


def cache_folder() -> Path:
    """This person's folder for encodings: in `LORA_EDIT_CACHE`, or where the platform keeps what programs can make again."""
    own, home = os.environ.get(FOLDER_VARIABLE), Path.home()
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
class Store:
    """Files in `folder`, `limit` bytes of them at most, the least recently used removed first; `tell` hears of damaged ones.

    Any number of processes may use one folder: a file appears whole under its name or not at all, and one that is gone is made again.
    """

    folder: Path
    limit: float
    tell: Callable[[str], None]

    def get(self, key: str) -> torch.Tensor | None:
        """What was kept, on the CPU; None when there is nothing, or nothing whole."""
        path = self._path(key)
        try:
            found = load(path.read_bytes())  # not mapped: a file that somebody cuts short would end this process
            value = found[VALUE]
            whole = torch.equal(found[CHECK], _check(value))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            whole = False
        if not whole:
            self.tell(f"{path}: kept encoding is damaged; it is made anew")
            return None
        self._touch(path)
        return value

    def put(self, key: str, value: torch.Tensor) -> None:
        """Keep a copy, unless it is larger than the limit or holds numbers that are not finite. A disk that is full is no fault."""
        own = value.detach().cpu().contiguous()
        if own.nbytes > self.limit or not bool(torch.isfinite(own).all()):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(self._path(key), save({VALUE: own, CHECK: _check(own)}))
            self._make_room()
        except OSError as error:
            self.tell(f"{self.folder}: an encoding cannot be kept ({error.strerror}); going on without")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{ENDING}"

    def _write(self, path: Path, content: bytes) -> None:
        # Readable by this person alone: an autoencoder turns latents back into the clip.
        handle, name = tempfile.mkstemp(suffix=UNFINISHED, dir=self.folder)
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

    def _make_room(self) -> None:
        """Remove what was not used for longest, and what killed processes left."""
        files = []
        for path in self.folder.iterdir():
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix in (ENDING, UNFINISHED):
                files.append((facts.st_mtime, facts.st_size, path))
        newest, total = max((time for time, _, _ in files), default=0.0), sum(size for _, size, _ in files)
        for time, size, path in sorted(files):
            unfinished = path.suffix == UNFINISHED
            if (total > self.limit and not unfinished) or (unfinished and newest - time > TOO_OLD):
                path.unlink(missing_ok=True)
                total -= size


def _check(value: torch.Tensor) -> torch.Tensor:
    """The hash of a tensor's bytes, `[32]` uint8."""
    content = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    return torch.tensor(list(hashlib.sha256(content.tobytes()).digest()), dtype=torch.uint8)


class Known:
    """What encoders said, by what they were asked: in memory where `remember`, and in `store` once there is one.

    `encoders` are all that have a part in the answer; `device` is where they compute.
    """

    def __init__(self, device: torch.device, *encoders: Later, remember: bool = True) -> None:
        self.device, self.encoders, self.remember = device, encoders, remember
        self.store: Store | None = None
        self._memory: dict[str, torch.Tensor] = {}

    def __call__(self, make: Callable[[], torch.Tensor], *asked: torch.Tensor | str | None) -> torch.Tensor:
        """What was said when `asked` was asked before, else what `make` says now, on the device; the same bytes either way."""
        store = self.store if self.store and all(encoder.identity for encoder in self.encoders) else None
        if store is None and not self.remember:
            return make().contiguous()
        question = content_hash(*asked)
        if question in self._memory:
            return self._memory[question]
        answer = self._kept(store, question, make) if store else make().contiguous()
        if self.remember:
            self._memory[question] = answer
        return answer

    def _kept(self, store: Store, question: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        key = content_hash(surroundings(self.device), *(encoder.identity for encoder in self.encoders), question)
        found = store.get(key)
        if found is not None:
            return found.to(self.device)
        answer = make().contiguous()  # as it will be read: how numbers lie in memory can change what is computed from them
        store.put(key, answer)
        return answer


@cache
def surroundings(device: torch.device) -> str:
    """What decides an encoding's last digits beside the encoder: this package's code, the libraries, and what computes."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted([*package.rglob("*.py"), *(package / "models" / "catalog").rglob("*.json")]):
        digest.update(file.read_bytes())
    return " ".join([digest.hexdigest(), *(version(name) for name in LIBRARIES), device.type, device_name(device)])


def keep_encodings(family: Family, gigabytes: float, tell: Callable[[str], None]) -> None:
    """Let the family's encoders keep what they say in this person's folder; with 0 gigabytes nothing is looked up or kept there."""
    store = Store(cache_folder(), 1e9 * gigabytes, tell) if gigabytes else None
    for expert in family.experts():
        parts = getattr(expert, "parts", None)
        for part in vars(parts).values() if parts else ():
            known = getattr(part, "known", None)
            if isinstance(known, Known):
                known.store = store
