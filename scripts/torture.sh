#!/usr/bin/env bash
# Inject every fault that the reliability page promises to survive, and print a table of how many
# were injected, survived and lost: bad inputs, hostile models, damaged files of every kind, kills at
# random moments, lost processes and nodes, full disks. The exit status is 0 only if nothing was lost.
#
#     bash scripts/torture.sh [--kills N] [--rounds N] [--seed N] [--only WORD ...]
#
# --kills: at random moments (default: 60). --rounds: random damages of each kind of file
# (default: 3). --seed: of all of them (default: another one each time, which is printed).
# --only: the rows whose name has one of the words. Takes about an hour on two cores.
# Needs what demo.sh needs and shares its environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare_environment dev
cd "$REPOSITORY"
export OMP_NUM_THREADS=1 nnUNet_def_n_proc=1 nnUNet_compile=f
exec "$VENV_PYTHON" scripts/torture.py "$@"
