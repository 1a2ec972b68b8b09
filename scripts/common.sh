# Sourced by demo.sh and test.sh: find a Python, make the virtual environment, install the package.
#
# Variables: PYTHON            the Python to make the environment with (default: the first that fits)
#            SEMI_NNUNET_VENV  where the environment lies (default: .venv in the repository)
# After prepare_environment, "$VENV_PYTHON" runs the environment's Python.

unset CDPATH # with it, cd may go elsewhere and prints where
REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="${SEMI_NNUNET_VENV:-$REPOSITORY/.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
VENV_PYTHON="$VENV/bin/python"

# Line 1: what the installation was made from; line 2: its extras. There only after a complete one.
STAMP="$VENV/.semi_nnunet_stamp"
# There if we made the environment, so that we may make it anew; one brought by the user is kept.
CREATED="$VENV/.semi_nnunet_created"
PIP_LOG="$VENV/.semi_nnunet_pip.log"

say() { printf '[semi_nnunet] %s\n' "$*" >&2; }

die() {
    printf '[semi_nnunet] ERROR: %s\n' "$*" >&2
    exit 1
}

# Bash goes on after Ctrl-C if the interrupted program ended in its own way, as pip does.
trap 'say "interrupted: run again to go on"; exit 130' INT

is_recent_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' </dev/null >/dev/null 2>&1
}

# Debian splits ensurepip off into python3-venv.
can_make_venvs() { "$1" -c 'import venv, ensurepip' </dev/null >/dev/null 2>&1; }

# Print the Python to use. A candidate has to run: version managers leave commands that only fail.
choose_python() {
    local candidate without_venv=""
    if [ -n "${PYTHON:-}" ]; then
        is_recent_python "$PYTHON" || die "PYTHON must be a Python >= 3.10 that runs, got '$PYTHON':" \
            "set PYTHON to another, or unset it to have one chosen"
        can_make_venvs "$PYTHON" || die "PYTHON must have the modules venv and ensurepip, got" \
            "'$PYTHON': on Debian or Ubuntu run 'apt install python3-venv'"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        is_recent_python "$candidate" || continue
        if can_make_venvs "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        without_venv="$without_venv $candidate"
    done
    if [ -n "$without_venv" ]; then
        die "found$without_venv, but without the modules venv and ensurepip:" \
            "on Debian or Ubuntu run 'apt install python3-venv'"
    fi
    die "no Python >= 3.10 found: install one, or name it: PYTHON=/path/to/python bash $0"
}

has_pip() { "$VENV_PYTHON" -m pip --version </dev/null >/dev/null 2>&1; }

imports_work() { "$VENV_PYTHON" -c 'import nnunetv2, torch' </dev/null >/dev/null 2>&1; }

# An installation that ended while pip was writing packages: pip can take half a package for a whole.
was_cut_short() {
    [ ! -e "$STAMP" ] && [ -e "$PIP_LOG" ] &&
        grep -Eq '^[^ ]+ Installing collected packages' "$PIP_LOG"
}

# An environment, an unfinished one, or no files at all: never somebody's other folder.
may_be_cleared() {
    [ -e "$CREATED" ] || [ -e "$VENV/pyvenv.cfg" ] || [ ! -e "$VENV" ] ||
        { [ -d "$VENV" ] && [ -z "$(find "$VENV" -type f -print | head -n 1)" ]; }
}

create_environment() {
    local python
    may_be_cleared || die "SEMI_NNUNET_VENV must be a virtual environment or a new folder, got" \
        "'$VENV', which holds other files: set SEMI_NNUNET_VENV to another folder"
    python="$(choose_python)"
    say "making the virtual environment $VENV with $python ($("$python" --version 2>&1))"
    "$python" -m venv --clear "$VENV" || die "'$python -m venv' failed: see the lines above." \
        "Is the disk full? Else, on Debian or Ubuntu, run 'apt install python3-venv'"
    has_pip || die "'$python -m venv' made an environment without pip:" \
        "on Debian or Ubuntu run 'apt install python3-venv'"
    touch "$CREATED"
}

# What an installation depends on besides its extras.
installation_key() {
    "$VENV_PYTHON" - "$REPOSITORY" "$VENV" <<'PYTHON'
import hashlib, pathlib, sys

repository, venv = sys.argv[1:]
parts = [
    (pathlib.Path(repository) / name).read_text(encoding="utf-8")
    for name in ("pyproject.toml", "setup.py")
]
parts += [sys.version, repository, venv]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PYTHON
}

# Extras of two comma-separated lists in one.
join_extras() {
    printf '%s\n' "$1" "$2" | tr ',' '\n' | sed '/^$/d' | sort -u | paste -s -d ',' -
}

free_space() { df -Pk "$1" | awk 'NR == 2 { printf "%.1f GB free in %s", $4 / 1e6, $6 }'; }

install_package() {
    local key="$1" extras="$2" works="$3" spec="."
    if [ -n "$extras" ]; then spec=".[$extras]"; fi
    if [ "$works" = yes ]; then
        say "bringing the installation in $VENV up to date ($spec)"
    else
        say "installing (about 6 GB with CUDA libraries, several minutes the first time);" \
            "$(free_space "$VENV")"
    fi
    rm -f "$STAMP" "$PIP_LOG"
    if ! (cd "$REPOSITORY" && "$VENV_PYTHON" -m pip install --disable-pip-version-check --no-input \
        --log "$PIP_LOG" --editable "$spec" </dev/null); then
        if grep -Eiq 'no space left|disk quota exceeded' "$PIP_LOG" 2>/dev/null; then
            die "the disk is full ($(free_space "$VENV"); pip also uses ${TMPDIR:-/tmp} and its cache):" \
                "free some space, or set SEMI_NNUNET_VENV and TMPDIR to another disk, and run again"
        fi
        die "pip failed: see the lines above ($(free_space "$VENV")). Run again to try again"
    fi
    imports_work || die "pip succeeded, but 'import nnunetv2, torch' fails in $VENV:" \
        "delete the folder and run again"
    printf '%s\n' "$key" "$extras" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    rm -f "$PIP_LOG" # tens of megabytes
    say "installed in $VENV"
}

# A working pip in the environment, made anew where needed.
repair_environment() {
    if [ ! -e "$VENV" ]; then
        create_environment
    elif has_pip; then
        if [ -e "$CREATED" ] && was_cut_short; then
            say "the last installation in $VENV was cut short: it is made anew"
            create_environment
        fi
    elif [ ! -e "$CREATED" ] && "$VENV_PYTHON" -m ensurepip </dev/null >/dev/null 2>&1 && has_pip; then
        say "added pip to $VENV" # some tools make environments without it
    else
        if may_be_cleared; then say "$VENV has no working pip: it is made anew"; fi
        create_environment
    fi
}

# prepare_environment [extras]: what is there is used again, what is missing or broken is repaired.
# Extras of earlier installations stay, so that demo.sh and test.sh can share an environment.
prepare_environment() {
    local wanted="${1:-}" key="" known="" present="" works=no
    repair_environment
    is_recent_python "$VENV_PYTHON" || die "the environment's Python must be >= 3.10, got" \
        "$("$VENV_PYTHON" --version 2>&1) in $VENV: delete the folder and run again"

    if [ -e "$STAMP" ]; then
        known="$(sed -n 1p "$STAMP")"
        present="$(sed -n 2p "$STAMP")"
        if imports_work; then
            works=yes
        elif [ -e "$CREATED" ]; then
            say "'import nnunetv2, torch' fails in $VENV: it is made anew"
            create_environment
        fi
    fi
    key="$(installation_key)"
    wanted="$(join_extras "$present" "$wanted")"
    if [ "$works" = yes ] && [ "$known" = "$key" ] && [ "$present" = "$wanted" ]; then
        say "using $VENV"
    else
        install_package "$key" "$wanted" "$works"
    fi
}
