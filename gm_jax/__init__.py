"""gm_jax: the classic generative models in JAX and Flax, resumable bit for bit."""

__version__ = "0.2.0"
