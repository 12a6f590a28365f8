"""Participants' answers: read from the files that they saved, and held against the key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_edit.errors import InputError
from lora_edit.studies.users.answer_key import AnswerKey
from lora_edit.studies.users.questions import QUESTIONS

FORMAT = "user-study-answers-1"


class GroupAnswer(BaseModel):
    """One group: rankings name options from best to worst, choices the best option; `shown` is their order on the screen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    group: int
    shown: list[int]
    motion_consistency: list[int]
    background_preservation: list[int]
    reference_similarity: int
    visual_quality: int


class Answers(BaseModel):
    """One participant's file. Times are the browser's, as ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    format: str
    study: str
    participant: str = Field(min_length=1)
    started: str
    saved: str
    answers: list[GroupAnswer] = Field(min_length=1)


def find_answer_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and of folders every `.json` file in order of names. Raises `InputError` where there are none."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.glob("*.json") if each.is_file())
            if not inside:
                raise InputError(f"{path}: holds no answers; give the JSON files that participants saved, or their folder")
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[path] = None
        else:
            raise InputError(f"{path}: no such file or folder; give the JSON files that participants saved, or their folder")
    return list(found)


def read_answers(paths: Iterable[Path], key: AnswerKey) -> tuple[list[Answers], list[str]]:
    """Every participant's answers once, and remarks on those that came more than once.

    Of several files by one participant the fullest counts, and of equally full ones the one saved last.
    Raises `InputError` for a file that is damaged or belongs to another page.
    """
    by_participant: dict[str, list[tuple[Path, Answers]]] = {}
    for path in find_answer_files(paths):
        answers = read_answer_file(path, key)
        by_participant.setdefault(answers.participant, []).append((path, answers))
    kept, notes = [], []
    for participant, several in by_participant.items():
        path, answers = max(several, key=lambda each: (len(each[1].answers), each[1].saved))
        kept.append(answers)
        if len(several) > 1:
            names = ", ".join(str(each[0]) for each in several)
            notes.append(f"participant {participant} is in {len(several)} files ({names}) and counts once, with {path.name}")
    return kept, notes


def read_answer_file(path: Path, key: AnswerKey) -> Answers:
    """One file, whole and for this study. Raises `InputError`."""
    try:
        answers = Answers.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _build_invalid_file_error(path, f"{place + ': ' if place else ''}{first['msg'].lower()}") from error
    if answers.format != FORMAT:
        raise _build_invalid_file_error(path, f"format {answers.format!r} is not {FORMAT!r}")
    if answers.study != key.study:
        raise InputError(f"{path}: answers to another page (study {answers.study}, not {key.study}); leave it out, or give its folder")
    groups = [answer.group for answer in answers.answers]
    if len(set(groups)) < len(groups):
        raise _build_invalid_file_error(path, "a group is answered twice")
    for answer in answers.answers:
        fault = _find_fault(answer, key)
        if fault:
            raise _build_invalid_file_error(path, f"group {answer.group}: {fault}")
    return answers


def _find_fault(answer: GroupAnswer, key: AnswerKey) -> str:
    """What is wrong with an answer, in words; nothing when all is well."""
    if not 1 <= answer.group <= len(key.groups):
        return f"the study has groups 1 to {len(key.groups)}"
    options = list(range(1, len(key.methods) + 1))
    if sorted(answer.shown) != options:
        return f"shown must hold each of the options 1 to {len(options)} once"
    for question in QUESTIONS:
        given = getattr(answer, question.key)
        if question.ranked and sorted(given) != options:
            return f"{question.key} must rank each of the options 1 to {len(options)} once"
        if not question.ranked and given not in options:
            return f"{question.key} must be one of the options 1 to {len(options)}"
    return ""


def _build_invalid_file_error(path: Path, fault: str) -> InputError:
    return InputError(f"{path}: not a whole file of answers ({fault}); ask the participant to save it again, or leave it out")
