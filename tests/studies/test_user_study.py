"""The user study: a page without method names, the answer key, and the tally."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from fractions import Fraction
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lora_edit.cli.main import app
from lora_edit.errors import InputError, RunError, SettingsError
from lora_edit.reporting import SilentReporter
from lora_edit.studies.users.answer_key import AnswerKey, Group, make_key, read_key, write_key
from lora_edit.studies.users.answers import FORMAT, Answers, read_answers
from lora_edit.studies.users.clips import find_clips
from lora_edit.studies.users.page import build_page, render_page
from lora_edit.studies.users.questions import QUESTIONS
from lora_edit.studies.users.tally import RESAMPLES, score_question, tally_answers
from lora_edit.types import Video
from lora_edit.video.read import probe_video, read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

METHODS = ("kling", "ours_v2", "vace-14b")
CLIPS = ("cat by vace-14b", "cups", "dog")
NODE = shutil.which("node")


def small_video(value: int, frames: int = 3, height: int = 16, width: int = 16) -> Video:
    picture = torch.full((frames, height, width, 3), value, dtype=torch.uint8)
    return Video(picture, Fraction(10), tuple(i / 10 for i in range(frames)))


def add_clip(folder: Path, methods: tuple[str, ...] = METHODS) -> None:
    folder.mkdir(parents=True)
    write_video(folder / "source.mp4", small_video(0))
    save_image(folder / "first_frame.png", torch.full((16, 16, 3), 90, dtype=torch.uint8))
    for number, method in enumerate(methods, start=1):
        write_video(folder / f"{method}.mp4", small_video(60 * number))


@pytest.fixture(scope="module")
def encoded_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with three methods, encoded once per module."""
    folder = tmp_path_factory.mktemp("kept") / "cases"
    add_clip(folder / CLIPS[0])
    for name in CLIPS[1:]:
        shutil.copytree(folder / CLIPS[0], folder / name)
    return folder


@pytest.fixture
def cases(encoded_cases: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoded_cases, tmp_path / "cases"))


@pytest.fixture(scope="module")
def built(encoded_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `build_page` for these clips; tests must not change it."""
    folder = tmp_path_factory.mktemp("built") / "out"
    assert build_page(encoded_cases, folder, SilentReporter()) == folder / "page" / "index.html"
    return folder


class NoteReporter(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_page_reveals_no_method(built: Path) -> None:
    page_folder = built / "page"
    names = [path.relative_to(page_folder).as_posix() for path in page_folder.rglob("*")]
    text = " ".join([(page_folder / "index.html").read_text("utf-8"), *names]).lower()
    assert not [word for word in (*METHODS, "vace", "ours", *CLIPS) if word in text]
    media = b"".join(path.read_bytes() for path in (page_folder / "media").iterdir())
    assert not [method for method in METHODS if method.encode() in media]
    expected = {f"{group}_{part}" for group in (1, 2, 3) for part in ("first.png", "source.mp4", "1.mp4", "2.mp4", "3.mp4")}
    assert {path.name for path in (page_folder / "media").iterdir()} == expected
    assert sorted(path.name for path in built.iterdir()) == ["key.json", "page"]


def test_key_maps_options_to_methods(built: Path) -> None:
    key = read_key(built)
    assert (key.methods, [group.clip for group in key.groups]) == (METHODS, sorted(CLIPS))
    for group in key.groups:
        for option, method in enumerate(group.options, start=1):
            mean = read_video(built / "page" / "media" / f"{group.group}_{option}.mp4").frames.float().mean()
            assert mean == pytest.approx(60 * (METHODS.index(method) + 1), abs=4)


def test_order_is_seeded_and_differs_between_groups(cases: Path) -> None:
    clips = find_clips(cases)
    orders = [make_key(clips, seed) for seed in range(6)]
    assert make_key(clips, 0) == orders[0]
    assert len({key.study for key in orders}) == 6
    assert len({tuple(group.options for group in key.groups) for key in orders}) > 1
    assert all(len({group.options for group in key.groups}) > 1 for key in orders[:3])
    assert all(set(group.options) == set(METHODS) for key in orders for group in key.groups)


def test_repeated_call_writes_same_page(cases: Path, tmp_path: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    build_page(cases, tmp_path / "out", SilentReporter())
    before = contents()
    (tmp_path / "out" / "page" / "index.html").unlink()  # as after an interruption
    build_page(cases, tmp_path / "out", SilentReporter())
    assert contents() == before
    write_video(cases / "dog" / "kling.mp4", small_video(1), overwrite=True)
    with pytest.raises(RunError, match="choose another folder"):
        build_page(cases, tmp_path / "out", SilentReporter())
    assert contents() == before


def test_odd_sizes_and_different_lengths(cases: Path, tmp_path: Path) -> None:
    (cases / "dog" / "kling.mp4").unlink()
    write_video(cases / "dog" / "kling.mkv", small_video(5, frames=6, height=15, width=17), "ffv1")
    reporter = NoteReporter()
    page = build_page(cases, tmp_path / "out", reporter)
    assert len(reporter.notes) == 1
    assert "0.60 s long, the source 0.30 s" in reporter.notes[0]
    option = read_key(tmp_path / "out").groups[2].options.index("kling") + 1
    info = probe_video(page.parent / "media" / f"3_{option}.mp4")
    assert (info.num_frames, str(info.size), info.has_audio) == (6, "18x16", False)


def remove(path: str) -> object:
    return lambda cases: (cases / path).unlink()


def damage(cases: Path) -> None:
    (cases / "dog/kling.mp4").write_bytes((cases / "dog/kling.mp4").read_bytes()[:600])


def keep_one_method(cases: Path) -> None:
    for path in [*cases.rglob("kling.mp4"), *cases.rglob("vace-14b.mp4")]:
        path.unlink()


@pytest.mark.parametrize(
    ("break_cases", "words"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda cases: [shutil.rmtree(each) for each in cases.iterdir()], "contains no cases"),
        (remove("cups/source.mp4"), "add it as source.mp4"),
        (remove("cups/first_frame.png"), "add it as first_frame.png"),
        (remove("cups/kling.mp4"), "add kling.mp4"),
        (keep_one_method, "at least two"),
        (lambda cases: shutil.copy(cases / "dog/kling.mp4", cases / "dog/kling.mov"), "keep one of them"),
        (lambda cases: (cases / "dog/kling.mp4").write_bytes(b"no video"), "not a video"),
        (damage, "kling.mp4"),
        (lambda cases: (cases / "dog/first_frame.png").write_bytes(b"no picture"), "first_frame.png"),
    ],
)
def test_invalid_cases_raise_before_writing(cases: Path, tmp_path: Path, break_cases, words: str) -> None:
    break_cases(cases)
    outcome = CliRunner().invoke(app, ["study", "users", "--cases", str(cases), "--output", str(tmp_path / "out")])
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    errors = [line for line in outcome.stderr.splitlines() if not line.startswith("check ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert words in errors[0]
    assert not (tmp_path / "out").exists()


def test_output_folder_must_be_separate_and_empty(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="outside"):
        build_page(cases, cases / "out", SilentReporter())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="choose another folder"):
        build_page(cases, tmp_path / "full", SilentReporter())
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]


# ---- the page

KEY = AnswerKey(
    study="0123456789abcdef",
    seed=0,
    methods=("kling", "ours", "vace"),
    groups=tuple(
        Group(group=n, clip=f"clip {n}", options=options)
        for n, options in enumerate([("ours", "vace", "kling"), ("vace", "kling", "ours"), ("kling", "ours", "vace")], start=1)
    ),
)


class Outline(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_page_loads_nothing_from_other_hosts() -> None:
    page = render_page(KEY)
    assert not re.search(r"https?:|src=|@import|<link|<iframe|fetch\(|XMLHttpRequest|sendBeacon|WebSocket|import\(", page)
    assert not [attrs for _, attrs in Outline(page).tags if "//" in str(attrs)]


def test_page_has_elements_of_its_script() -> None:
    page = render_page(KEY)
    ids = [attrs["id"] for _, attrs in Outline(page).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'byId\("(\w+)"\)', page)) <= set(ids)
    facts = json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)[1])
    assert (facts["id"], facts["groups"], facts["letters"], facts["perParticipant"]) == (KEY.study, 3, ["A", "B", "C"], 3)
    assert [question["key"] for question in facts["questions"]] == [question.key for question in QUESTIONS]
    assert FORMAT in page


def evaluate_script(expression: str) -> Any:
    """Evaluate an expression in the page's script with node."""
    script = files("lora_edit.studies.users").joinpath("page.js")
    code = "require('vm').runInThisContext(require('fs').readFileSync(process.argv[1], 'utf8'));"
    code += "console.log(JSON.stringify(require('vm').runInThisContext(process.argv[2])))"
    return json.loads(subprocess.run([str(NODE), "-e", code, str(script), expression], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_every_participant_has_ten_groups_in_own_order() -> None:
    study = "{id: 'x', groups: 25, letters: ['A', 'B', 'C'], perParticipant: 10}"
    plans, again = evaluate_script(f"upTo(2).map(() => upTo(300).map((i) => planFor({study}, 'participant' + i)))")
    assert plans == again
    assert len({json.dumps(plan) for plan in plans}) == 300
    assert all(len({each["group"] for each in plan}) == 10 for plan in plans)
    assert all(sorted(each["shown"]) == [1, 2, 3] for plan in plans for each in plan)
    seen = np.bincount([each["group"] for plan in plans for each in plan], minlength=26)[1:]
    assert seen.min() > 80  # of 120 on average; standard deviation 8.5
    first = np.bincount([each["shown"][0] for plan in plans for each in plan])[1:]
    assert first.min() > 900  # of 1000; standard deviation 26


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_saved_answers_are_read(tmp_path: Path) -> None:
    questions = json.dumps([{"key": question.key, "ranked": question.ranked} for question in QUESTIONS])
    study = f"{{id: '{KEY.study}', groups: 3, letters: ['A', 'B', 'C'], perParticipant: 3, questions: {questions}}}"
    group_answers = (
        "{motion_consistency: {1: 3, 2: 1, 3: 2}, background_preservation: {1: 1, 2: 2, 3: 3}, reference_similarity: 2, visual_quality: 3}"
    )
    state = f"{{participant: 'p', started: 's', answers: {{1: {group_answers}, 2: {{reference_similarity: 1}}}}}}"
    record = evaluate_script(f"answerRecord({study}, {state}, planFor({study}, 'p'), 'now')")
    (tmp_path / "a.json").write_text(json.dumps(record))
    answers, _ = read_answers([tmp_path], KEY)
    assert [answer.group for answer in answers[0].answers] == [1]  # a partly answered group is omitted
    assert answers[0].answers[0].motion_consistency == [2, 3, 1]
    assert answers[0].answers[0].visual_quality == 3


# ---- the tally


def participant(name: str, preference: tuple[str, ...], groups: tuple[int, ...] = (1, 2, 3), saved: str = "t") -> dict[str, object]:
    """Make the answers of a participant who always ranks the methods in the same order."""
    answers = []
    for group in groups:
        ranking = [KEY.groups[group - 1].options.index(method) + 1 for method in preference]
        ranks = {question.key: ranking if question.ranked else ranking[0] for question in QUESTIONS}
        answers.append({"group": group, "shown": [1, 2, 3], **ranks})
    return {"format": FORMAT, "study": KEY.study, "participant": name, "started": "t", "saved": saved, "answers": answers}


def parse_answers(answers: dict[str, object]) -> Answers:
    return Answers.model_validate_json(json.dumps(answers))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    write_key(folder, KEY)
    return folder


def save_answers(folder: Path, *participants: dict[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, answers in enumerate(participants):
        (folder / f"{number}.json").write_text(json.dumps(answers))
    return folder


def test_known_averages(study: Path, tmp_path: Path) -> None:
    three = [participant(f"p{i}", ("ours", "kling", "vace")) for i in range(3)]
    other = participant("p3", ("vace", "ours", "kling"))
    table = tally_answers([save_answers(tmp_path / "answers", *three, other)], study, SilentReporter())
    assert table == study / "users.md"
    with (study / "users.csv").open() as file:
        rows = {(row["question"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4 * 3
    for question, method, mean in [
        ("motion_consistency", "ours", 1.25), ("motion_consistency", "kling", 2.25), ("motion_consistency", "vace", 2.5),
        ("background_preservation", "ours", 1.25), ("reference_similarity", "ours", 0.75), ("visual_quality", "vace", 0.25),
        ("visual_quality", "kling", 0.0),
    ]:  # fmt: skip
        row = rows[question, method]
        assert float(row["mean"]) == pytest.approx(mean)
        assert float(row["low"]) <= mean <= float(row["high"])
    text = table.read_text("utf-8")
    assert "4 participants, 12 answered groups, 3 of 3 clips seen" in text
    assert "| ours | 1.25 [1.00, 1.75] | 1.25 [1.00, 1.75] | 75.0 [25.0, 100.0] | 75.0 [25.0, 100.0] |" in text


def test_bootstrap_resamples_participants() -> None:
    many = parse_answers(participant("a", ("ours", "kling", "vace")))
    few = parse_answers(participant("b", ("vace", "kling", "ours"), (1,)))
    scores = {each.method: each for each in score_question(QUESTIONS[0], [many, few], KEY)}
    assert scores["ours"].mean == pytest.approx((3 * 1 + 1 * 3) / 4)
    assert (scores["ours"].low, scores["ours"].high) == (1.0, 3.0)  # half of the resamples contain one participant only
    assert scores["kling"].low == scores["kling"].high == 2.0
    assert scores == {each.method: each for each in score_question(QUESTIONS[0], [many, few], KEY)}


def test_interval_of_known_distribution() -> None:
    orders = [("ours", "kling", "vace")] * 60 + [("vace", "ours", "kling")] * 40
    answers = [parse_answers(participant(f"p{i}", order)) for i, order in enumerate(orders)]
    ours = next(each for each in score_question(QUESTIONS[2], answers, KEY) if each.method == "ours")
    half = 1.96 * (0.6 * 0.4 / 100) ** 0.5  # several answers of one participant count once
    assert (ours.mean, ours.low, ours.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=0.012)
    assert RESAMPLES >= 2000


def test_single_participant_has_no_interval(study: Path, tmp_path: Path) -> None:
    text = tally_answers([save_answers(tmp_path / "answers", participant("p", KEY_METHODS))], study, SilentReporter()).read_text("utf-8")
    assert "One participant gives no interval" in text
    assert "nan" not in text
    assert "nan" not in (study / "users.csv").read_text("utf-8")


KEY_METHODS = ("kling", "ours", "vace")


def test_participant_counts_once_with_note(study: Path, tmp_path: Path) -> None:
    early = participant("twice", ("vace", "kling", "ours"), (1,), saved="2026-01-02")
    full = participant("twice", ("ours", "kling", "vace"), saved="2026-01-01")
    folder = save_answers(tmp_path / "answers", early, full, participant("once", ("ours", "kling", "vace")))
    reporter = NoteReporter()
    text = tally_answers([folder, folder / "0.json"], study, reporter).read_text("utf-8")
    assert len(reporter.notes) == 1
    assert "participant twice is in 2 files" in reporter.notes[0]
    assert "counts once, with 1.json" in reporter.notes[0]
    assert reporter.notes[0] in text
    assert "| ours | 1.00 [1.00, 1.00] |" in text


def make_invalid_answers(**changes: object) -> dict[str, object]:
    answers = participant("p", KEY_METHODS)
    answers["answers"][0] |= changes  # type: ignore[index]
    return answers


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "ask the participant to save it again"),
        ("[]", "ask the participant"),
        (json.dumps({**participant("p", KEY_METHODS), "study": "other"}), "answers to another page"),
        (json.dumps({**participant("p", KEY_METHODS), "format": "v9"}), "format 'v9'"),
        (json.dumps({**participant("p", KEY_METHODS), "answers": []}), "answers: "),
        (json.dumps(participant("p", KEY_METHODS, (1, 1))), "answered twice"),
        (json.dumps(make_invalid_answers(group=9)), "groups 1 to 3"),
        (json.dumps(make_invalid_answers(motion_consistency=[1, 1, 2])), "motion_consistency must rank"),
        (json.dumps(make_invalid_answers(background_preservation=[1, 2])), "background_preservation must rank"),
        (json.dumps(make_invalid_answers(visual_quality=4)), "visual_quality must be one"),
        (json.dumps(make_invalid_answers(visual_quality="1")), "answers.0.visual_quality"),
        (json.dumps(make_invalid_answers(shown=[1])), "shown must hold"),
        (json.dumps(make_invalid_answers(extra=1)), "answers.0.extra"),
    ],
)
def test_malformed_answers_raise_with_file_name(study: Path, tmp_path: Path, content: str, words: str) -> None:
    folder = save_answers(tmp_path / "answers", participant("good", KEY_METHODS))
    (folder / "bad.json").write_text(content)
    outcome = CliRunner().invoke(app, ["study", "users", "--tally", str(folder), "--output", str(study)])
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith(f"error: {folder / 'bad.json'}: ")
    assert words in outcome.stderr
    assert [path.name for path in study.iterdir()] == ["key.json"]


def test_missing_answers_and_damaged_keys_raise(study: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="give the JSON files"):
            tally_answers([path], study, SilentReporter())
    for content in ("{}", json.dumps(KEY.model_dump() | {"methods": ["a", "b", "c"]})):
        (study / "key.json").write_text(content)
        with pytest.raises(RunError, match=r"key\.json"):
            tally_answers([tmp_path / "empty"], study, SilentReporter())


def test_command_from_cases_to_table(cases: Path, tmp_path: Path) -> None:
    runner, out = CliRunner(), tmp_path / "out"
    outcome = runner.invoke(app, ["study", "users", "--cases", str(cases), "--output", str(out)])
    assert (outcome.exit_code, outcome.stdout) == (0, f"{out / 'page' / 'index.html'}\n"), outcome.stderr
    assert "keep" in outcome.stderr
    key = read_key(out)
    answers = participant("p", KEY_METHODS) | {"study": key.study}
    folder = save_answers(tmp_path / "answers", answers)
    outcome = runner.invoke(app, ["study", "users", "--tally", str(folder / "0.json"), "--tally", str(folder), "--output", str(out)])
    assert (outcome.exit_code, outcome.stdout) == (0, f"{out / 'users.md'}\n"), outcome.stderr
    assert all(method in (out / "users.md").read_text("utf-8") for method in METHODS)
