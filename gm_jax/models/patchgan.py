"""PatchGAN (Isola et al. 2017): a discriminator that judges every patch of an image by itself."""

import flax.linen as nn
import jax

from gm_jax.layers.conv import Conv
from gm_jax.layers.norm import instance_norm

SPREAD = nn.initializers.normal(0.02)


class PatchGAN(nn.Module):
    """Images in [-1, 1] to a logit for each patch: of 70 pixels with three halvings, 34 with two, 16 with one.

    Instance norm after every convolution but the first and the last, leaky ReLU 0.2 after all but the last; channels
    double up to eight widths.
    """

    width: int = 64
    halvings: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, h, w]."""
        for i in range(self.halvings + 1):
            features, stride = self.width * min(2**i, 8), 2 if i < self.halvings else 1
            x = Conv(features, 4, stride, padding=1, kernel_init=SPREAD, name=f"conv{i}")(x)
            x = nn.leaky_relu(instance_norm(x) if i else x, 0.2)
        return Conv(1, 4, padding=1, kernel_init=SPREAD, name="head")(x)[..., 0]
