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
from lora_edit.models.catalog.facts import ModelFacts, differences
from lora_edit.models.catalog.gguf_header import gguf_shapes
from lora_edit.models.catalog.headers import INDEX, PICKLE_ENDINGS, index_files, missing, read_header, shards
from lora_edit.models.catalog.hub import is_repository, snapshots
from lora_edit.models.catalog.shapes import told

SUBFOLDERS = {
    "transformer": ("diffusion_models", "unet", "high_noise_model"),
    "transformer_2": ("diffusion_models", "unet", "low_noise_model"),
    "vae": ("vae",),
    "text_encoder": ("text_encoders", "clip"),
    "image_encoder": ("clip_vision",),
}
"""Of ComfyUI's `models`; the two experts' are the original's."""

TOKENIZERS = ("tokenizer", "google/umt5-xxl", "umt5-xxl")
READERS = ("tokenizer", "image_processor", "feature_extractor")
"""What the names of parts without weights begin with."""
SPIECE = "spiece_model"
"""ComfyUI's text encoders carry the tokenizer's model as a tensor of this name."""

PICKLED = {"vae": "vae", "text_encoder": "t5", "image_encoder": "clip"}
"""What the originals' pickles have in their names."""

HALVES = ("high", "low")
"""What the files of two experts have in their names, in the order of their parts."""
_HALF = re.compile(r"(?<![A-Za-z])(high|HIGH|High|low|LOW|Low)(?=noise|NOISE|Noise|[^A-Za-z]|$)")

GGUF = ".gguf"
LEVELS_UP = 2
"""How far above a given file the rest is looked for: ComfyUI's users sort models into subfolders."""


@dataclass(frozen=True)
class Place:
    """Where one part lies: `files` hold its weights, in `folder` when that is in diffusers' layout (a `config.json` beside them)."""

    part: str
    files: tuple[Path, ...]
    folder: Path | None = None


@dataclass
class Found:
    """The places of a model's parts, and of those that are not to be had, why."""

    places: dict[str, Place] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)


def needed_parts(facts: ModelFacts) -> tuple[str, ...]:
    """All parts of a model: its transformers and their companions."""
    text = ("text_encoder", "tokenizer") if facts.text_length else ()
    return (*facts.parts, "vae", *text, *(("image_encoder",) if facts.image_encoder else ()), *facts.other_parts)


def part_config(facts: ModelFacts, part: str) -> dict[str, Any]:
    """What a single file with this part has to be; empty when single files of it are not read."""
    if not facts.companions:
        return {}
    return facts.transformer_config() if part in facts.parts else facts.companion_configs().get(part, {})


def find(facts: ModelFacts, source: str) -> Found:
    """Where the parts lie when the model comes from `source`: a folder, a file of the transformer, or a Hub repository.

    Raises `ModelError` when a choice is the person's: several files fit, or half of a pair has no other half.
    """
    path = Path(source)
    shared = snapshots(facts.companions_repo or facts.repo)[:1]
    if is_repository(source):
        tries = [_find(facts, {}, [folder], [folder, *shared]) for folder in snapshots(source)]
        whole = [each for each in tries if not each.lacking]
        return (whole or tries or [Found(lacking=dict.fromkeys(needed_parts(facts), "not downloaded"))])[0]
    if path.is_dir():
        return _find(facts, {}, [path], [path, *shared])
    if not path.is_file():
        raise ModelError(f"{source}: no such file or folder; give one that holds {facts.name}")
    above = [path.parent, *list(path.absolute().parents)[1 : 1 + LEVELS_UP]]
    return _find(facts, _given(facts, path), [], [*above, *shared])


def _find(facts: ModelFacts, given: dict[str, Place], own: list[Path], roots: list[Path]) -> Found:
    found = Found(dict(given))
    for part in needed_parts(facts):
        for root in () if part in given else own if part in facts.parts else roots:
            place = _tokenizer(part, root, found) if part.startswith(READERS) else _in_root(facts, part, root)
            if isinstance(place, Place):
                found.places[part] = place
                found.lacking.pop(part, None)
                break
            if place:
                found.lacking.setdefault(part, place)
        if part not in found.places:
            found.lacking.setdefault(part, "not found")
    return found


def _given(facts: ModelFacts, file: Path) -> dict[str, Place]:
    """The transformer's file, and its other half's, which is called the same but for `high` and `low`."""
    if len(facts.parts) == 1:
        return {facts.parts[0]: _place(facts.parts[0], file)}
    pair = {}
    for part, half in zip(facts.parts, HALVES, strict=True):
        own = file.with_name(_named_after(half, file.name))
        if not _HALF.search(file.name) or not own.is_file():
            raise ModelError(
                f"{file}: {facts.name} needs two files; give the one with `high` or `low` in its name, the other called alike beside it, "
                "or the folder of both"
            )
        pair[part] = _place(part, own)
    return pair


def _named_after(half: str, name: str) -> str:
    """The file's name with its `high` or `low` replaced, in the same case."""

    def written(found: re.Match[str]) -> str:
        return half.upper() if found[0].isupper() else half.title() if found[0].istitle() else half

    return _HALF.sub(written, name)


def _place(part: str, file: Path, folder: Path | None = None) -> Place:
    return Place(part, (file,) if file.suffix == GGUF else shards(file), folder)


def _in_root(facts: ModelFacts, part: str, root: Path) -> Place | str:
    """The part's place, or what is wrong with what is there, or nothing."""
    folder = root / part
    if (folder / "config.json").is_file():
        return _in_folder(part, folder)
    wanted = part_config(facts, part)
    if not wanted:
        return f"no {part}/config.json"
    fitting, faults = [], []
    for file in _candidates(facts, part, root):
        fault = misfit(part, file, wanted)
        if fault == "":
            fitting.append(file)
        elif fault:
            faults.append(f"{file.name}: {fault}")
    if len(fitting) > 1 and part in facts.parts:
        names = " and ".join(file.name for file in fitting[:3])
        raise ModelError(f"{root}: {names} all fit {facts.name}; say which as {facts.name}@FILE")
    if fitting:
        # Of the encoders' number formats the largest file's is the most exact.
        return _place(part, max(fitting, key=lambda file: sum(each.stat().st_size for each in shards(file))))
    named = PICKLED.get(part, "model")
    pickles = [file.name for file in _files(root, part) if file.suffix in PICKLE_ENDINGS and named in file.name.lower()]
    return "; ".join(faults[:1]) or (f"{pickles[0]} is a pickle, which can run code when opened" if pickles else "")


def _in_folder(part: str, folder: Path) -> Place | str:
    """A part in diffusers' layout: whole, or what of it is missing."""
    # A variant's index, such as fp16's, has a longer name.
    index = min(folder.glob(f"*{INDEX}"), key=lambda each: len(each.name), default=None)
    files = index_files(index) if index else tuple(sorted(folder.glob("*.safetensors")))
    gone = missing(files)
    if gone:
        return f"{len(gone)} of {len(files)} files missing"
    return Place(part, files, folder) if files else "no *.safetensors beside its config.json"


def held_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a single file's tensors by key, of all shards where it is an index. Raises `ModelError`."""
    if file.suffix == GGUF:
        return gguf_shapes(file)
    return {key: shape for each in shards(file) for key, shape in read_header(each).shapes.items()}


def misfit(part: str, file: Path, wanted: Mapping[str, Any]) -> str | None:
    """Why a single file is not the wanted part, by its header alone; empty when it is, None when it holds something else altogether."""
    try:
        shapes = held_shapes(file)
    except ModelError as error:
        return str(error).partition(": ")[2] or str(error)
    found = told(part, shapes, wanted)
    return "; ".join(differences(found, wanted)[:3]) if found else None


def _candidates(facts: ModelFacts, part: str, root: Path) -> Iterator[Path]:
    """Single files and indices that may hold the part, shards only by their index; of two experts' those named after this one."""
    files = list(_files(root, part))
    indices = [file for file in files if file.name.endswith(INDEX)]
    listed = {shard for index in indices for shard in index_files(index)}
    half = HALVES[facts.parts.index(part)] if len(facts.parts) > 1 and part in facts.parts else None
    for file in files:
        whole = (
            file in indices or (file.suffix == ".safetensors" and file not in listed) or (part == "text_encoder" and file.suffix == GGUF)
        )
        named = _HALF.findall(str(file.relative_to(root)))
        if whole and (half is None or (named and named[-1].lower() == half)):
            yield file


def _files(root: Path, part: str) -> Iterator[Path]:
    """Files of the folder itself, then of the subfolders for such parts."""
    yield from sorted(file for file in root.glob("*") if file.is_file())
    for name in SUBFOLDERS.get(part, ()):
        yield from sorted(file for file in (root / name).rglob("*") if file.is_file())


def _tokenizer(part: str, root: Path, found: Found) -> Place | str:
    for name in TOKENIZERS if part == "tokenizer" else (part,):
        for file in ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer_config.json", "preprocessor_config.json"):
            if (root / name / file).is_file():
                return Place(part, (root / name / file,), None if file == "spiece.model" else root / name)
    encoder = found.places.get("text_encoder")
    single = part == "tokenizer" and encoder is not None and encoder.folder is None and encoder.files[0].suffix != GGUF
    if single and encoder is not None and SPIECE in read_header(encoder.files[0]).shapes:
        return Place(part, encoder.files)
    return ""
