"""The questions for participants: two rankings (the paper's table 2) and two choices (its appendix G)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question: `key` names the answer in files; the answer ranks all options if `ranked`, otherwise it is the best option."""

    key: str
    title: str
    text: str
    ranked: bool


QUESTIONS = (
    Question(
        "motion_consistency",
        "Motion consistency",
        "Rank the options by how well the edited part moves as it does in the source clip, without flicker, jumps or tearing.",
        ranked=True,
    ),
    Question(
        "background_preservation",
        "Background preservation",
        "Rank the options by how well everything outside the edited part stays as it is in the source clip.",
        ranked=True,
    ),
    Question(
        "reference_similarity",
        "Reference similarity",
        "Which option looks most like the edited first frame, in appearance and in content?",
        ranked=False,
    ),
    Question(
        "visual_quality",
        "Visual quality",
        "Which option has the highest visual quality overall, edited part and background together?",
        ranked=False,
    ),
)
"""All questions, in the order of the page."""

GROUPS_PER_PARTICIPANT = 10
"""Number of clips per participant (paper, section 4.2 and appendix G)."""
