"""Where the parts of a model lie: in diffusers' subfolders, in the single files that people have already, or in the Hub library's folder.

A part is looked for as diffusers' subfolder first, then among files by their headers, whatever they are called: in the folder itself and in
the subfolders of ComfyUI's `models`. What is not there is taken from the Hub repository of the shared parts, where that is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.gguf_header import read_gguf_shapes
from lora_edit.models.checkpoints.headers import (
    INDEX_SUFFIX,
    PICKLE_SUFFIXES,
    find_missing_files,
    find_shards,
    read_header,
    read_index_files,
)
from lora_edit.models.checkpoints.hub import is_repository, list_snapshots
from lora_edit.models.checkpoints.infer_config import infer_config
from lora_edit.models.record import ModelRecord, find_differences

COMFYUI_SUBFOLDERS = {
    "transformer": ("diffusion_models", "unet", "high_noise_model"),
    "transformer_2": ("diffusion_models", "unet", "low_noise_model"),
    "vae": ("vae",),
    "text_encoder": ("text_encoders", "clip"),
    "image_encoder": ("clip_vision",),
}
"""Of ComfyUI's `models`; the two experts' are the original's."""

TOKENIZER_FOLDERS = ("tokenizer", "google/umt5-xxl", "umt5-xxl")
PREPROCESSOR_PREFIXES = ("tokenizer", "image_processor", "feature_extractor")
"""What the names of parts without weights begin with."""
SENTENCEPIECE_KEY = "spiece_model"
"""ComfyUI's text encoders carry the tokenizer's model as a tensor of this name."""

PICKLE_NAMES = {"vae": "vae", "text_encoder": "t5", "image_encoder": "clip"}
"""What the originals' pickles have in their names."""

EXPERT_MARKS = ("high", "low")
"""What the files of two experts have in their names, in the order of their parts."""
_EXPERT_MARK_PATTERN = re.compile(r"(?<![A-Za-z])(high|HIGH|High|low|LOW|Low)(?=noise|NOISE|Noise|[^A-Za-z]|$)")

GGUF_SUFFIX = ".gguf"
MAX_PARENT_LEVELS = 2
"""How far above a given file the rest is looked for: ComfyUI's users sort models into subfolders."""


@dataclass(frozen=True)
class PartFiles:
    """Where one part lies: `files` hold its weights, in `folder` when that is in diffusers' layout (a `config.json` beside them)."""

    part: str
    files: tuple[Path, ...]
    folder: Path | None = None


@dataclass
class CheckpointParts:
    """The places of a model's parts, and of those that are not to be had, why."""

    parts: dict[str, PartFiles] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def list_required_parts(record: ModelRecord) -> tuple[str, ...]:
    """All parts of a model: its transformers and their companions."""
    text = ("text_encoder", "tokenizer") if record.text_length else ()
    return (*record.transformer_parts, "vae", *text, *(("image_encoder",) if record.image_encoder else ()), *record.other_parts)


def get_part_config(record: ModelRecord, part: str) -> dict[str, Any]:
    """What a single file with this part has to be; empty when single files of it are not read."""
    if not record.companions_config:
        return {}
    return record.read_transformer_config() if part in record.transformer_parts else record.read_companion_configs().get(part, {})


def find_parts(record: ModelRecord, source: str) -> CheckpointParts:
    """Where the parts lie when the model comes from `source`: a folder, a file of the transformer, or a Hub repository.

    Raises `ModelError` when a choice is the person's: several files fit, or half of a pair has no other half.
    """
    path = Path(source)
    shared = list_snapshots(record.companions_repo or record.repo)[:1]
    if is_repository(source):
        tries = [_search_roots(record, {}, [folder], [folder, *shared]) for folder in list_snapshots(source)]
        whole = [each for each in tries if not each.missing]
        return (whole or tries or [CheckpointParts(missing=dict.fromkeys(list_required_parts(record), "not downloaded"))])[0]
    if path.is_dir():
        return _search_roots(record, {}, [path], [path, *shared])
    if not path.is_file():
        raise ModelError(f"{source}: no such file or folder; give one that holds {record.name}")
    above = [path.parent, *list(path.absolute().parents)[1 : 1 + MAX_PARENT_LEVELS]]
    return _search_roots(record, _find_transformer_files(record, path), [], [*above, *shared])


def _search_roots(record: ModelRecord, known_files: dict[str, PartFiles], own: list[Path], roots: list[Path]) -> CheckpointParts:
    found = CheckpointParts(dict(known_files))
    for part in list_required_parts(record):
        for root in () if part in known_files else own if part in record.transformer_parts else roots:
            place = _find_tokenizer(part, root, found) if part.startswith(PREPROCESSOR_PREFIXES) else _find_in_root(record, part, root)
            if isinstance(place, PartFiles):
                found.parts[part] = place
                found.missing.pop(part, None)
                break
            if place:
                found.missing.setdefault(part, place)
        if part not in found.parts:
            found.missing.setdefault(part, "not found")
    return found


def _find_transformer_files(record: ModelRecord, file: Path) -> dict[str, PartFiles]:
    """The transformer's file, and its other half's, which is called the same but for `high` and `low`."""
    if len(record.transformer_parts) == 1:
        return {record.transformer_parts[0]: _build_part_files(record.transformer_parts[0], file)}
    pair = {}
    for part, half in zip(record.transformer_parts, EXPERT_MARKS, strict=True):
        own = file.with_name(_replace_expert_mark(half, file.name))
        if not _EXPERT_MARK_PATTERN.search(file.name) or not own.is_file():
            raise ModelError(
                f"{file}: {record.name} needs two files; give the one with `high` or `low` in its name, the other called alike beside it, "
                "or the folder of both"
            )
        pair[part] = _build_part_files(part, own)
    return pair


def _replace_expert_mark(mark: str, name: str) -> str:
    """The file's name with its `high` or `low` replaced, in the same case."""

    def written(found: re.Match[str]) -> str:
        return mark.upper() if found[0].isupper() else mark.title() if found[0].istitle() else mark

    return _EXPERT_MARK_PATTERN.sub(written, name)


def _build_part_files(part: str, file: Path, folder: Path | None = None) -> PartFiles:
    return PartFiles(part, (file,) if file.suffix == GGUF_SUFFIX else find_shards(file), folder)


def _find_in_root(record: ModelRecord, part: str, root: Path) -> PartFiles | str:
    """The part's place, or what is wrong with what is there, or nothing."""
    folder = root / part
    if (folder / "config.json").is_file():
        return _find_in_folder(part, folder)
    wanted = get_part_config(record, part)
    if not wanted:
        return f"no {part}/config.json"
    fitting, faults = [], []
    for file in _iter_candidates(record, part, root):
        fault = explain_mismatch(part, file, wanted)
        if fault == "":
            fitting.append(file)
        elif fault:
            faults.append(f"{file.name}: {fault}")
    if len(fitting) > 1 and part in record.transformer_parts:
        names = " and ".join(file.name for file in fitting[:3])
        raise ModelError(f"{root}: {names} all fit {record.name}; say which as {record.name}@FILE")
    if fitting:
        # Of the encoders' number formats the largest file's is the most exact.
        return _build_part_files(part, max(fitting, key=lambda file: sum(each.stat().st_size for each in find_shards(file))))
    named = PICKLE_NAMES.get(part, "model")
    pickles = [file.name for file in _iter_files(root, part) if file.suffix in PICKLE_SUFFIXES and named in file.name.lower()]
    return "; ".join(faults[:1]) or (f"{pickles[0]} is a pickle, which can run code when opened" if pickles else "")


def _find_in_folder(part: str, folder: Path) -> PartFiles | str:
    """A part in diffusers' layout: whole, or what of it is missing."""
    # A variant's index, such as fp16's, has a longer name.
    index = min(folder.glob(f"*{INDEX_SUFFIX}"), key=lambda each: len(each.name), default=None)
    files = read_index_files(index) if index else tuple(sorted(folder.glob("*.safetensors")))
    gone = find_missing_files(files)
    if gone:
        return f"{len(gone)} of {len(files)} files missing"
    return PartFiles(part, files, folder) if files else "no *.safetensors beside its config.json"


def read_tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a single file's tensors by key, of all shards where it is an index. Raises `ModelError`."""
    if file.suffix == GGUF_SUFFIX:
        return read_gguf_shapes(file)
    return {key: shape for each in find_shards(file) for key, shape in read_header(each).shapes.items()}


def explain_mismatch(part: str, file: Path, expected: Mapping[str, Any]) -> str | None:
    """Why a single file is not the wanted part, by its header alone; empty when it is, None when it holds something else altogether."""
    try:
        shapes = read_tensor_shapes(file)
    except ModelError as error:
        return str(error).partition(": ")[2] or str(error)
    found = infer_config(part, shapes, expected)
    return "; ".join(find_differences(found, expected)[:3]) if found else None


def _iter_candidates(record: ModelRecord, part: str, root: Path) -> Iterator[Path]:
    """Single files and indices that may hold the part, shards only by their index; of two experts' those named after this one."""
    files = list(_iter_files(root, part))
    indices = [file for file in files if file.name.endswith(INDEX_SUFFIX)]
    listed = {shard for index in indices for shard in read_index_files(index)}
    half = (
        EXPERT_MARKS[record.transformer_parts.index(part)]
        if len(record.transformer_parts) > 1 and part in record.transformer_parts
        else None
    )
    for file in files:
        whole = (
            file in indices
            or (file.suffix == ".safetensors" and file not in listed)
            or (part == "text_encoder" and file.suffix == GGUF_SUFFIX)
        )
        named = _EXPERT_MARK_PATTERN.findall(str(file.relative_to(root)))
        if whole and (half is None or (named and named[-1].lower() == half)):
            yield file


def _iter_files(root: Path, part: str) -> Iterator[Path]:
    """Files of the folder itself, then of the subfolders for such parts."""
    yield from sorted(file for file in root.glob("*") if file.is_file())
    for name in COMFYUI_SUBFOLDERS.get(part, ()):
        yield from sorted(file for file in (root / name).rglob("*") if file.is_file())


def _find_tokenizer(part: str, root: Path, checkpoint: CheckpointParts) -> PartFiles | str:
    for name in TOKENIZER_FOLDERS if part == "tokenizer" else (part,):
        for file in ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer_config.json", "preprocessor_config.json"):
            if (root / name / file).is_file():
                return PartFiles(part, (root / name / file,), None if file == "spiece.model" else root / name)
    encoder = checkpoint.parts.get("text_encoder")
    single = part == "tokenizer" and encoder is not None and encoder.folder is None and encoder.files[0].suffix != GGUF_SUFFIX
    if single and encoder is not None and SENTENCEPIECE_KEY in read_header(encoder.files[0]).shapes:
        return PartFiles(part, encoder.files)
    return ""
