#!/usr/bin/env bash
# Run a config over the product of some keys' values, then draw the family; start it again to continue:
#   launch/sweep.sh --config=configs/vae_mnist.py --sweep model.latent_dim=2,4,8,16,32,64 [--sweep seed=0,1,2]
#                   [--config.any.key=value ...] [--workdir=runs/NAME_sweep] [--mode=...] [--jobs=2] [--shard=0/4]
# --jobs=2 trains two members at once, each on half of the CPU cores (with one GPU leave it at 1).
# A cluster's array job runs one share in each of its tasks; the last to finish draws the family:
#   sbatch --array=0-5 --wrap 'launch/sweep.sh ... --shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT'
source "$(dirname "$0")/environment.sh"
install runtime requirements.txt
GM_JAX_COMMAND="$0" exec .venv/bin/python -m gm_jax.sweep "$@"
