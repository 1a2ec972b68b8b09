#!/usr/bin/env bash
# Install the package with what its documentation needs, if it is not there yet, and build the site.
#
#     bash scripts/docs.sh              writes the generated pages and the figure anew, builds site/
#     bash scripts/docs.sh --serve      shows the site on this machine, and again when a page changes
#
# Warnings are errors. Needs what demo.sh needs and shares its environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare_environment docs
cd "$REPOSITORY"
export NO_MKDOCS_2_WARNING=1

"$VENV_PYTHON" docs/generate_settings.py
"$VENV_PYTHON" docs/generate_commands.py
"$VENV_PYTHON" docs/figures/make_layers.py
if [ "${1:-}" = --serve ]; then
    exec "$VENV_PYTHON" -m mkdocs serve
fi
"$VENV_PYTHON" -m mkdocs build --strict --clean "$@"
say "the site is in $REPOSITORY/site: open site/index.html"
