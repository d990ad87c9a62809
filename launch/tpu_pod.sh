#!/usr/bin/env bash
# Train on all workers of a Cloud TPU slice; its service account must be allowed to read and write the bucket:
#   launch/tpu_pod.sh NAME ZONE BUCKET --config=configs/ddpm_cifar10.py [any flag of gm_jax.main]
# Copies this code to the workers, mounts the bucket (runs and data lie in it), and starts one process on each; JAX
# finds the others by itself. Start it again to go on after a preemption.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$#" -ge 4 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
name="$1" zone="$2" bucket="$3"
shift 3

run() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }

archive="$(mktemp)"
trap 'rm -f "$archive"' EXIT
tar --create --gzip --file="$archive" --exclude=.git --exclude=.venv --exclude=runs .
gcloud compute tpus tpu-vm scp "$archive" "$name:gm_jax.tar.gz" --zone="$zone" --worker=all
run "set -e; mkdir -p gm_jax storage; tar --extract --gzip --file=gm_jax.tar.gz --directory=gm_jax
    mountpoint -q storage || gcsfuse --implicit-dirs '$bucket' storage
    cd gm_jax; [ -x .venv/bin/python ] || python3 -m venv .venv
    sed 's/^jax\[cuda12\]/jax[tpu]/' requirements.txt >.venv/tpu.txt; .venv/bin/pip install --quiet -r .venv/tpu.txt"
run "cd gm_jax; export TFDS_DATA_DIR=\$HOME/storage/data; exec .venv/bin/python -m gm_jax.main \
    --workdir=\$HOME/storage/runs/$name $(printf '%q ' "$@")"
