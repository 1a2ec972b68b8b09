#!/usr/bin/env bash
# Install the package with its development tools, if they are not there yet, and run all checks:
# ruff, mypy, pytest. All run even if one fails; the exit status is 0 only if all passed.
#
#     bash scripts/test.sh [arguments of pytest, seen from the repository root]
#
# Needs what demo.sh needs and shares its environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare_environment dev
cd "$REPOSITORY"

failed=""
# check NAME COMMAND...: run the command, remember the name if it fails.
check() {
    local name="$1"
    shift
    say "running: $name"
    "$@" || failed="${failed:+$failed, }$name"
}

check "ruff check" "$VENV_PYTHON" -m ruff check .
check "ruff format --check" "$VENV_PYTHON" -m ruff format --check .
check "mypy" "$VENV_PYTHON" -m mypy
export OMP_NUM_THREADS=1 # a process for each core, each with a thread
check "pytest" "$VENV_PYTHON" -m pytest -q -n auto --durations=15 "$@"

if [ -n "$failed" ]; then die "failed: $failed"; fi
say "all checks passed"
