#!/usr/bin/env bash
# Run gm_jax on this machine, fresh or not:  launch/local.sh --config=configs/ddpm_mnist.py [any flag of gm_jax.main]
# With --locked first: in the exact versions of constraints.txt, with which the results were made.
source "$(dirname "$0")/environment.sh"
if [ "${1:-}" = --locked ]; then
    locked=yes
    shift
fi
install runtime requirements.txt
GM_JAX_COMMAND="$0" exec .venv/bin/python -m gm_jax.main "$@"
