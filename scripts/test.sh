#!/usr/bin/env bash
# Install the package with its development tools, if they are not there yet, and run the checks:
# ruff, mypy and the quick tests. All run even if one fails; the exit status is 0 only if all passed.
#
#     bash scripts/test.sh [--all] [arguments of pytest, seen from the repository root]
#
# --all runs the slow tests, too, and builds the documentation. Needs what demo.sh needs and shares
# its environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

all=no
arguments=()
for argument in "$@"; do
    if [ "$argument" = --all ]; then all=yes; else arguments+=("$argument"); fi
done
if [ "$all" = no ]; then arguments=(-m "not slow" ${arguments[@]+"${arguments[@]}"}); fi

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
if [ "$all" = yes ]; then
    export NO_MKDOCS_2_WARNING=1
    check "mkdocs build" "$VENV_PYTHON" -m mkdocs build --strict --quiet --clean
fi
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive nnUNet_def_n_proc=1 # a process for each core, each with a thread
check "pytest" "$VENV_PYTHON" -m pytest -q -n auto --durations=15 ${arguments[@]+"${arguments[@]}"}

if [ -n "$failed" ]; then die "failed: $failed"; fi
say "all checks passed"
if [ "$all" = no ]; then say "the slow tests were left out: --all runs them, too"; fi
