"""A mixture of Gaussians on principal components: the oldest way to draw new images."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.tasks.baseline import Baseline
from gm_jax.tasks.task import DataSpec

LEVELS = 256  # of a pixel
DEQUANTISATION = 1.0 / (12 * LEVELS**2)  # variance of noise that is uniform over one level


class GaussianMixture(Baseline):
    """p(x) = sum_k p(k) N(x; m + W mu_k, W Sigma_k W^T + s (I - W W^T)), pixels x from 0 to 1, W orthonormal [D, d].

    A mixture on d principal components, and around their plane the noise of probabilistic PCA (Tipping & Bishop 1999),
    of variance s: so p is a density of the whole image. An 8-bit image x has the probability of its cell, which uniform
    dequantisation bounds: log P(x) >= E_u log p((x + u) / 256) - D log 256 (Theis et al. 2016).
    """

    units = {  # noqa: RUF012  (never changed)
        "log_likelihood": "nats per image of 8-bit pixels, a lower bound (uniform dequantisation)",
        "bits_per_dimension": "bits per 8-bit pixel and channel, an upper bound (uniform dequantisation)",
    }

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.components, self.dimensions = config.model.components, config.model.dimensions
        self.pixels = int(np.prod(spec.image_shape))
        if self.dimensions >= self.pixels:
            raise UserError(f"model.dimensions={self.dimensions} is not in 1 ... {self.pixels - 1}, the pixels less 1")

    def check_data(self, split, data):
        needed = max(self.components, self.dimensions + 1)
        if split == self.config.dataset.split and len(data["image"]) < needed:
            raise UserError(
                f"{len(data['image'])} training images are too few for model.components={self.components} and "
                f"model.dimensions={self.dimensions}: {needed} are the least"
            )

    def shapes(self):
        K, d = self.components, self.dimensions
        mixture = {"weights": (K,), "centres": (K, d), "cholesky": (K, d, d)}
        return {**mixture, "mean": (self.pixels,), "axes": (d, self.pixels), "noise": ()}

    def estimate(self, data):
        """Fit the principal components in closed form and the mixture by EM, which k-means starts."""
        from sklearn import mixture  # takes time to import
        from sklearn.decomposition import PCA

        x = (data["image"].reshape(len(data["image"]), -1).astype(np.float32) + 0.5) / LEVELS  # the cells' middles
        seed = self.config.seed
        pca = PCA(self.dimensions, random_state=seed).fit(x)
        z = pca.transform(x)  # float32, which halves the time that EM takes
        model = mixture.GaussianMixture(
            self.components,
            tol=self.config.model.tolerance,
            max_iter=self.config.model.iterations,
            reg_covar=DEQUANTISATION,
            random_state=seed,
        ).fit(z)
        # Heaviest first, so that a figure can show the first of them.
        order = np.argsort(-model.weights_, kind="stable")
        left = np.sum(np.var(x, axis=0, dtype=np.float64)) - np.sum(np.var(z, axis=0, dtype=np.float64))
        return {
            "weights": model.weights_[order],
            "centres": model.means_[order],
            "cholesky": np.linalg.cholesky(model.covariances_[order]),
            "mean": pca.mean_,
            "axes": pca.components_,
            "noise": left / (self.pixels - self.dimensions) + DEQUANTISATION,
        }

    def log_joint(self, arrays, batch, keys):
        images = batch["image"].reshape(len(batch["image"]), -1).astype(jnp.float32)
        x = (images + random.uniform(keys, (self.pixels,))) / LEVELS - arrays["mean"]
        z = x @ arrays["axes"].T
        rest, noise = x - z @ arrays["axes"], arrays["noise"]
        log_noise = (self.pixels - self.dimensions) * jnp.log(2 * jnp.pi * noise)
        around = -0.5 * (jnp.sum(rest**2, -1) / noise + log_noise)
        difference = z[None] - arrays["centres"][:, None]  # [K, B, d]
        standard = jax.scipy.linalg.solve_triangular(arrays["cholesky"], difference.mT, lower=True)
        log_scale = jnp.sum(jnp.log(jnp.diagonal(arrays["cholesky"], axis1=1, axis2=2)), -1)  # half the log-determinant
        within = -0.5 * jnp.sum(standard**2, 1) - log_scale[:, None] - 0.5 * self.dimensions * jnp.log(2 * jnp.pi)
        return jnp.log(arrays["weights"]) + within.T + around[:, None] - self.pixels * jnp.log(LEVELS)

    def draw(self, arrays, k, keys):
        """Draw z given k; the image is the mean of x given z, as a VAE shows its decoder's mean."""
        noise = random.normal(keys, (self.dimensions,))
        return self.image(arrays, arrays["centres"][k] + jnp.einsum("bij,bj->bi", arrays["cholesky"][k], noise))

    def image(self, arrays, z):
        """Map principal components [N, d] to images uint8 [N, H, W, C], clipped."""
        x = arrays["mean"] + z @ arrays["axes"]
        return jnp.clip(jnp.floor(LEVELS * x), 0, LEVELS - 1).astype(jnp.uint8).reshape(-1, *self.spec.image_shape)

    def means(self, arrays):
        return self.image(arrays, arrays["centres"])

    def names(self, weights):
        return [f"{weight:.1%}" for weight in weights]
