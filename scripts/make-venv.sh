#!/bin/sh
# Makes .venv from constraints.txt and installs Maquette into it, editable.
#
#   scripts/make-venv.sh [EXTRA...]        e.g. scripts/make-venv.sh dev train
#
# PYTHON       the interpreter to use (default: python3.11, else python3)
# TORCH_INDEX  package index for torch. Default: on Linux without an NVIDIA driver PyTorch's own index of
#              CPU wheels (0.2 GB instead of the 3 GB of CUDA packages that PyPI's wheel asks for), unless
#              pip is configured for an index of its own. Set it to "none" for plain PyPI.
set -eu
cd "$(dirname "$0")/.."

python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=python3
    if command -v python3.11 >/dev/null 2>&1 && python3.11 -c '' >/dev/null 2>&1; then python=python3.11; fi
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Maquette needs Python 3.11 or newer; $python is $("$python" --version 2>&1)." >&2
    echo "Set PYTHON=/path/to/python3.11 and run make again." >&2
    exit 1
}
if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv || {
        echo "Python's venv module is missing. On Debian or Ubuntu: sudo apt-get install python3.11-venv" >&2
        exit 1
    }
fi

index="${TORCH_INDEX:-auto}"
if [ "$index" = auto ]; then
    index=none
    if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 &&
        ! .venv/bin/python -m pip config list | grep -Eq 'index-url|find-links|no-index'; then
        index=https://download.pytorch.org/whl/cpu
    fi
fi
extras=$(echo "$@" | tr ' ' ',')
set -- -c constraints.txt -e ".${extras:+[$extras]}"
if [ "$index" != none ]; then
    # Only torch may come from there: two indexes with equal rights would let either name any package.
    .venv/bin/python -m pip install --quiet --retries 1 --timeout 20 --index-url "$index" --no-deps "$(grep '^torch==' constraints.txt)" ||
        echo "No torch from $index; taking it from the default index." >&2
fi
.venv/bin/python -m pip install --quiet "$@"
