"""Files of a model's parts: in diffusers' subfolders, in single files, or in the Hub library's folder.

A part is searched as diffusers' subfolder first, then among files by their headers, with any name: in the folder itself and in the
subfolders of ComfyUI's `models`. A part that is not found comes from the Hub repository of the shared parts, where that is downloaded.
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
"""Subfolders of ComfyUI's `models`; those of two experts are the original layout's."""

TOKENIZER_FOLDERS = ("tokenizer", "google/umt5-xxl", "umt5-xxl")
PREPROCESSOR_PREFIXES = ("tokenizer", "image_processor", "feature_extractor")
"""Prefixes of the names of parts without weights."""
SENTENCEPIECE_KEY = "spiece_model"
"""Key of the tokenizer's model in ComfyUI's text encoders."""

PICKLE_NAMES = {"vae": "vae", "text_encoder": "t5", "image_encoder": "clip"}
"""Words in the names of the originals' pickles."""

PUBLISHED_NAMES = {
    "vae": re.compile(r"wan_?2[._][12]_vae([-_](bf16|fp16|fp32))?", re.IGNORECASE),
    "text_encoder": re.compile(
        r"(models_t5_)?umt5[-_]xxl([-_](enc|encoder|bf16|fp16|fp32|fp8|e4m3fn|e5m2|scaled|i?q\d\w*|f16|f32))*", re.IGNORECASE
    ),
    "image_encoder": re.compile(r"clip_vision_(vit_)?h|(models_clip_)?open-clip-xlm-roberta-large-vit-huge-14([-_]\w+)*", re.IGNORECASE),
}
"""Names, without suffix, under which publishers and repackagers distribute the companions of Wan's transformers."""
OTHER_MODEL_NAMES = re.compile(r"qwen|upscale|image_?only|uncensored|abliterat|finetun", re.IGNORECASE)
"""Words in the names of other models with the same shapes."""

EXPERT_MARKS = ("high", "low")
"""Words in the names of two experts' files, in the order of their parts."""
_EXPERT_MARK_PATTERN = re.compile(r"(?<![A-Za-z])(high|HIGH|High|low|LOW|Low)(?=noise|NOISE|Noise|[^A-Za-z]|$)")

GGUF_SUFFIX = ".gguf"
MAX_PARENT_LEVELS = 2
"""Levels above a given file that are searched for other parts: users of ComfyUI sort models into subfolders."""


@dataclass(frozen=True)
class PartFiles:
    """Files of one part: `files` hold its weights, in `folder` when that is in diffusers' layout (with a `config.json` beside them)."""

    part: str
    files: tuple[Path, ...]
    folder: Path | None = None


@dataclass
class CheckpointParts:
    """Files of a model's parts, and the reasons for missing ones."""

    parts: dict[str, PartFiles] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def list_required_parts(record: ModelRecord) -> tuple[str, ...]:
    """List all parts of a model: its transformers and their companions."""
    text = ("text_encoder", "tokenizer") if record.text_length else ()
    return (*record.transformer_parts, "vae", *text, *(("image_encoder",) if record.image_encoder else ()), *record.other_parts)


def get_part_config(record: ModelRecord, part: str) -> dict[str, Any]:
    """Return the configuration that a single file of this part has to match; empty when single files of it are not read."""
    if not record.companions_config:
        return {}
    return record.read_transformer_config() if part in record.transformer_parts else record.read_companion_configs().get(part, {})


def find_parts(record: ModelRecord, source: str) -> CheckpointParts:
    """Find the parts of a model from `source`: a folder, a file of the transformer, or a Hub repository.

    Raises `ModelError` when the user has to choose: several files fit, or one of two experts' files is missing.
    """
    path = resolve_model_folder(Path(source))
    shared = list_snapshots(record.companions_repo or record.repo)[:1]
    if is_repository(source):
        candidates = [_search_roots(record, {}, [folder], [folder, *shared]) for folder in list_snapshots(source)]
        complete = [each for each in candidates if not each.missing]
        return (complete or candidates or [CheckpointParts(missing=dict.fromkeys(list_required_parts(record), "not downloaded"))])[0]
    if path.is_dir():
        return _search_roots(record, {}, [path], [path, *shared])
    if not path.is_file():
        raise ModelError(f"{source}: no such file or folder; give one that holds {record.name}")
    if not record.companions_config:
        raise ModelError(f"{source}: single files of {record.name} are not read; give a folder in diffusers' layout")
    parents = [path.parent, *list(path.absolute().parents)[1 : 1 + MAX_PARENT_LEVELS]]
    return _search_roots(record, _find_transformer_files(record, path), [], [*parents, *shared])


def resolve_model_folder(folder: Path) -> Path:
    """Return the folder with a model's files: `models` in ComfyUI's own folder, the newest version in a folder of the Hub's library."""
    if any((folder / "models" / name).is_dir() for name in COMFYUI_SUBFOLDERS["transformer"]):
        return folder / "models"
    snapshots = [each for each in (folder / "snapshots").glob("*") if each.is_dir()] if folder.name.startswith("models--") else []
    return max(snapshots, key=lambda each: each.stat().st_mtime, default=folder)


def _search_roots(record: ModelRecord, known_files: dict[str, PartFiles], own_roots: list[Path], roots: list[Path]) -> CheckpointParts:
    checkpoint = CheckpointParts(dict(known_files))
    for part in list_required_parts(record):
        for root in () if part in known_files else own_roots if part in record.transformer_parts else roots:
            is_preprocessor = part.startswith(PREPROCESSOR_PREFIXES)
            result = _find_preprocessor(part, root, checkpoint) if is_preprocessor else _find_in_root(record, part, root)
            if isinstance(result, PartFiles):
                checkpoint.parts[part] = result
                checkpoint.missing.pop(part, None)
                break
            if result:
                checkpoint.missing.setdefault(part, result)
        if part not in checkpoint.parts:
            checkpoint.missing.setdefault(part, "not found")
    return checkpoint


def _find_transformer_files(record: ModelRecord, file: Path) -> dict[str, PartFiles]:
    """Find the transformer's file, and that of a second expert, whose name differs by `high` and `low` only."""
    if len(record.transformer_parts) == 1:
        return {record.transformer_parts[0]: _build_part_files(record.transformer_parts[0], file)}
    experts = {}
    for part, mark in zip(record.transformer_parts, EXPERT_MARKS, strict=True):
        expert_file = file.with_name(_replace_expert_mark(mark, file.name))
        if not _EXPERT_MARK_PATTERN.search(file.name) or not expert_file.is_file():
            raise ModelError(
                f"{file}: {record.name} needs two files; give the one with `high` or `low` in its name, the other called alike beside it, "
                "or the folder of both"
            )
        experts[part] = _build_part_files(part, expert_file)
    return experts


def _replace_expert_mark(mark: str, name: str) -> str:
    """Replace `high` or `low` in a file's name, in the same case."""

    def match_case(match: re.Match[str]) -> str:
        return mark.upper() if match[0].isupper() else mark.title() if match[0].istitle() else mark

    return _EXPERT_MARK_PATTERN.sub(match_case, name)


def _build_part_files(part: str, file: Path, folder: Path | None = None) -> PartFiles:
    return PartFiles(part, (file,) if file.suffix == GGUF_SUFFIX else find_shards(file), folder)


def _find_in_root(record: ModelRecord, part: str, root: Path) -> PartFiles | str:
    """Find a part under a folder; returns its files, or the fault of a candidate, or an empty text."""
    folder = root / part
    if (folder / "config.json").is_file():
        return _find_in_folder(part, folder)
    expected = get_part_config(record, part)
    if not expected:
        return f"no {part}/config.json"
    fitting, faults = [], []
    for file in _iter_candidates(record, part, root):
        fault = explain_mismatch(part, file, expected)
        if fault == "":
            fitting.append(file)
        elif fault:
            faults.append(f"{file.name}: {fault}")
    if len(fitting) > 1 and part in record.transformer_parts:
        names = " and ".join(file.name for file in fitting[:3])
        raise ModelError(f"{root}: {names} all fit {record.name}; say which as {record.name}@FILE")
    if fitting:
        return _choose_file(record, part, fitting)
    word = PICKLE_NAMES.get(part, "model")
    pickles = [file.name for file in _iter_files(root, part) if file.suffix in PICKLE_SUFFIXES and word in file.name.lower()]
    refused = [f"{pickles[0]} is a pickle, which can run code when opened"] if pickles else []
    # The publisher's folder has companions as pickles beside the transformer, whose shapes explain nothing about them.
    reasons = [*faults, *refused] if part in record.transformer_parts else [*refused, *faults]
    return reasons[0] if reasons else ""


def _choose_file(record: ModelRecord, part: str, fitting: list[Path]) -> PartFiles | str:
    """Choose one of the files whose shapes fit: one with a publisher's name; returns a fault where the names leave it open.

    Other models have the same shapes: autoencoders tuned for pictures, text encoders trained further.
    """
    pattern = PUBLISHED_NAMES.get(part)
    published = [
        file for file in fitting if pattern is None or pattern.fullmatch(file.name.partition(".safetensors")[0].removesuffix(GGUF_SUFFIX))
    ]
    unknown = [file for file in fitting if not OTHER_MODEL_NAMES.search(file.name)]
    if not published and len(unknown) != 1:
        names = " and ".join(file.name for file in fitting[:3])
        return f"{names}: of its shapes, and of no name that {record.name}'s own file has"
    # Of several number formats of an encoder, that of the largest file is the most exact.
    return _build_part_files(part, max(published or unknown, key=lambda file: sum(each.stat().st_size for each in find_shards(file))))


def _find_in_folder(part: str, folder: Path) -> PartFiles | str:
    """Find a part in diffusers' layout; returns its files, or a text about missing ones."""
    # The index of a variant, such as fp16, has a longer name.
    index = min(folder.glob(f"*{INDEX_SUFFIX}"), key=lambda each: len(each.name), default=None)
    files = read_index_files(index) if index else tuple(sorted(folder.glob("*.safetensors")))
    missing = find_missing_files(files)
    if missing:
        return f"{len(missing)} of {len(files)} files missing"
    return PartFiles(part, files, folder) if files else "no *.safetensors beside its config.json"


def read_tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a single file's tensors by key, of all shards for an index. Raises `ModelError`."""
    if file.suffix == GGUF_SUFFIX:
        return read_gguf_shapes(file)
    return {key: shape for each in find_shards(file) for key, shape in read_header(each).shapes.items()}


def explain_mismatch(part: str, file: Path, expected: Mapping[str, Any]) -> str | None:
    """Explain by its header why a single file is not the expected part; empty when it is, None when it holds another kind of model."""
    try:
        shapes = read_tensor_shapes(file)
    except ModelError as error:
        return str(error).partition(": ")[2] or str(error)
    config = infer_config(part, shapes, expected)
    return "; ".join(find_differences(config, expected)[:3]) if config else None


def _iter_candidates(record: ModelRecord, part: str, root: Path) -> Iterator[Path]:
    """Yield single files and indices that may hold a part; shards only by their index, experts' files by their mark."""
    files = list(_iter_files(root, part))
    indices = [file for file in files if file.name.endswith(INDEX_SUFFIX)]
    shards = {shard for index in indices for shard in read_index_files(index)}
    mark = (
        EXPERT_MARKS[record.transformer_parts.index(part)]
        if len(record.transformer_parts) > 1 and part in record.transformer_parts
        else None
    )
    for file in files:
        is_candidate = (
            file in indices
            or (file.suffix == ".safetensors" and file not in shards)
            or (part == "text_encoder" and file.suffix == GGUF_SUFFIX)
        )
        marks = _EXPERT_MARK_PATTERN.findall(str(file.relative_to(root)))
        if is_candidate and (mark is None or (marks and marks[-1].lower() == mark)):
            yield file


def _iter_files(root: Path, part: str) -> Iterator[Path]:
    """Yield the files of the folder itself, then of the subfolders for a part."""
    yield from sorted(file for file in root.glob("*") if file.is_file())
    for name in COMFYUI_SUBFOLDERS.get(part, ()):
        yield from sorted(file for file in (root / name).rglob("*") if file.is_file())


def _find_preprocessor(part: str, root: Path, checkpoint: CheckpointParts) -> PartFiles | str:
    for name in TOKENIZER_FOLDERS if part == "tokenizer" else (part,):
        for file in ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer_config.json", "preprocessor_config.json"):
            if (root / name / file).is_file():
                return PartFiles(part, (root / name / file,), None if file == "spiece.model" else root / name)
    encoder = checkpoint.parts.get("text_encoder")
    is_single_file = part == "tokenizer" and encoder is not None and encoder.folder is None and encoder.files[0].suffix != GGUF_SUFFIX
    if is_single_file and encoder is not None and SENTENCEPIECE_KEY in read_header(encoder.files[0]).shapes:
        return PartFiles(part, encoder.files)
    return ""
