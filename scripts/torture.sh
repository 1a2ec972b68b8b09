#!/usr/bin/env bash
# Inject every fault that the reliability page promises to survive, and say how many there were and
# what was lost: bad inputs, hostile models, kills, lost processes, lost nodes, full disks. The exit
# status is 0 only if nothing was lost.
#
#     bash scripts/torture.sh [--kills N]
#
# N kills at random moments (default: 40), beside the tests. Takes about half an hour on two cores.
# Needs what demo.sh needs and shares its environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kills=40
if [ "${1:-}" = --kills ]; then kills="$2"; fi

prepare_environment dev
cd "$REPOSITORY"
export OMP_NUM_THREADS=1 nnUNet_def_n_proc=1 nnUNet_compile=f

faults=(
    tests/end_to_end                        # bad inputs, full and lost disks, kills, several processes
    tests/cli/test_main.py                  # mistakes, interrupts, closed disks and outputs
    tests/data/test_image_files.py          # broken files of every format
    tests/data/test_preprocessing.py        # killed workers
    tests/data/test_unlabelled_shards.py    # killed shards
    tests/data/test_domain_check.py         # images of another world
    tests/deploy/test_descriptions.py       # plans that name programs
    tests/deploy/test_install.py            # hostile zips
    tests/deploy/test_trained.py            # hostile checkpoints
    tests/pseudo_labels/test_label.py       # lost nodes of a cluster
    tests/pseudo_labels/test_pool.py        # kills while a pool is labelled
    tests/runs/test_crossval.py             # interrupted cross-validation
    tests/runs/test_tether.py               # children of a killed parent
    tests/runs/test_process_group.py        # a process of two machines
    tests/training/test_checkpoints.py      # damaged and hostile checkpoints
    tests/training/test_companions.py       # checkpoints without a teacher
    tests/training/test_interruptions.py    # full memory, killed loaders, a machine that is taken away
    tests/training/test_non_finite.py       # losses that are no numbers
    tests/training/test_one_launch.py       # two launches of one fold
    tests/util/test_files.py                # full disks
)

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
# count WORD: the number before the word in the last line of the log that has it; 0 without one.
count() { grep -oE "[0-9]+ $1" "$log" | tail -1 | grep -oE '^[0-9]+' || echo 0; }

say "injecting faults: the tests"
"$VENV_PYTHON" -m pytest -q -n auto "${faults[@]}" 2>&1 | tee "$log" || true
survived=$(count passed)
lost=$(($(count failed) + $(count error)))
say "injecting faults: $kills kills at random moments"
"$VENV_PYTHON" scripts/kill_lottery.py --kills "$kills" 2>&1 | tee "$log" || true
killed=$(count kills) # the last line has those of all scenarios
lost_by_kills=$(($(count losses) + (killed < kills ? kills - killed : 0)))
say "$((survived + lost + kills)) faults injected, $((survived + kills - lost_by_kills)) survived," \
    "$((lost + lost_by_kills)) lost"
if [ "$survived" = 0 ] || [ $((lost + lost_by_kills)) != 0 ]; then exit 1; fi
