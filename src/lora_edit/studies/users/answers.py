"""Participants' answers: reads the files that they saved and validates them with the key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_edit.errors import InputError
from lora_edit.studies.users.answer_key import AnswerKey
from lora_edit.studies.users.questions import QUESTIONS
from lora_edit.text_files import read_bytes_file

FORMAT = "user-study-answers-1"


class GroupAnswer(BaseModel):
    """The answers for one group: rankings list options from best to worst, choices the best option; `shown` is their order on screen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    group: int
    shown: list[int]
    motion_consistency: list[int]
    background_preservation: list[int]
    reference_similarity: int
    visual_quality: int


class Answers(BaseModel):
    """The file of one participant. Times are those of the browser, as ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    format: str
    study: str
    participant: str = Field(min_length=1)
    started: str
    saved: str
    answers: list[GroupAnswer] = Field(min_length=1)


def find_answer_files(paths: Iterable[Path]) -> list[Path]:
    """Find answer files: `paths` that are files, and every `.json` file of folders in order of names. Raises `InputError` without files."""
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            folder_files = sorted(each for each in path.glob("*.json") if each.is_file())
            if not folder_files:
                raise InputError(f"{path}: contains no answers; give the JSON files that participants saved, or their folder")
            files |= dict.fromkeys(folder_files)
        elif path.is_file():
            files[path] = None
        else:
            raise InputError(f"{path}: no such file or folder; give the JSON files that participants saved, or their folder")
    return list(files)


def read_answers(paths: Iterable[Path], key: AnswerKey) -> tuple[list[Answers], list[str]]:
    """Read the answers of every participant once, with notes about participants who saved several files.

    Of several files by one participant, the one with the most groups counts, and of those with equally many the one saved last.
    Raises `InputError` for a file that is damaged or belongs to another page.
    """
    files_by_participant: dict[str, list[tuple[Path, Answers]]] = {}
    for path in find_answer_files(paths):
        answers = read_answer_file(path, key)
        files_by_participant.setdefault(answers.participant, []).append((path, answers))
    selected, notes = [], []
    for participant, candidates in files_by_participant.items():
        path, answers = max(candidates, key=lambda each: (len(each[1].answers), each[1].saved))
        selected.append(answers)
        if len(candidates) > 1:
            names = ", ".join(str(each[0]) for each in candidates)
            notes.append(f"participant {participant} is in {len(candidates)} files ({names}) and counts once, with {path.name}")
    return selected, notes


def read_answer_file(path: Path, key: AnswerKey) -> Answers:
    """Read one file. Raises `InputError` when it is damaged, incomplete or of another study."""
    try:
        answers = Answers.model_validate_json(read_bytes_file(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except ValidationError as error:
        error_details = error.errors()[0]
        key_path = ".".join(map(str, error_details["loc"]))
        raise _build_invalid_file_error(path, f"{key_path + ': ' if key_path else ''}{error_details['msg'].lower()}") from error
    if answers.format != FORMAT:
        raise _build_invalid_file_error(path, f"format {answers.format!r} is not {FORMAT!r}")
    if answers.study != key.study:
        raise InputError(
            f"{path}: answers to another page (study {answers.study}, not {key.study}); leave it out, or give the folder of that study"
        )
    groups = [answer.group for answer in answers.answers]
    if len(set(groups)) < len(groups):
        raise _build_invalid_file_error(path, "a group is answered twice")
    for answer in answers.answers:
        fault = _find_fault(answer, key)
        if fault:
            raise _build_invalid_file_error(path, f"group {answer.group}: {fault}")
    return answers


def _find_fault(answer: GroupAnswer, key: AnswerKey) -> str:
    """Describe what is wrong with an answer; empty when it is valid."""
    if not 1 <= answer.group <= len(key.groups):
        return f"the study has groups 1 to {len(key.groups)}"
    options = list(range(1, len(key.methods) + 1))
    if sorted(answer.shown) != options:
        return f"shown must hold each of the options 1 to {len(options)} once"
    for question in QUESTIONS:
        value = getattr(answer, question.key)
        if question.ranked and sorted(value) != options:
            return f"{question.key} must rank each of the options 1 to {len(options)} once"
        if not question.ranked and value not in options:
            return f"{question.key} must be one of the options 1 to {len(options)}"
    return ""


def _build_invalid_file_error(path: Path, fault: str) -> InputError:
    return InputError(f"{path}: not a complete file of answers ({fault}); ask the participant to save it again, or leave it out")
