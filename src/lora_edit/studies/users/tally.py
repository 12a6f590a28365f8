"""The table of a user study: average ranks and shares of choices, each with its interval."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_edit.atomic_files import replace_file, write_text
from lora_edit.reporting import Reporter
from lora_edit.seeds import derive_seed
from lora_edit.studies.users.answer_key import AnswerKey, read_key
from lora_edit.studies.users.answers import Answers, read_answers
from lora_edit.studies.users.questions import QUESTIONS, Question

RESAMPLES = 10_000
"""Number of bootstrap resamples."""


@dataclass(frozen=True)
class Score:
    """The average rank (1 is best) or share of choices (0 to 1) of a method; its 95 % interval is NaN for fewer than two participants."""

    method: str
    mean: float
    low: float
    high: float


def tally_answers(answers: Sequence[Path], output: Path, reporter: Reporter, seed: int = 0) -> Path:
    """Write `users.md` and `users.csv` into the folder of the study and return the path of `users.md`.

    `answers` are participants' files or folders of them; `seed` seeds the bootstrap. Raises `InputError` before anything is written.
    """
    key = read_key(output)
    participants, notes = read_answers(answers, key)
    for note in notes:
        reporter.note(note)
    scores = {question.key: score_question(question, participants, key, seed) for question in QUESTIONS}
    _write_csv(output / "users.csv", scores)
    table = output / "users.md"
    write_text(table, _render_markdown(scores, participants, key, notes))
    return table


def score_question(question: Question, answers: Sequence[Answers], key: AnswerKey, seed: int = 0) -> list[Score]:
    """Score every method: the mean over all answers, with the interval of a percentile bootstrap over participants."""
    points = np.zeros((len(answers), len(key.methods)))  # sums over the groups of each participant
    for row, participant in zip(points, answers, strict=True):
        for answer in participant.answers:
            value = getattr(answer, question.key)
            if question.ranked:
                for rank, option in enumerate(value, start=1):
                    row[key.get_method_index(answer.group, option)] += rank
            else:
                row[key.get_method_index(answer.group, value)] += 1
    counts = np.array([len(participant.answers) for participant in answers])
    means = points.sum(0) / counts.sum()
    low, high = _bootstrap_interval(points, counts, seed)
    return [Score(*each) for each in zip(key.methods, means.tolist(), low.tolist(), high.tolist(), strict=True)]


def _bootstrap_interval(points: np.ndarray, counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the 2.5 and 97.5 % points `[M]` of the means of resamples in which participants are drawn with replacement.

    `points` `[P, M]` are sums over the answers of a participant, `counts` `[P]` the numbers of these answers.
    """
    num_participants = len(counts)
    if num_participants < 2:
        unknown = np.full(points.shape[1], np.nan)
        return unknown, unknown
    rng = np.random.default_rng(derive_seed(seed, "user study", "resamples"))
    weights = rng.multinomial(num_participants, np.full(num_participants, 1 / num_participants), size=RESAMPLES)
    means = (weights @ points) / (weights @ counts)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def _write_csv(path: Path, scores: dict[str, list[Score]]) -> None:
    with replace_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "measure", "method", "mean", "low", "high"])
        for question in QUESTIONS:
            measure = "average rank" if question.ranked else "share of choices"
            for each in scores[question.key]:
                values = ("" if np.isnan(value) else f"{value:.4f}" for value in (each.mean, each.low, each.high))
                writer.writerow([question.key, measure, each.method, *values])


def _render_markdown(scores: dict[str, list[Score]], answers: Sequence[Answers], key: AnswerKey, notes: Sequence[str]) -> str:
    total = sum(len(participant.answers) for participant in answers)
    seen_groups = {answer.group for participant in answers for answer in participant.answers}
    num_methods = len(key.methods)
    lines = [
        f"User study: {_format_count(len(answers), 'participant')}, {_format_count(total, 'answered group')}, {len(seen_groups)} of "
        f"{len(key.groups)} clips seen.",
        "",
        f"Average rank (1 is best, {(num_methods + 1) / 2:.2f} by chance) and share of choices ({100 / num_methods:.1f} % by chance); in",
        f"brackets the 95 % interval, from {RESAMPLES:,} resamples of participants with replacement.",
        "",
        "| method | " + " | ".join(f"{q.title}, {'rank ↓' if q.ranked else '% ↑'}" for q in QUESTIONS) + " |",
        "|---" * (len(QUESTIONS) + 1) + "|",
    ]
    for number, method in enumerate(key.methods):
        cells = [_format_cell(scores[q.key][number], q.ranked) for q in QUESTIONS]
        lines.append(f"| {method.replace('|', chr(92) + '|')} | " + " | ".join(cells) + " |")
    if len(answers) < 2:
        lines += ["", "One participant gives no interval."]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _format_count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _format_cell(score: Score, ranked: bool) -> str:
    factor, digits = (1, 2) if ranked else (100, 1)
    text = f"{score.mean * factor:.{digits}f}"
    return text if np.isnan(score.low) else f"{text} [{score.low * factor:.{digits}f}, {score.high * factor:.{digits}f}]"
