#!/usr/bin/env bash
# Makes .venv from a Python 3.10, wherever this machine has one, and installs requirements into it.
#
#   .ci/setup_venv.sh FILE...   make .venv hold these requirement files; no work when it does already
#   .ci/setup_venv.sh --find    print the interpreter that .venv would be made from, and stop
#
# VENV, PYTHON_VERSION and MODULES, if set, name another environment, its Python and what it must load;
# TAKES says what to expect of the installation.
#
# An interpreter counts only if it runs: pyenv may put a `python3.10` on PATH that ends with "command
# not found". Where there is none, uv or conda is asked to fetch one. No failure hangs: each program
# that is tried has a time limit (where the machine has `timeout`).
set -eu
shopt -s nullglob
cd "${BASH_SOURCE[0]%/*}/.."
HOME=${HOME:-~} # services and containers may run without it; bash asks the system then

readonly venv=${VENV:-.venv}
readonly version=${PYTHON_VERSION:-3.10}
readonly modules=${MODULES:-matplotlib.pyplot, nnabla.parametric_functions, pandas, scipy.stats, sklearn.datasets}
readonly takes=${TAKES:-half a minute to a minute}
readonly installed=$venv/.installed # copies of the requirement files that .venv holds, written last
readonly pip_release=26.3           # resolves and unpacks in half the time that Python 3.10's own pip takes
readonly conda_env=python$version
readonly told_every=5               # seconds between lines on what pip does
readonly fitting="
import sys, venv, ensurepip
sys.exit(sys.implementation.name != 'cpython' or '%d.%d' % sys.version_info[:2] != '$version')"

say() { printf 'setup: %s\n' "$1"; }

fail() {
    say "$1" >&2
    exit 1
}

within() { # within SECONDS COMMAND...
    if command -v timeout >/dev/null; then timeout --foreground "$@"; else "${@:2}"; fi
}

fits() { # fits PYTHON: it runs, is CPython of that version and can make a virtual environment
    within 20 "$1" -I -c "$fitting" </dev/null >/dev/null 2>&1
}

first_fitting() { # print the first fitting one of the paths on standard input
    local python
    while IFS= read -r python; do
        if fits "$python"; then
            printf '%s\n' "$python"
            return
        fi
    done
    return 1
}

on_path() { type -aP "python$version" python3 python; }

of_pyenv_and_uv() {
    local data=${XDG_DATA_HOME:-$HOME/.local/share}
    printf '%s\n' {"${PYENV_ROOT:-}","$HOME/.pyenv"}/versions/*/bin/python"$version" \
        "${UV_PYTHON_INSTALL_DIR:-$data/uv/python}"/*/bin/python"$version"
    if command -v uv >/dev/null; then # only its own: `uv python find` gives up at a broken shim
        UV_PYTHON_PREFERENCE=only-managed UV_PYTHON_DOWNLOADS=never within 20 uv python find "$version" 2>/dev/null
    fi
}

conda_program() { type -P "${CONDA_EXE:-conda}"; }

of_conda() { # the base environment and its named ones, then every one that conda keeps a record of
    local conda prefix record=$HOME/.conda/environments.txt
    if conda=$(conda_program); then
        printf '%s\n' "${conda%/*/*}"/{,envs/*/}bin/python"$version"
    fi
    [ -f "$record" ] || return 0
    while IFS= read -r prefix; do
        printf '%s\n' "$prefix/bin/python$version"
    done <"$record"
}

fetched_by_uv() {
    command -v uv >/dev/null && within 180 uv python install "$version" >/dev/null 2>&1 && of_pyenv_and_uv
}

fetched_by_conda() {
    local conda
    conda=$(conda_program) &&
        within 600 "$conda" create -y -q -n "$conda_env" python="$version" </dev/null >/dev/null 2>&1 && of_conda
}

find_python() {
    on_path | first_fitting || of_pyenv_and_uv | first_fitting || of_conda | first_fitting ||
        fetched_by_uv | first_fitting || fetched_by_conda | first_fitting ||
        fail "no Python $version that runs and has venv, neither on PATH nor from pyenv, uv or conda; get one with \
'pip install uv && uv python install $version', 'pyenv install $version' or 'conda create -n $conda_env python=$version' \
and run make again"
}

up_to_date() { # up_to_date FILE...
    local file
    for file in "$@"; do
        cmp -s "$file" "$installed/${file##*/}" || return 1
    done
    fits "$venv/bin/python"
}

new_venv() {
    local python
    rm -rf "$venv"
    python=$(find_python)
    say "making $venv with $python"
    "$python" -I -m venv "$venv"
    say "getting pip $pip_release"
    pip_install "pip==$pip_release" 2>/dev/null || say "going on with Python's own, slower pip"
}

# Without --no-compile pip compiles every module of every package; Python compiles those it imports.
pip_install() {
    PIP_ROOT_USER_ACTION=ignore "$venv/bin/python" -m pip install --no-compile --progress-bar off \
        --disable-pip-version-check "$@" 2>&1 | tell
    return "${PIPESTATUS[0]}"
}

tell() { # a line every few seconds on what pip does, from what it prints; its errors as they are
    local line status names doing="asking for the packages" n=0 failed='' start=$SECONDS told=$SECONDS
    while :; do
        status=0
        IFS= read -r -t 1 line || status=$?
        if ((status == 0)); then
            case $line in
            Collecting\ * | Processing\ *) # a file, or "name (from -r requirements.txt ...)"
                n=$((n + 1)) line=${line#* } line=${line%% (*}
                doing="package $n: ${line##*/}"
                ;;
            Installing\ collected*)
                IFS=', ' read -r -a names <<<"${line#*: }"
                doing="unpacking ${#names[@]} packages"
                ;;
            ERROR* | error*) failed=yes ;;
            esac
            if [ -n "$failed" ]; then printf '%s\n' "$line" >&2; fi
        elif ((status <= 128)); then # not the time limit: the end
            return 0
        fi
        if ((SECONDS - told >= told_every)); then
            say "  $doing ($((SECONDS - start)) s)"
            told=$SECONDS
        fi
    done
}

check_imports() { # ... which also compiles them and lets matplotlib list the fonts, once
    local output
    output=$("$venv/bin/python" -c "import $modules" 2>&1) ||
        fail "the packages are installed but do not load: $output"
}

record_installed() { # record_installed FILE...
    mkdir "$installed.new"
    cp "$@" "$installed.new"
    mv "$installed.new" "$installed"
}

set_up() { # set_up FILE...
    if up_to_date "$@"; then return; fi
    if ! { [ -d "$installed" ] && fits "$venv/bin/python"; }; then new_venv; fi
    rm -rf "$installed" "$installed.new"
    say "installing $* ($takes)"
    pip_install "${@/#/-r}" || fail "pip could not install $*; fix what it reports above and run make again"
    say "loading the packages once, which compiles them (some seconds)"
    check_imports
    record_installed "$@"
}

if [ "${1:-}" = --find ]; then find_python; else set_up "$@"; fi
