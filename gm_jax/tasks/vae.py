"""Variational autoencoders (Kingma & Welling 2014): an encoder and a decoder that maximise a bound of log p(x)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.figures.curves import save_curves, save_table
from gm_jax.figures.grid import save_grid, save_versions
from gm_jax.figures.interpolation import lerp, save_interpolation
from gm_jax.figures.latent_map import gaussian_plane, save_latent_map
from gm_jax.figures.sprite import save_sprite
from gm_jax.losses import elbo
from gm_jax.metrics.latents import active_units
from gm_jax.metrics.reconstruction import mean_squared_error
from gm_jax.models.vae import make_vae
from gm_jax.program import IMAGES, Program, image_input, latent_input
from gm_jax.stages import Phase, Result
from gm_jax.step import AXIS
from gm_jax.tasks.task import DataSpec, Row, Task, Trained

NET = "vae"
PIXELS, LATENTS = 0, 1  # what an example draws: its binary pixels, then latents
BINARISATIONS = {"none": "grey pixels in [0, 1]", "dynamic": "drawn binary pixels", "threshold": "binary pixels"}
SAMPLES_AT_ONCE = 10  # importance samples that are decoded together, at most
RECONSTRUCTIONS = 40
PATHS, PRIOR_PATHS, PATH_STEPS = 8, 2, 10  # interpolations in their figure
MANIFOLD = 20  # images along each side of the manifold
PLANE = 48  # and of the finer one, in which the report shows one image at a time


class VAE(Task):
    """One phase on the network "vae", which sees images in [0, 1]; bounds and likelihoods are in nats an image."""

    monitor = ("elbo", "max")

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.settings = config.vae
        check_settings(config.vae)
        learned_scale = config.vae.likelihood == "gaussian" and config.vae.scale is None
        self.network = make_vae(image_shape=spec.image_shape, learned_scale=learned_scale, **config.model)
        self.latent_dim = config.model.latent_dim
        unit = f"nats per image of {BINARISATIONS[config.vae.binarise]}, {config.vae.likelihood} likelihood"
        self.units = {**dict.fromkeys(("elbo", "reconstruction", "importance_weighted_bound"), unit), "kl": "nats"}

    def init(self, key):
        return {NET: self.network.init(key, jnp.zeros((1, *self.spec.image_shape)))}

    def networks(self, variables):
        return {NET: (self.network, variables.of(NET))}

    def phases(self, stage=0):
        return [Phase(NET, (NET,), self.loss)]

    def pixels(self, batch, keys):
        """Return the images [B, H, W, C] in [0, 1] that the model sees, binary ones drawn with `keys` [B]."""
        x = images.to_unit(batch["image"])
        if self.settings.binarise == "dynamic":
            u = random.uniform(random.fold_in(keys, PIXELS), x.shape[1:])
            return (u < x).astype(jnp.float32)
        return (x > 0.5).astype(jnp.float32) if self.settings.binarise == "threshold" else x

    def encode(self, params, x):
        """Return mean and log-variance of q(z|x), each [B, D], for x [B, H, W, C] in [0, 1]."""
        return self.network.apply({"params": params[NET]}, x, method="encode")

    def decode(self, params, z):
        """Return the logits of the pixels' means [..., H, W, C] for latents [..., D]."""
        return self.network.apply({"params": params[NET]}, z, method="decode")

    def weigh(self, params, x, posterior, noise):
        """Return log p(x|z) and log p(z) - log q(z|x), each [B, K], for z drawn from q(z|x) with noise [B, K, D]."""
        z, log_ratio = elbo.reparameterise(*posterior, noise)
        logits, x = self.decode(params, z), x[:, None]
        if self.settings.likelihood == "bernoulli":
            return elbo.bernoulli_log_likelihood(x, logits), log_ratio
        learned = self.settings.scale is None
        log_scale = params[NET]["log_scale"] if learned else jnp.log(self.settings.scale)
        return elbo.gaussian_log_likelihood(x, jax.nn.sigmoid(logits), log_scale), log_ratio

    def loss(self, variables, batch, context):
        """Minus the bound that is maximised: the ELBO with beta and free bits, or the importance-weighted one.

        beta rises from 0 over the warm-up. The metrics are those of the plain ELBO, whatever is maximised.
        """
        settings, params = self.settings, variables.params
        keys = random.example_keys(context.key, batch["position"])
        x = self.pixels(batch, keys)
        noise = random.normal(random.fold_in(keys, LATENTS), (settings.train_samples, self.latent_dim))
        posterior = self.encode(params, x)
        reconstruction, log_ratio = self.weigh(params, x, posterior, noise)
        kl = elbo.kl_divergence(*posterior)
        beta = settings.beta * jnp.minimum(1.0, (context.step + 1.0) / max(settings.warmup_steps, 1))
        if settings.train_samples == 1:
            kl_of_batch = jax.lax.pmean(jnp.mean(kl, 0), AXIS)  # of all devices: free bits are not linear
            bound = jnp.mean(reconstruction) - beta * elbo.free_bits(kl_of_batch, settings.free_bits)
        else:
            bound = jnp.mean(elbo.importance_weighted_bound(reconstruction + beta * log_ratio))
        metrics = {"loss": -bound, **jax.tree.map(jnp.mean, self.parts(reconstruction, kl))}
        return -bound, Result(metrics)

    def parts(self, reconstruction, kl):
        """Return the ELBO of each example [B] and its parts, from log p(x|z) [B, K] and the latents' KL [B, D]."""
        reconstruction, kl = jnp.mean(reconstruction, -1), jnp.sum(kl, -1)
        return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}

    def validate(self, variables, batch, keys):
        x = self.pixels(batch, keys)
        noise = random.normal(random.fold_in(keys, LATENTS), (1, self.latent_dim))
        posterior = self.encode(variables.params, x)
        return self.parts(self.weigh(variables.params, x, posterior, noise)[0], elbo.kl_divergence(*posterior))

    def evaluate(self, variables, batch, keys):
        """Return the ELBO and its parts, the importance-weighted bound, the posterior and the reconstruction's error.

        The K samples of both bounds are drawn and weighed chunk by chunk, so that memory stays bounded. The mean
        squared error is that of the image decoded from the posterior mean, against what the encoder saw.
        """
        x = self.pixels(batch, keys)
        mean, log_variance = posterior = self.encode(variables.params, x)
        samples = self.config.evaluation.importance_samples
        size = max(n for n in range(1, SAMPLES_AT_ONCE + 1) if samples % n == 0)

        def one_chunk(log_sum, chunk):
            noise = random.normal(random.fold_in(keys, LATENTS + chunk), (size, self.latent_dim))
            reconstruction, log_ratio = self.weigh(variables.params, x, posterior, noise)
            log_weight = elbo.importance_weighted_bound(reconstruction + log_ratio)
            return jnp.logaddexp(log_sum, log_weight), jnp.mean(reconstruction, -1)

        chunks = samples // size
        log_sum, reconstruction = jax.lax.scan(one_chunk, jnp.full(len(x), -jnp.inf), jnp.arange(chunks))
        decoded = jax.nn.sigmoid(self.decode(variables.params, mean))
        return {
            **self.parts(reconstruction.T, elbo.kl_divergence(*posterior)),
            "importance_weighted_bound": log_sum - jnp.log(chunks),
            "mean_squared_error": mean_squared_error(x, decoded),
            "posterior_mean": mean,
            "posterior_variance": jnp.exp(log_variance),
        }

    def derive(self, moments):
        """Return how many latents are used; the averages of posterior mean and variance are there already."""
        return {"active_units": active_units(moments["posterior_mean"])}

    def picture(self, params, z):
        """Return the mean images of p(x|z), uint8 [B, H, W, C], for latents [B, D]."""
        return images.unit_to_uint8(jax.nn.sigmoid(self.decode(params, z)))

    def decode_latents(self, variables, batch, keys):
        """Return the images of the latents "z" of a batch."""
        return self.picture(variables.params, batch["z"])

    def encode_images(self, variables, batch, keys):
        """Return the images as they are "seen", uint8, and the posterior "mean" [B, D]."""
        x = self.pixels(batch, keys)
        return {"seen": images.unit_to_uint8(x), "mean": self.encode(variables.params, x)[0]}

    def encode_some(self, trained: Trained, n: int | None) -> dict[str, np.ndarray]:
        """Return n held-out examples, with the pixels that are evaluated, and what `encode_images` makes of them."""
        batch = trained.examples(n)
        return {**batch, **self.apply(self.encode_images, trained.variables, batch, self.config.seed)}

    def decode_all(self, trained: Trained, z: np.ndarray) -> np.ndarray:
        """Return the images uint8 [n, H, W, C] of latents [n, D]."""
        batch = {"z": np.asarray(z, np.float32), "position": np.arange(len(z), dtype=np.int32)}
        return self.apply(self.decode_latents, trained.variables, batch)

    def generate(self, variables, batch, keys):
        """Decode the mean image of each z ~ N(0, I)."""
        return {"images": self.picture(variables.params, random.normal(keys, (self.latent_dim,)))}

    def programs(self):
        def encode(variables, batch, keys):
            mean, log_variance = self.encode(variables.params, self.pixels(batch, keys))
            return {"mean": mean, "log_variance": log_variance}

        def decode(variables, batch, keys):
            return {"images": self.decode_latents(variables, batch, keys)}

        image, z = image_input(self.spec.image_shape), latent_input(self.latent_dim, "latents; a priori z ~ N(0, I)")
        posterior = {"mean": "of q(z|x)", "log_variance": "of q(z|x)"}
        return {
            **super().programs(),
            "encoder": Program(encode, {"image": image}, posterior),
            "decoder": Program(decode, {"z": z}, {"images": IMAGES}),
        }

    def rows(self, trained, n):
        """Return samples, and the first held-out images decoded from their posterior means, below what they were."""
        encoded = self.encode_some(trained, n)
        decoded = self.decode_all(trained, encoded["mean"])
        return {**super().rows(trained, n), "reconstructions": Row(decoded, reference=encoded["seen"])}

    def figures(self):
        manifold = {"manifold": self.draw_manifold, "latent_plane": self.draw_plane} if self.latent_dim == 2 else {}
        return {
            "curves": self.draw_curves,
            "samples": self.draw_samples,
            "reconstructions": self.draw_reconstructions,
            "interpolation": self.draw_interpolation,
            "latents": self.draw_latents,
            **manifold,
        }

    def draw_curves(self, trained: Trained) -> None:
        """Plot the ELBO and its parts over the steps; write them as a table, too."""
        names = ["elbo", "reconstruction", "kl"]
        save_curves(trained.workdir.figures / "curves.png", trained.workdir.metrics, names, trained.caption)
        save_table(trained.workdir.figures / "curves.md", trained.workdir.metrics, names)

    def describe_samples(self):
        return ["means of p(x|z) for z from the prior", *super().describe_samples()]

    def draw_reconstructions(self, trained: Trained) -> None:
        """Draw held-out images, each above its reconstruction from the posterior mean."""
        encoded = self.encode_some(trained, RECONSTRUCTIONS)
        versions = [encoded["seen"], self.decode_all(trained, encoded["mean"])]
        caption = trained.caption.plus(f"{self.config.evaluation.split} images, each above its reconstruction")
        save_versions(trained.workdir.figures / "reconstructions.png", versions, 10, caption)

    def draw_interpolation(self, trained: Trained) -> None:
        """Draw straight paths between posterior means of pairs of held-out images, and between draws of the prior."""
        encoded = self.encode_some(trained, 2 * PATHS)
        rows = len(encoded["mean"]) // 2
        start, end = slice(rows), slice(rows, 2 * rows)
        path = trained.workdir.figures / "interpolation.png"
        drawn = np.random.default_rng(self.config.sampling.seed).normal(size=(2, PRIOR_PATHS, self.latent_dim))
        pairs = [np.concatenate([encoded["mean"][part], z]) for part, z in zip((start, end), drawn, strict=True)]
        decoded = [self.decode_all(trained, z) for z in drawn]
        ends = [np.concatenate([encoded["seen"][part], x]) for part, x in zip((start, end), decoded, strict=True)]
        latents = lerp(*pairs, PATH_STEPS)
        caption = trained.caption.plus(
            "straight paths in the latent space between the images at both ends; in the last "
            f"{PRIOR_PATHS} rows between draws of the prior"
        )
        save_interpolation(path, latents, functools.partial(self.decode_all, trained), caption, ends)

    def draw_latents(self, trained: Trained) -> None:
        """Scatter the posterior means of held-out images by class."""
        encoded = self.encode_some(trained, self.config.evaluation.n)
        caption = trained.caption.plus(
            f"posterior means of {len(encoded['mean'])} {self.config.evaluation.split} images"
        )
        names = self.spec.label_names
        save_latent_map(trained.workdir.figures / "latents.png", encoded["mean"], encoded.get("label"), names, caption)

    def draw_manifold(self, trained: Trained) -> None:
        """Draw the images of a plane of two latents."""
        grid = self.decode_all(trained, gaussian_plane(MANIFOLD))
        caption = trained.caption.plus("the latent plane at the Gaussian's quantiles")
        save_grid(trained.workdir.figures / "manifold.png", grid, MANIFOLD, caption)

    def draw_plane(self, trained: Trained) -> None:
        """Write the images of the same plane on a finer grid, and the latents along it, as a sprite."""
        latents = gaussian_plane(PLANE)
        along = [round(float(z), 3) for z in latents[:PLANE, 0]]
        path = trained.workdir.figures / "latent_plane.png"
        save_sprite(path, self.decode_all(trained, latents), PLANE, trained.caption, {"along": along})


def check_settings(settings: ConfigDict) -> None:
    """Refuse what `config.vae` cannot mean.

    Raises:
        UserError: saying which settings do not go together.
    """
    if settings.likelihood == "gaussian" and settings.binarise != "none":
        raise UserError(f"vae.binarise={settings.binarise} makes binary pixels: set vae.likelihood=bernoulli")
    if settings.scale is not None and settings.likelihood != "gaussian":
        raise UserError(f"vae.scale={settings.scale} is the standard deviation of vae.likelihood=gaussian alone")
    if settings.free_bits and settings.train_samples > 1:
        raise UserError("vae.free_bits is for vae.train_samples=1: an importance-weighted bound has no KL of its own")
