#!/usr/bin/env bash
# The paper's tables on EMOTIC: bash scripts/eval_emotic.sh [DATA] [CHECKPOINTS...] [--train]   (--help for the rest)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$here/.venv/bin/python"
[ -x "$python" ] || python=python3
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m cocoer tables --dataset emotic "$@"
