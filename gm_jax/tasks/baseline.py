"""Classic baselines, fitted instead of trained: p(x) = sum_k p(k) p(x | k), a choice k and then an image given k."""

import abc

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.figures.grid import save_labelled_grid
from gm_jax.stages import Batch
from gm_jax.state import Variables
from gm_jax.tasks.task import Task, Trained

NET = "density"
MEANS = 60  # in their figure at most


class Baseline(Task):
    """A density whose arrays scikit-learn estimates (`fit`); no phase trains them, JAX evaluates and samples them."""

    monitor = ("log_likelihood", "max")

    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the fitted arrays; "weights" [K] is p(k)."""

    @abc.abstractmethod
    def estimate(self, data: Batch) -> dict[str, np.ndarray]:
        """Return the arrays that fit the training split best."""

    @abc.abstractmethod
    def log_joint(self, arrays: dict[str, jax.Array], batch: Batch, keys: jax.Array) -> jax.Array:
        """Return log p(k, x) in nats [B, K] of the images in a batch; noise comes from `keys` [B]."""

    @abc.abstractmethod
    def draw(self, arrays: dict[str, jax.Array], k: jax.Array, keys: jax.Array) -> jax.Array:
        """Draw images uint8 [B, H, W, C] from p(x | k), k int32 [B], with `keys` [B]."""

    @abc.abstractmethod
    def means(self, arrays: dict[str, jax.Array]) -> jax.Array:
        """Return the mean of p(x | k) as images uint8 [K, H, W, C]."""

    @abc.abstractmethod
    def names(self, weights: np.ndarray) -> list[str]:
        """Return what is written below the mean of each k."""

    def init(self, key):
        return {NET: {"params": {name: jnp.zeros(shape) for name, shape in self.shapes().items()}}}

    def fit(self, training):
        return {NET: {name: np.asarray(array, np.float32) for name, array in self.estimate(training()).items()}}

    def phases(self, stage=0):
        return []

    def validate(self, variables, batch, keys):
        return self.measure(self.log_joint(variables.params[NET], batch, keys))

    def measure(self, joint: jax.Array) -> dict[str, jax.Array]:
        """Return log p(x) from log p(k, x) [B, K], and the same in bits per dimension."""
        log_likelihood = jax.nn.logsumexp(joint, -1)
        bits = -log_likelihood / (np.prod(self.spec.image_shape) * np.log(2.0))
        return {"log_likelihood": log_likelihood, "bits_per_dimension": bits}

    def draw_with_choice(self, variables: Variables, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return images and the k int32 [B] that each was drawn with."""
        arrays = variables.params[NET]
        u = random.uniform(random.fold_in(keys, 0))
        k = jnp.sum(u[:, None] >= jnp.cumsum(arrays["weights"])[:-1], -1)
        return self.draw(arrays, k, random.fold_in(keys, 1)), k

    def generate(self, variables, batch, keys):
        return {"images": self.draw_with_choice(variables, keys)[0]}

    def figures(self):
        return {"samples": self.draw_samples, "means": self.draw_means}

    def draw_means(self, trained: Trained) -> None:
        """Draw the mean image of each k, with its name."""
        arrays = trained.variables.params[NET]
        images, names = np.asarray(self.means(arrays)), self.names(np.asarray(arrays["weights"]))
        caption = trained.caption.plus(f"the means of p(x | k), {min(MEANS, len(names))} of {len(names)}")
        save_labelled_grid(trained.workdir.figures / "means.png", images[:MEANS], names[:MEANS], 10, caption)
