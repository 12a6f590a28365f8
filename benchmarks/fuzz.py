"""Run the command on thousands of damaged, malformed and hostile inputs, and check how it ends.

`python benchmarks/fuzz.py --count 2000 --seed 1`; ends with exit code 1 when a case is at fault. A case is at fault when the exit code is
neither 0 nor 2, a traceback is printed, an error is not one line that names its input, 30 s or 2 GB are exceeded, a source changes, a file
appears outside of the case's folder, or a failed command leaves a result behind. `--keep FOLDER` stores the files of such cases.

The package is imported once; for each case a process is forked that calls the command's entry point.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import platform
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_kinds import KINDS, PROJECT, Case

SECONDS = 30.0
"""Most seconds of a case; those in which other programs use the processors that it needs do not count."""
MEMORY = 2 * 10**9
MAX_FILE = 2**30
POLL = 0.02


@dataclass
class Outcome:
    """What one case did. `fault` is empty where all is well."""

    index: int
    kind: str
    mutation: str
    words: list[str]
    code: int
    seconds: float
    processor_seconds: float
    memory: int
    fault: str
    error: str


def import_package() -> None:
    """Import all modules that a command may load, so that forked processes need not."""
    import lora_edit

    for module in pkgutil.walk_packages(lora_edit.__path__, "lora_edit."):
        if not module.name.startswith("lora_edit.ui") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("lora_edit.ui.projects", "peft", "diffusers.models", "PIL.ImageCms", "safetensors.torch", "matplotlib.pyplot"):
        importlib.import_module(name)
    from PIL import Image

    Image.init()


def hash_tree(folder: Path, mutable: tuple[str, ...]) -> dict[str, str]:
    """Hash every file below a folder, except below its folders `mutable`; links and special files by their kind."""
    hashes = {}
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder:
            folders[:] = [name for name in folders if name not in (*mutable, "out", "tmp", "home")]
        for name in files:
            path = Path(parent) / name
            mode = path.lstat().st_mode
            key = str(path.relative_to(folder))
            hashes[key] = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else str(stat.S_IFMT(mode))
    return hashes


def run_command(case: Case, folder: Path) -> None:
    """Become the command: run it in the case's folder and end the process. Called in a forked process."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"tmp/{name}", os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "LORA_EDIT_CACHE": str(folder / "home")}
        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False, errors="backslashreplace")
        if case.words[0] == PROJECT:
            code = open_projects(Path(case.words[1]))
        else:
            from lora_edit.cli.main import main

            sys.argv = ["lora-edit", *case.words]
            main()
            code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001, what the interpreter would print
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 1
        os._exit(code & 0xFF)


def open_projects(folder: Path) -> int:
    """Read every project as the page does when it opens one; returns the exit code that the command would have."""
    from lora_edit.errors import InputError
    from lora_edit.ui.projects import ProjectStore

    store = ProjectStore(folder)
    try:
        for path in sorted(folder.iterdir()):
            project = store.open_project(path.name)
            project.read_state()
            project.read_results()
            project.read_unfinished_edit()
            project.update_state(seed=5)
            project.undo()
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def read_memory(process: int) -> int:
    """Read the most bytes that a process held in memory at any time."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def read_processor_seconds(process: int) -> tuple[float, bool]:
    """Read how long a process has used processors, and whether a thread of it uses one or waits for one."""
    used, is_running = 0, False
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            is_running |= fields[0] == "R"
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        used = int(fields[11]) + int(fields[12])
    except OSError:
        pass
    return used / os.sysconf("SC_CLK_TCK"), is_running


def watch(process: int) -> tuple[int, float, float, int, str]:
    """Wait for a forked command, and kill it when it takes too long or too much memory.

    Returns its exit code, the seconds that it took, those on a processor, its memory, and which limit it exceeded. Seconds in which it
    could run, but other programs used the processors, do not count.
    """
    blocked, last, memory, exceeded = 0.0, time.monotonic(), 0, ""
    while True:
        memory = max(memory, read_memory(process))
        used, is_running = read_processor_seconds(process)
        now = time.monotonic()
        blocked, last = blocked + (0 if is_running else min(now - last, 1)), now
        done, status, usage = os.wait4(process, os.WNOHANG)
        if done:
            break
        if memory > MEMORY:
            exceeded = exceeded or f"memory above {MEMORY / 1e9:g} GB"
        if used + blocked > SECONDS:
            exceeded = exceeded or f"longer than {SECONDS:g} s"
        if exceeded:
            os.killpg(process, signal.SIGKILL)
        time.sleep(POLL)
    code = os.waitstatus_to_exitcode(status)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)  # children that it left
    used = usage.ru_utime + usage.ru_stime
    return code, used + blocked, used, max(memory, usage.ru_maxrss * 1024), exceeded


def find_fault(case: Case, folder: Path, code: int, exceeded: str, before: dict[str, str], siblings: set[str]) -> tuple[str, str]:
    """Say what is wrong with a case; empty where all is well. Also returns its error message."""
    text = (folder / "tmp" / "stderr").read_text("utf-8", "replace") if (folder / "tmp" / "stderr").exists() else ""
    error = next((line for line in reversed(text.splitlines()) if line.startswith("error: ")), "")
    names = (*(path.name for path in case.changed), *case.names)
    leftovers = [path.name for path in (folder / "out").rglob("*") if ".part" in path.name]
    results = [
        path.name
        for path in (folder / "out").iterdir()
        if path.suffix != ".run" and path.name != "run" and not path.name.endswith("-region.png")
    ]
    after = hash_tree(folder, case.mutable)
    checks = {
        exceeded: bool(exceeded),
        f"killed by signal {-code}": code < 0,
        f"exit code {code}": code not in (0, 2),
        "traceback": "Traceback (most recent" in text,
        "no error line": code == 2 and not error,
        "the error does not name its input": code == 2
        and not any(name in error for name in names)
        and not error.startswith("error: Invalid value"),
        f"sources changed: {[name for name in before if after.get(name) != before[name]][:3]}": any(
            after.get(n) != h for n, h in before.items()
        ),
        f"files outside of the output: {sorted(set(after) - set(before))[:3]}": bool(set(after) - set(before))
        and not case.may_write_anywhere,
        f"files outside of the case: {sorted(set(os.listdir(folder.parent)) - siblings)[:3]}": bool(
            set(os.listdir(folder.parent)) - siblings
        ),
        f"unfinished files: {leftovers[:3]}": bool(leftovers),
        f"results of a failed command: {results[:3]}": code != 0 and bool(results) and case.words[0] != "study",
        f"temporary files: {os.listdir(folder / 'tmp')[:4]}": code in (0, 2) and not exceeded and len(os.listdir(folder / "tmp")) > 2,
    }
    return next((name for name, holds in checks.items() if holds), ""), error or text[-300:]


def describe_crash(folder: Path) -> str:
    """Return the end of the traceback that the command or the interpreter wrote."""
    logs = [
        *(folder / "tmp").glob("lora-edit-*.log"),
        folder / "run" / "log.txt",
        folder / "out" / "run" / "log.txt",
        folder / "tmp" / "stderr",
    ]
    for log in logs:
        text = log.read_text("utf-8", "replace") if log.is_file() else ""
        if "Traceback" in text:
            lines = text.rstrip().splitlines()
            place = next((line.strip() for line in reversed(lines) if line.strip().startswith("File") and "lora_edit" in line), "")
            return f"{lines[-1][:160]} @ {place.split('lora_edit/')[-1][:120]}"
    return ""


def run_case(index: int, seed: int, kinds: list[str], corpus: Path, work: Path, keep: Path | None) -> Outcome:
    """Prepare, run and check one case."""
    rng = random.Random(f"{seed}:{index}")
    kind = rng.choices(kinds, [KINDS[name][0] for name in kinds])[0]
    folder = work / f"case{index}"
    for name in ("out", "tmp", "home"):
        (folder / name).mkdir(parents=True)
    case = KINDS[kind][1](corpus, folder, rng)
    before, siblings = hash_tree(folder, case.mutable), set(os.listdir(work))
    process = os.fork()
    if process == 0:
        run_command(case, folder)
    code, seconds, used, memory, exceeded = watch(process)
    fault, error = find_fault(case, folder, code, exceeded, before, siblings)
    if fault:
        error = describe_crash(folder) or error
        if keep is not None:
            store_case(case, folder, keep / f"{kind}-{seed}-{index}", fault, error)
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(index, kind, case.mutation, case.words, code, seconds, used, memory, fault, error)


def store_case(case: Case, folder: Path, target: Path, fault: str, error: str) -> None:
    """Store the changed files of a case with the command and its messages."""
    target.mkdir(parents=True, exist_ok=True)
    for path in case.changed:
        if path.is_file() and path.lstat().st_size < 10**7 and stat.S_ISREG(path.lstat().st_mode):
            shutil.copyfile(path, target / path.name)
    stderr = folder / "tmp" / "stderr"
    record = {
        "words": case.words,
        "mutation": case.mutation,
        "fault": fault,
        "error": error,
        "stderr": stderr.read_text("utf-8", "replace")[-3000:] if stderr.exists() else "",
    }
    (target / "case.json").write_text(json.dumps(record, indent=1))


def work_through(worker: int, args: argparse.Namespace, corpus: Path, work: Path) -> None:
    """Run every case of one worker and write the outcomes, one JSON object per line."""
    own = work / f"worker{worker}"
    own.mkdir()
    with (work / f"outcomes{worker}.jsonl").open("w") as file:
        indices = [int(n) for n in args.only.split(",")] if args.only else range(args.count)
        for index in indices[worker :: args.workers]:
            outcome = run_case(index, args.seed, args.kinds, corpus, own, args.keep)
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            if outcome.fault:
                call = " ".join(outcome.words)[:160]
                print(f"{index} {outcome.kind} [{outcome.mutation}] {call!r}: {outcome.fault}: {outcome.error[:300]}", flush=True)


def print_table(outcomes: list[Outcome]) -> None:
    """Print the counts by kind as a table in Markdown."""
    print("| kind | cases | exit 0 | exit 2 | other | at fault | slowest, s | on a processor, s | largest memory, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.kind].append(outcome)
    for kind, group in [*sorted(groups.items()), ("all", outcomes)]:
        codes = [outcome.code for outcome in group]
        print(
            f"| {kind} | {len(group)} | {codes.count(0)} | {codes.count(2)} | {sum(code not in (0, 2) for code in codes)} "
            f"| {sum(bool(outcome.fault) for outcome in group)} | {max(o.seconds for o in group):.1f} "
            f"| {max(o.processor_seconds for o in group):.1f} | {max(o.memory for o in group) / 1e6:.0f} |"
        )


def main() -> int:
    """Build the inputs, run the cases on the workers, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND", help=f"some of {', '.join(KINDS)}; default: all"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="store the changed files of cases at fault here")
    parser.add_argument("--only", default="", metavar="N,N", help="run only these cases of the seed")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="valid inputs of an earlier call; default: made now")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "TOKENIZERS_PARALLELISM": "false"}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        work = Path(name)
        corpus = args.corpus.resolve() if args.corpus else work / "corpus"
        if not corpus.exists():
            subprocess.run(
                [sys.executable, str(Path(__file__).with_name("fuzz_corpus.py")), str(corpus)], check=True, stderr=subprocess.DEVNULL
            )
        if args.keep:
            args.keep = args.keep.resolve()
        import_package()
        workers = []
        for worker in range(args.workers):
            process = os.fork()
            if process == 0:
                try:
                    work_through(worker, args, corpus, work)
                    os._exit(0)
                except BaseException:  # noqa: BLE001
                    traceback.print_exc()
                    os._exit(1)
            workers.append(process)
        failed = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in workers]
        print("workers:", failed)
        outcomes = [Outcome(**json.loads(line)) for file in sorted(work.glob("outcomes*.jsonl")) for line in file.read_text().splitlines()]
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        (args.keep / f"outcomes-{args.seed}.jsonl").write_text("".join(json.dumps(asdict(each)) + "\n" for each in outcomes))
    print_table(outcomes)
    print(f"seed {args.seed}, {len(outcomes)} cases, {(time.monotonic() - started) / 60:.1f} minutes, Python {platform.python_version()}")
    return 1 if any(failed) or any(outcome.fault for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
