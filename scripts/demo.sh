#!/usr/bin/env bash
# Install the package in a virtual environment, if it is not there yet, and run its demo.
#
#     bash scripts/demo.sh [arguments of `semi_nnunet demo`]
#
# Needs bash, Python >= 3.10 and, the first time, the network. The environment is .venv in the
# repository, or $SEMI_NNUNET_VENV; $PYTHON names the Python to make it with.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare_environment
say "running: semi_nnunet demo $*"
"$VENV/bin/semi_nnunet" demo "$@"
