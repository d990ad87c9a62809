"""gm_jax: the classic generative models in JAX and Flax, resumable bit for bit."""
