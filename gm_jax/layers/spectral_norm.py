"""Spectral normalisation (Miyato et al. 2018): layers that stretch no input by more than a factor of 1."""

import flax.linen as nn
import jax
import jax.numpy as jnp

COLLECTION = "spectral"  # of the vectors that the power iteration carries from step to step


def power_iteration(matrix: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step towards the largest singular value of a matrix [inputs, outputs]: (sigma, the next u [outputs]).

    sigma = v^T W u is differentiable in W with the two vectors held fixed, which for singular vectors is exact.
    """
    fixed = jax.lax.stop_gradient(matrix)
    v = unit(fixed @ u)
    u = unit(v @ fixed)
    return v @ matrix @ u, u


def unit(x: jax.Array) -> jax.Array:
    """A vector scaled to length 1."""
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class SpectralNorm(nn.Module):
    """Run a layer with its kernel divided by the kernel's largest singular value.

    A kernel of a convolution [kh, kw, in, out] counts as the matrix [kh kw in, out]. Every call in training is one step
    of the power iteration, as in the authors' code.
    """

    layer: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def normalised(variables):
            kernel = variables["params"]["kernel"]
            outputs = kernel.shape[-1]
            u = self.variable(COLLECTION, "u", lambda: unit(jax.random.normal(self.make_rng("params"), (outputs,))))
            sigma, following = power_iteration(kernel.reshape(-1, outputs), u.value)
            if train:
                u.value = following
            return {"params": {**variables["params"], "kernel": kernel / jnp.maximum(sigma, 1e-12)}}

        run = nn.map_variables(
            lambda layer: layer(x), trans_in_fn=normalised, init=self.is_initializing(), mutable=True
        )
        return run(self.layer)
