"""`python -m tests.kill`: kill each process many times, and count lost jobs.

Exit codes: 0 no job lost, duplicated or wrong; 1 at least one; 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from scripts import bench_page
from tests.kill import broken
from tests.kill.run import Outcome, Plan, datastores, run
from tests.unit.app.appkit import ROOT


def main() -> int:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2200, help="accept at least so many")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance")
    parser.add_argument("--short", action="store_true", help="each failpoint once, 300 jobs")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks/")
    parser.add_argument("--break", dest="broken", choices=sorted(broken.WAYS), help="a control")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airlift-broken-") as folder:
        code = broken.copy(options.broken, Path(folder)) if options.broken else ROOT
        if options.short:
            plan = Plan(jobs=300, seed=options.seed, code=code)
        else:
            plan = Plan(
                jobs=options.jobs,
                seed=options.seed,
                rounds=3,
                directed=2,
                random_kills=16,
                freezes=4,
                service_kills=5,
                pause=0.15,
                code=code,
            )
        with datastores() as (postgres, redis):
            outcome = run(plan, postgres, redis, lambda text: print(text, flush=True))
    report(outcome)
    if options.write and options.broken is None:
        write(outcome)
    return 0 if outcome.good else 1


def report(outcome: Outcome) -> None:
    """Print what was found."""
    verdict = outcome.verdict
    for text in verdict.faults[:20]:
        print(text)
    for point in outcome.missed:
        print(f"never killed at {point}")
    for kind, count in sorted(outcome.kills.items()):
        print(f"kills: {kind}: {count}")
    print(f"ended as: {dict(verdict.states)}, in {verdict.attempts} attempts")
    print(f"requests whose outcome was not known and that were sent again: {outcome.unsure}")
    for name, value in numbers(outcome).items():
        print(f"{name}: {value}")


def numbers(outcome: Outcome) -> dict[str, float]:
    """The flat keys of the benchmarks' results."""
    verdict = outcome.verdict
    return {
        "jobs_accepted": verdict.accepted,
        "jobs_lost": verdict.lost,
        "jobs_duplicated": verdict.duplicated,
        "jobs_wrong": verdict.wrong,
        "jobs_kills": outcome.kills.total(),
        "jobs_seconds": round(outcome.seconds, 1),
    }


def write(outcome: Outcome) -> None:
    """Put the numbers among the benchmarks' results; the others stay."""
    bench_page.save(numbers(outcome))


if __name__ == "__main__":
    sys.exit(main())
