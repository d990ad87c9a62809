"""Autoencoders: with a bottleneck, denoising (Vincent et al. 2008), or sparse without a bottleneck."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.figures.curves import save_curves, save_table
from gm_jax.figures.grid import save_grid, save_versions
from gm_jax.figures.latent_map import save_latent_map
from gm_jax.losses import sparsity
from gm_jax.metrics.latents import dead_units
from gm_jax.metrics.reconstruction import mean_squared_error, peak_signal_to_noise
from gm_jax.models.autoencoder import make_autoencoder
from gm_jax.program import IMAGES, Program, image_input, latent_input
from gm_jax.stages import Phase, Result
from gm_jax.step import AXIS
from gm_jax.tasks.task import DataSpec, Row, Task, Trained

NET = "autoencoder"
RECONSTRUCTIONS = 40
FEATURES = 100  # in their figure at most


class Autoencoder(Task):
    """One phase on the network "autoencoder", which sees images in [0, 1], perhaps with noise on them."""

    monitor = ("mean_squared_error", "min")

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.settings = config.autoencoder
        self.sparse = self.settings.penalty != "none"
        check_settings(config)
        self.network = make_autoencoder(image_shape=spec.image_shape, **config.model)

    def init(self, key):
        return {NET: self.network.init(key, jnp.zeros((1, *self.spec.image_shape)))}

    def networks(self, variables):
        return {NET: (self.network, variables.of(NET))}

    def phases(self, stage=0):
        return [Phase(NET, (NET,), self.loss)]

    def corrupt(self, x, keys):
        """Add Gaussian noise to x [B, H, W, C] and clip to [0, 1] again, as a picture would be."""
        noise = random.normal(keys, x.shape[1:])
        return jnp.clip(x + self.settings.noise * noise, 0.0, 1.0)

    def reconstruct(self, params, batch, keys):
        """Return the clean images, what the network is given, what it makes of it, and the code between."""
        clean = images.to_unit(batch["image"])
        given = self.corrupt(clean, keys) if self.settings.noise else clean
        reconstruction, code = self.network.apply({"params": params[NET]}, given)
        return clean, given, reconstruction, code

    def loss(self, variables, batch, context):
        """Squared error summed over the pixels, against the clean image, plus the weighted penalty of the code."""
        keys = random.example_keys(context.key, batch["position"])
        clean, _, reconstruction, code = self.reconstruct(variables.params, batch, keys)
        error = jnp.mean(mean_squared_error(clean, reconstruction))
        loss, metrics = error * clean[0].size, {"mean_squared_error": error}
        if self.sparse:
            penalty = self.penalty(code)
            loss = loss + self.settings.penalty_weight * penalty
            metrics.update(penalty=penalty, mean_activity=jnp.mean(jnp.abs(code)))
        return loss, Result({"loss": loss, **metrics})

    def penalty(self, code):
        """Return the sparsity penalty of codes [B, D]."""
        if self.settings.penalty == "l1":
            return sparsity.l1(code)
        activity = jax.lax.pmean(jnp.mean(code, 0), AXIS)  # over all devices: the penalty is not linear
        return sparsity.kl(activity, self.settings.target_activity)

    def validate(self, variables, batch, keys):
        clean, _, reconstruction, code = self.reconstruct(variables.params, batch, keys)
        activity = {"mean_activity": jnp.mean(jnp.abs(code), -1)} if self.sparse else {}
        return {"mean_squared_error": mean_squared_error(clean, reconstruction), **activity}

    def evaluate(self, variables, batch, keys):
        """Return the errors and, where noise is removed, the signal-to-noise ratio before and after, in decibels."""
        clean, given, reconstruction, code = self.reconstruct(variables.params, batch, keys)
        values = {"mean_squared_error": mean_squared_error(clean, reconstruction)}
        if self.settings.noise:
            values["peak_signal_to_noise_before"] = peak_signal_to_noise(clean, given)
            values["peak_signal_to_noise_after"] = peak_signal_to_noise(clean, reconstruction)
        if self.sparse:
            values.update(mean_activity=jnp.mean(jnp.abs(code), -1), unit_activity=code)
        return values

    def derive(self, moments):
        return {"dead_units": dead_units(moments["unit_activity"])} if self.sparse else {}

    def programs(self):
        def encode(variables, batch, keys):
            x = images.to_unit(batch["image"])
            return {"code": self.network.apply(variables.of(NET), x, method="encode")}

        def decode(variables, batch, keys):
            logits = self.network.apply(variables.of(NET), batch["code"], method="decode")
            return {"images": images.unit_to_uint8(jax.nn.sigmoid(logits))}

        code = latent_input(self.config.model.latent_dim, "a code, as the encoder makes it")
        return {
            "encoder": Program(encode, {"image": image_input(self.spec.image_shape)}, {"code": "the code"}),
            "decoder": Program(decode, {"code": code}, {"images": IMAGES}),
        }

    def rows(self, trained, n):
        made = self.autoencode_some(trained, n)
        return {"reconstructions": Row(made["made"], reference=made["clean"])}

    def figures(self):
        features = {"features": self.draw_features} if self.sparse else {"latents": self.draw_latents}
        return {"curves": self.draw_curves, "reconstructions": self.draw_reconstructions, **features}

    def autoencode(self, variables, batch, keys):
        """Return "clean", "given" and "made" images, uint8, and the "code" [B, D]."""
        *versions, code = self.reconstruct(variables.params, batch, keys)
        pictures = dict(zip(("clean", "given", "made"), map(images.unit_to_uint8, versions), strict=True))
        return {**pictures, "code": code}

    def autoencode_some(self, trained: Trained, n: int | None) -> dict[str, np.ndarray]:
        """Return n held-out examples with what `autoencode` makes of them."""
        batch = trained.examples(n)
        return {**batch, **self.apply(self.autoencode, trained.variables, batch, self.config.seed)}

    def draw_curves(self, trained: Trained) -> None:
        """Plot error and loss over the steps; write them as a table, too."""
        names = ["mean_squared_error", "loss", *(["mean_activity"] if self.sparse else [])]
        save_curves(trained.workdir.figures / "curves.png", trained.workdir.metrics, names, trained.caption)
        save_table(trained.workdir.figures / "curves.md", trained.workdir.metrics, names)

    def draw_reconstructions(self, trained: Trained) -> None:
        """Draw held-out images above their reconstructions; noisy, denoised and clean ones where there is noise."""
        made = self.autoencode_some(trained, RECONSTRUCTIONS)
        order, what = ("clean", "made"), "each above its reconstruction"
        if self.settings.noise:
            order = ("given", "made", "clean")
            what = f"with noise of standard deviation {self.settings.noise}, clipped; denoised; clean"
        caption = trained.caption.plus(f"{self.config.evaluation.split} images, {what}")
        versions = [made[name] for name in order]
        save_versions(trained.workdir.figures / "reconstructions.png", versions, 10, caption)

    def draw_latents(self, trained: Trained) -> None:
        """Scatter the codes of held-out images by class."""
        made = self.autoencode_some(trained, self.config.evaluation.n)
        caption = trained.caption.plus(f"codes of {len(made['code'])} {self.config.evaluation.split} images")
        names, path = self.spec.label_names, trained.workdir.figures / "latents.png"
        save_latent_map(path, made["code"], made.get("label"), names, caption)

    def draw_features(self, trained: Trained) -> None:
        """Draw what the most active units add to the logits of the image, scaled by its largest value; grey is 0.

        With a linear decoder these are a unit's weights.
        """
        code = self.autoencode_some(trained, self.config.evaluation.n)["code"]
        units = np.argsort(-np.mean(np.abs(code), axis=0), kind="stable")[:FEATURES]
        codes = np.concatenate([np.zeros((1, code.shape[1])), np.eye(code.shape[1])[units]]).astype(np.float32)
        decode = functools.partial(self.network.apply, method="decode")
        logits = np.asarray(decode({"params": trained.variables.params[NET]}, codes))
        features = logits[1:] - logits[:1]
        features = features / np.maximum(np.abs(features).max((1, 2, 3), keepdims=True), 1e-12)
        caption = trained.caption.plus(f"what each of the {len(units)} most active of {code.shape[1]} units draws")
        path = trained.workdir.figures / "features.png"
        save_grid(path, np.asarray(images.to_uint8(features)), 10, caption)


def check_settings(config: ConfigDict) -> None:
    """Refuse what `config.autoencoder` cannot mean.

    Raises:
        UserError: a penalty that does not fit the code, or its weight.
    """
    settings, penalty = config.autoencoder, config.autoencoder.penalty
    if penalty == "kl" and config.model.activation != "sigmoid":
        raise UserError("autoencoder.penalty=kl compares activities in (0, 1): set model.activation=sigmoid")
    if (penalty == "none") != (settings.penalty_weight == 0.0):
        raise UserError(
            f"autoencoder.penalty={penalty} with autoencoder.penalty_weight={settings.penalty_weight}: a penalty "
            "needs a weight above 0, and none has no weight"
        )
