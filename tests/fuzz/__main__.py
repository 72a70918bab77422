"""`python -m tests.fuzz`: run the fuzz and print what was found."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections import defaultdict
from itertools import chain
from pathlib import Path

from .campaign import Counts, Outcome, draw_cases, list_healthy, run_cases
from .targets import TARGETS


def main() -> int:
    """Run cases, print findings as they come and counts in the end; 1 where anything was found."""
    # Names of files that are no text are printed too.
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(errors="backslashreplace")
    arguments = _read_arguments()
    targets = arguments.target or sorted(TARGETS)
    cases = draw_cases(targets, arguments.seed, arguments.first, arguments.runs)
    if arguments.healthy:
        cases = chain(list_healthy(), cases)
    by_target, by_verb = Counts(), Counts()
    kinds: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in run_cases(
        cases, workers=arguments.workers, minutes=arguments.minutes, keep=arguments.keep
    ):
        by_target.add(outcome.case.target, outcome)
        by_verb.add(outcome.line.verb, outcome)
        for finding in outcome.findings:
            known = kinds[finding.kind, finding.where]
            known.append(outcome)
            if len(known) == 1 or arguments.verbose:
                _print_finding(outcome, finding.kind, finding.where, finding.detail)
        if arguments.keep:
            print(shlex.join(outcome.line.words), f"-> {outcome.code}")
    print(f"\n{by_target.to_markdown('target')}\n\n{by_verb.to_markdown('verb')}")
    if kinds:
        _print_kinds(kinds)
    return 1 if kinds else 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--healthy", action="store_true", help="run healthy lines first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="begin no case after so many")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="leave the files of the case in this folder")
    parser.add_argument("--verbose", action="store_true", help="print findings of known kinds too")
    return parser.parse_args()


def _print_finding(outcome: Outcome, kind: str, where: str, detail: str):
    line = shlex.join(outcome.line.words)
    print(f"\n{kind}: {where}\n  {line}\n  {outcome.case.command}", flush=True)
    for text in detail.splitlines()[-6:]:
        print(f"    {text[:200]}", file=sys.stderr)


def _print_kinds(kinds: dict[tuple[str, str], list[Outcome]]):
    print(f"\n{len(kinds)} kinds of findings:")
    for (kind, where), outcomes in sorted(kinds.items(), key=lambda item: -len(item[1])):
        verbs = sorted({outcome.line.verb for outcome in outcomes})
        print(json.dumps([len(outcomes), kind, where, verbs, outcomes[0].case.command]))


if __name__ == "__main__":
    sys.exit(main())
