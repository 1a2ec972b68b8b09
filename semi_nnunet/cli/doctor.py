"""Say in one screen what is set up, what is missing and how to mend it."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.discovery.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    wrong = sum(finding.fix is not None for finding in findings)
    print(f"\n{wrong} thing{'s' * (wrong != 1)} to mend" if wrong else "\neverything is in place")
    return 1 if wrong else 0
