"""From finished runs to pages: `python -m gm_jax.report runs --out=report`. Nothing here imports JAX."""
