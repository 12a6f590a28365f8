"""A run that is killed at random times and resumed gives the same LoRA."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_killed_and_resumed_runs_are_byte_identical() -> None:
    """SIGKILL three times, on five frames (the benchmark's defaults are ten and the whole clip)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill_and_resume.py"), "--kills", "3", "--steps", "8", "--frames", "5"],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same bytes" in done.stdout
