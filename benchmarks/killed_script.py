"""Kill a script at random moments, run it again until it ends, and compare what it made with an undisturbed run.

    python benchmarks/killed_script.py OUT [--kills N] [--seed N] -- bash examples/claims.sh

The script gets the folder to work in as its last argument, and everything else by the environment. It runs to its end,
then in a folder of the same path, as artifacts hold paths, where all its processes are killed (SIGKILL) N times at
moments spread over the time it took, before it may end. Every file must be the same but for times and costs, which
manifests and reports hold: of a report, the verdicts on claims are compared. The exit code is 1 if a file differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.faults.kills import content_of, difference


def run(script: list[str], folder: Path, kill_after: float | None = None) -> int | None:
    """Run the script in the folder; the exit code, or None if it was killed."""
    with folder.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen([*script, str(folder)], stdout=log, stderr=log, start_new_session=True)
        try:
            return process.wait(kill_after)
        except subprocess.TimeoutExpired:
            for member in session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            process.wait()
            return None


def session(leader: int) -> Iterator[int]:
    """The processes of a session."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ProcessLookupError):
            if os.getsid(int(path.name)) == leader:
                yield int(path.name)


def compared(folder: Path) -> dict[str, str]:
    """The content of a run's folder, without what holds times and costs."""
    found = content_of(folder, stamps=False)  # the script may write inputs of its own
    reports = [path.parent for path in folder.rglob("priorkit.json") if _kind(path) == "report"]
    for report in reports:
        within = report.relative_to(folder).as_posix() + "/"
        found = {name: digest for name, digest in found.items() if not name.startswith(within)}
        for table in report.glob("tables/claim*.csv"):
            with table.open(encoding="utf-8", newline="") as stream:
                rows = [{**row, "cost": ""} for row in csv.DictReader(stream)]
            found[within + table.name] = json.dumps(rows)
    return found


def _kind(manifest: Path) -> str:
    return json.loads(manifest.read_text(encoding="utf-8"))["kind"]


def main() -> int:
    """Run, kill, run again, compare."""
    parser = argparse.ArgumentParser(usage="killed_script.py OUT [--kills N] [--seed N] -- SCRIPT...")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("script", nargs="+")
    given = parser.parse_args()
    script = [str(Path(word).resolve()) if Path(word).is_file() else word for word in given.script]
    folder, undisturbed = given.out / "made", given.out / "undisturbed"
    given.out.mkdir(parents=True)
    begun = time.monotonic()
    if code := run(script, folder):
        sys.exit(f"the script ended with {code}; see {folder.with_suffix('.log')}")
    seconds = time.monotonic() - begun
    folder.rename(undisturbed)
    random_ = random.Random(given.seed)
    killed = 0
    for _ in range(given.kills):
        # What was made stays made, so that the moments are spread over all of the script.
        code = run(script, folder, kill_after=random_.uniform(0.5, 1.5) * seconds / given.kills)
        if code is not None:
            break
        killed += 1
    else:
        code = run(script, folder)
    if code:
        sys.exit(f"the killed script ended with {code}; see {folder.with_suffix('.log')}")
    one, other = compared(undisturbed), compared(folder)
    wrong = difference(one, other)
    print(f"{seconds:.0f} s undisturbed; killed {killed} times; {len(one)} files, {len(wrong)} differ")
    print(*wrong[:20], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
