"""Naive Bayes (Bernoulli): given the class, every pixel is black or white independently of all others."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.tasks.baseline import NET, Baseline
from gm_jax.tasks.task import DataSpec, check_labels

LEAST = float(np.finfo(np.float32).eps)
WHITE = 128  # a pixel from this grey level on is 1, else 0


class NaiveBayes(Baseline):
    """p(x) = sum_k p(k) prod_i q_ki^x_i (1 - q_ki)^(1 - x_i): a generative model that also classifies, by p(k | x)."""

    units = {  # noqa: RUF012  (never changed)
        "log_likelihood": f"nats per image of binary pixels (1 from grey level {WHITE} on); the labels are not seen",
        "bits_per_dimension": "bits per binary pixel",
    }

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        if not spec.label_names:
            raise UserError(
                f"naive Bayes needs labels, and data set '{config.dataset.name}' has none: choose another "
                "dataset.name, or a folder with a subfolder for each class"
            )

    def check_data(self, split, data):
        check_labels(split, data, len(self.spec.label_names))

    def shapes(self):
        classes = len(self.spec.label_names)
        return {"weights": (classes,), "white": (classes, *self.spec.image_shape)}

    def estimate(self, data):
        """Return the share of each class, and of its white pixels, `model.smoothing` counted of each kind beforehand.

        The closed form of maximum a posteriori: white = (ones + smoothing) / (examples + 2 smoothing).
        """
        from sklearn.naive_bayes import BernoulliNB  # takes time to import

        pixels = data["image"].reshape(len(data["image"]), -1) >= WHITE
        model = BernoulliNB(alpha=self.config.model.smoothing, binarize=None)
        model.partial_fit(pixels, data["label"], classes=np.arange(len(self.spec.label_names)))
        white = np.exp(model.feature_log_prob_).reshape(self.shapes()["white"])
        white = np.clip(white, LEAST, 1.0 - LEAST)  # in float32 a tiny smoothing would make pixels certain
        return {"weights": model.class_count_ / model.class_count_.sum(), "white": white}

    def log_joint(self, arrays, batch, keys):
        x = (batch["image"] >= WHITE).astype(jnp.float32).reshape(len(batch["image"]), -1)
        white = arrays["white"].reshape(len(arrays["white"]), -1)
        return jnp.log(arrays["weights"]) + x @ jnp.log(white).T + (1.0 - x) @ jnp.log1p(-white).T

    def draw(self, arrays, k, keys):
        white = random.uniform(keys, self.spec.image_shape) < arrays["white"][k]
        return jnp.where(white, 255, 0).astype(jnp.uint8)

    def means(self, arrays):
        return jnp.round(255.0 * arrays["white"]).astype(jnp.uint8)

    def names(self, weights):
        return list(self.spec.label_names)

    def validate(self, variables, batch, keys):
        joint = self.log_joint(variables.params[NET], batch, keys)
        return {**self.measure(joint), "accuracy": jnp.argmax(joint, -1) == batch["label"]}

    def programs(self):
        sampler = super().programs()["sample"]
        return {"sample": sampler._replace(outputs={**sampler.outputs, "labels": "the class of each"})}

    def generate(self, variables, batch, keys):
        images, k = self.draw_with_choice(variables, keys)
        return {"images": images, "labels": k}
