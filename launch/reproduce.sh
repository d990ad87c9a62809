#!/usr/bin/env bash
# Run what the reports' rows still lack, cheapest first, and build the pages; start it again to continue:
#   launch/reproduce.sh [--rows=W1,H1] [--budget=90] [--device=cpu|gpu] [--seeds=3] [--dry_run] [--runs=runs] [--out=report]
# The budget is in minutes. Data are looked for in $TFDS_DATA_DIR, then ~/tensorflow_datasets; MNIST is downloaded.
source "$(dirname "$0")/environment.sh"
install runtime requirements.txt
GM_JAX_COMMAND="$0" exec .venv/bin/python -m gm_jax.reproduce "$@"
