# shellcheck shell=bash
# Sourced by the other scripts: makes .venv beside the code and installs the requirements, once and again when they change.
# With an NVIDIA GPU that answers (nvidia-smi) it takes requirements.txt as it is (CUDA); else the same set with plain jax.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "gm_jax needs Python 3.11 or newer, and $python is $("$python" -V): name another with PYTHON=..." >&2
    exit 2
}
if nvidia-smi >/dev/null 2>&1; then kind=cuda; else kind=cpu; fi

# install NAME FILE...: pip install the files into .venv unless that was done with the same content before; with the
# versions of constraints.txt where `locked` is set.
locked=""
install() {
    local name="$1" stamp
    shift
    stamp="$kind $(cat "$@" ${locked:+constraints.txt} | sha256sum)"
    [ "$(cat ".venv/.$name" 2>/dev/null)" = "$stamp" ] && return
    local started=$SECONDS
    echo "installing $* into .venv ($kind) ..."
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    if [ "$kind" = cuda ]; then cat "$@"; else cat "$@" | sed 's/^jax\[cuda12\]/jax/'; fi >".venv/$name.txt"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check ${locked:+--constraint constraints.txt} \
        -r ".venv/$name.txt"
    echo "$stamp" >".venv/.$name"
    echo "installed in $((SECONDS - started)) s"
}
