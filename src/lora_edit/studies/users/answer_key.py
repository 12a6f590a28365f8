"""The answer key: the method behind each option of each group. Only the person who runs the study has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_edit.atomic_files import write_text
from lora_edit.errors import RunError
from lora_edit.seeds import derive_seed
from lora_edit.studies.users.clips import ClipResults, compute_study_id
from lora_edit.text_files import read_bytes_file

KEY_FILE = "key.json"


class Group(BaseModel):
    """The results of one clip: `options[i]` is the method behind option i + 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    group: int = Field(ge=1)
    clip: str
    options: tuple[str, ...]


class AnswerKey(BaseModel):
    """The id of a study, its methods in order of names, and its groups, numbered from 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    study: str
    seed: int
    methods: tuple[str, ...] = Field(min_length=2)
    groups: tuple[Group, ...] = Field(min_length=1)

    def get_method_index(self, group: int, option: int) -> int:
        """Return the index into `methods` of an option; `group` and `option` count from 1."""
        return self.methods.index(self.groups[group - 1].options[option - 1])


def make_key(clips: list[ClipResults], seed: int) -> AnswerKey:
    """Draw the order of the methods independently for each group."""
    methods = tuple(clips[0].results)
    rng = np.random.default_rng(derive_seed(seed, "user study"))
    groups = [
        Group(group=number, clip=clip.name, options=tuple(methods[i] for i in rng.permutation(len(methods))))
        for number, clip in enumerate(clips, start=1)
    ]
    return AnswerKey(study=compute_study_id(clips, seed), seed=seed, methods=methods, groups=tuple(groups))


def write_key(folder: Path, key: AnswerKey) -> None:
    """Write the key to the folder of the study."""
    write_text(folder / KEY_FILE, json.dumps(key.model_dump(), indent=1, ensure_ascii=False) + "\n")


def read_key(folder: Path) -> AnswerKey:
    """Read the key of the study in `folder`. Raises `RunError` when there is none or it is invalid."""
    path = folder / KEY_FILE
    if not path.is_file():
        raise RunError(f"{path}: no such file; give as --output the folder that `study users --cases` wrote")
    try:
        key = AnswerKey.model_validate_json(read_bytes_file(path))
    except (ValidationError, OSError) as error:
        raise RunError(f"{path}: not the key of a user study; write it again with `study users --cases` from the same files") from error
    numbers = [group.group for group in key.groups]
    if numbers != list(range(1, len(numbers) + 1)) or any(sorted(group.options) != sorted(key.methods) for group in key.groups):
        raise RunError(f"{path}: groups and methods contradict each other; write it again with `study users --cases` from the same files")
    return key
