"""`python -m tests.fuzz.guided`: coverage-guided fuzzing by atheris, one process a target.

Each child instruments the project's modules, starts from the target's seeds and the kept
findings, and ends after its iterations or at the first fault, whose input it writes down.
Results are a line a target; --record appends them to a file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REGRESSIONS = Path(__file__).parent / "regressions"
MAX_BYTES = 1 << 16
_DONE = re.compile(r"^Done (\d+) runs in", re.MULTILINE)
_COVERAGE = re.compile(r"cov: (\d+)")


def child(name: str, flags: list[str]) -> None:
    """Fuzz one target in this process; does not return. Errors beyond the target's contract end it."""
    import atheris

    with atheris.instrument_imports(include=["keymgmt", "crds"]):
        from crds.errors import KekkaiError
        from tests.fuzz.targets import targets

        target = next(one for one in targets() if one.name == name)

    def one_input(data: bytes) -> None:
        try:
            target.parse(data)
        except (KekkaiError, *target.may_raise):
            return

    atheris.Setup([f"fuzz-{name}", *flags], one_input)
    atheris.Fuzz()


def fuzz(name: str, seeds: tuple[bytes, ...], iterations: int, folder: Path, seconds: int) -> tuple[str, bool]:
    """Run a child; its line of results, and whether it found nothing. Findings lie in `folder`."""
    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate((*seeds, *kept(name))):
        (corpus / f"seed-{number}").write_bytes(seed[:MAX_BYTES])
    flags = [
        f"-runs={iterations}", f"-max_len={MAX_BYTES}", "-timeout=10", "-rss_limit_mb=2048", "-seed=1",
        f"-max_total_time={seconds}", f"-artifact_prefix={folder}/{name}-", "-verbosity=1", str(corpus),
    ]  # fmt: skip
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.guided", "--child", name, "--", *flags]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    counted, coverage = _DONE.search(done.stderr), _COVERAGE.findall(done.stderr)
    runs = int(counted.group(1)) if counted else 0
    found = "nothing" if done.returncode == 0 and counted else "FOUND: " + _last_lines(done.stdout + done.stderr)
    wall = time.monotonic() - started
    line = f"| {name} | {runs:,} | {coverage[-1] if coverage else 0} | {wall:.0f} | {found} |"
    return line, done.returncode == 0 and counted is not None


def kept(name: str) -> list[bytes]:
    """Inputs that once found a fault, kept so that it does not come back."""
    return [path.read_bytes() for path in sorted(REGRESSIONS.glob(f"{name}-*"))]


def _last_lines(text: str) -> str:
    wanted = [line for line in text.splitlines() if "Error" in line or "ERROR" in line or "Exception" in line]
    return "; ".join(wanted[:3])[:300].replace("|", "/") or "the child ended early"


def main() -> int:
    """Exit status 1 when anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--iterations", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=int, default=0, help="at most so long a target; 0 for no bound")
    parser.add_argument("--folder", type=Path, help="corpus and findings; a new folder if not given")
    parser.add_argument("--record", type=Path, help="append the results here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    if "--child" in sys.argv:
        split = sys.argv.index("--")
        child(sys.argv[sys.argv.index("--child") + 1], sys.argv[split + 1 :])
    given = parser.parse_args()
    from tests.fuzz.targets import targets

    folder = given.folder or Path(tempfile.mkdtemp(prefix="kekkai-fuzz-"))
    print(f"findings and corpus: {folder}\n| target | inputs | edges | seconds | found |\n|---|---|---|---|---|")
    sound = True
    for target in targets():
        if given.targets and target.name not in given.targets:
            continue
        line, clean = fuzz(target.name, target.seeds, given.iterations, folder, given.seconds)
        print(line, flush=True)
        sound &= clean
        if given.record is not None:
            with given.record.open("a") as file:
                file.write(f"{line}\n")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
