"""The figures of StyleGAN: what truncation, mixed styles, noise and paths between latents do, and how it grew."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.figures.grid import save_grid, save_strips
from gm_jax.figures.interpolation import lerp, save_interpolation, slerp
from gm_jax.figures.latent_file import read_latent
from gm_jax.state import Variables
from gm_jax.tasks.gan_figures import CANDIDATES, PATH_STEPS, PATHS, GANFigures
from gm_jax.tasks.task import Trained

GROWN = 8  # latents whose samples are kept from every border
TRUNCATIONS = (0.5, 0.7, 1.0)
BANDS = ("coarse", "middle", "fine")
SOURCES, RECEIVERS = 2, 6  # of styles, in each band of the mixing matrix
PAIRS = 500  # mixed samples by which a judge tells what a band carries
NOISES = 10
TOGETHER = 64  # images that are drawn at once, so that one program draws all figures


class StyleGANFigures(GANFigures):
    """A task that has `latents(keys)`, `styles(variables, z)`, `show(variables, w, keys)` and `blocks`."""

    def render(self, variables, batch, keys):
        """Return the images of "w" [B, layers, D] of a batch; "position" numbers their noise."""
        return images.to_uint8(self.show(variables, batch["w"], keys))

    def map(self, variables, batch, keys):
        """Return w [B, D] of the latents "z" [B, D] of a batch."""
        return self.styles(variables, batch["z"])

    def together(self, function, trained: Trained, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Return what a function says of a batch of any size, in one program for all sizes."""
        n = len(batch["position"])
        numbers = np.arange(max(n, TOGETHER)) % n
        batch = {name: values[numbers] for name, values in batch.items()}
        parts = self.iterate(function, trained.variables, batch, self.config.sampling.seed, TOGETHER)
        return np.concatenate(list(parts))[:n]

    def map_all(self, trained: Trained, z: np.ndarray) -> np.ndarray:
        """Return w [n, D] of latents z [n, D]."""
        return self.together(self.map, trained, {"z": z, "position": np.arange(len(z), dtype=np.int32)})

    def draw_styles(self, trained: Trained, n: int) -> np.ndarray:
        """Return w [n, D] of the samples 0 ... n - 1 of `sampling.seed`."""
        return self.map_all(trained, self.draw_latents(n, self.config.sampling.seed))

    def paint(self, trained: Trained, w: np.ndarray, noise: np.ndarray | int = 0) -> np.ndarray:
        """Return the images uint8 [n, H, W, C] of w [n, D] or [n, layers, D], all with the noise of one number.

        Or each with that of a number of its own, `noise` [n].
        """
        w = np.asarray(w, np.float32)
        w = np.broadcast_to(w if w.ndim == 3 else w[:, None], (len(w), 2 * self.blocks, w.shape[-1]))
        return self.together(self.render, trained, {"w": w, "position": np.broadcast_to(np.int32(noise), len(w))})

    def draw_grown(self, variables: Variables) -> jax.Array:
        """Return the images uint8 of the first latents of seed 0, at the level reached."""
        keys = random.example_keys(jax.random.key(0), jnp.arange(GROWN))
        w = self.styles(variables, self.latents(keys))
        return images.to_uint8(self.show(variables, w[:, None], random.fold_in(keys, 1)))

    def figures(self):
        between = {"between": self.draw_between} if self.config.sampling.between else {}
        arithmetic = {"arithmetic": self.draw_arithmetic} if self.config.sampling.arithmetic else {}
        return {
            "samples": self.draw_samples,
            "truncation": self.draw_truncation,
            "mixing": self.draw_mixing,
            "noise": self.draw_noise,
            "interpolation": self.draw_interpolation,
            "growth": self.draw_growth,
            "losses": self.draw_losses,
            "quality": self.draw_quality,
            **between,
            **arithmetic,
        }

    def describe_samples(self):
        return [*super().describe_samples(), f"truncation {self.config.sampling.truncation:g}"]

    def draw_truncation(self, trained: Trained) -> None:
        """Draw the same samples with w nearer to its mean and farther from it."""
        mean, w = np.asarray(trained.variables.memory["mean_w"]), self.draw_styles(trained, 16)
        rows = [self.paint(trained, mean + share * (w - mean)) for share in TRUNCATIONS]
        strips = np.stack([row[half] for half in (slice(8), slice(8, 16)) for row in rows])
        caption = trained.caption.plus(f"the same latents at truncation {', '.join(map(str, TRUNCATIONS))}")
        save_strips(trained.workdir.figures / "truncation.png", strips, caption)

    def bands(self) -> list[np.ndarray]:
        """Return the layers of coarse, middle and fine styles: a third of the blocks each."""
        return [np.concatenate([2 * part, 2 * part + 1]) for part in np.array_split(np.arange(self.blocks), len(BANDS))]

    def mix(self, receivers: np.ndarray, sources: np.ndarray, band: np.ndarray) -> np.ndarray:
        """Return w [n, layers, D] of the receivers [n, D], but for a band of layers those of the sources [n, D]."""
        w = np.repeat(receivers[:, None], 2 * self.blocks, axis=1)
        w[:, band] = sources[:, None]
        return w

    def draw_mixing(self, trained: Trained) -> None:
        """Draw samples (above) with the coarse, middle or fine styles of others (left); a judge says what these do."""
        w = self.draw_styles(trained, RECEIVERS + len(BANDS) * SOURCES)
        receivers, sources = w[:RECEIVERS], w[RECEIVERS:].reshape(len(BANDS), SOURCES, -1)
        above = self.paint(trained, receivers)
        rows = [np.concatenate([np.full_like(above[:1], 128), above])]
        for band, own in zip(self.bands(), sources, strict=True):
            for source in own:
                mixed = self.mix(receivers, np.broadcast_to(source, receivers.shape), band)
                rows.append(np.concatenate([self.paint(trained, source[None]), self.paint(trained, mixed)]))
        grids = ["+".join(str(4 << i) for i in sorted({*band // 2})) for band in self.bands()]
        named = ", ".join(f"{band} ({grid})" for band, grid in zip(BANDS, grids, strict=True))
        caption = trained.caption.plus(
            f"{named} styles of the samples on the left, {SOURCES} rows each; the rest above"
        )
        if self.config.evaluation.judge:
            caption = caption.plus(*self.describe_mixing(trained))
        save_strips(trained.workdir.figures / "mixing.png", np.stack(rows), caption)

    def describe_mixing(self, trained: Trained) -> list[str]:
        """Return, for each band, how often a judge reads a source's attribute on a sample that mixes two different."""
        judge = trained.judge()
        receivers, sources = np.split(self.draw_styles(trained, 2 * PAIRS), 2)
        of_receiver, of_source = (judge.describe(self.paint(trained, w)) for w in (receivers, sources))
        sentences = []
        for name, band in zip(BANDS, self.bands(), strict=True):
            mixed = judge.describe(self.paint(trained, self.mix(receivers, sources, band)))
            shares = []
            for attribute in judge.attributes:
                words = set(attribute)
                triples = zip(of_receiver, of_source, mixed, strict=True)
                follows = [m & words == s & words for r, s, m in triples if r & words != s & words]
                shares.append(f"{'/'.join(attribute[:2])} {np.mean(follows):.0%}" if follows else f"{attribute[0]} ?")
            sentences.append(f"{name} styles carry {', '.join(shares)}")
        return [*sentences, f"by {judge.name}, n = {PAIRS}"]

    def draw_noise(self, trained: Trained) -> None:
        """Draw samples with ten noises each and, last, where these differ: their standard deviation."""
        w, rows = self.draw_styles(trained, 6), []
        for one in w:
            same = self.paint(trained, np.repeat(one[None], NOISES, axis=0), np.arange(NOISES))
            deviation = np.std(same.astype(np.float32), axis=0).mean(-1, keepdims=True)
            map_ = np.broadcast_to(255.0 * deviation / max(deviation.max(), 1e-6), same.shape[1:])
            rows.append(np.concatenate([same, map_[None].astype(np.uint8)]))
        caption = trained.caption.plus(
            f"a latent with {NOISES} noises; last their standard deviation, white the largest"
        )
        save_strips(trained.workdir.figures / "noise.png", np.stack(rows), caption)

    def draw_interpolation(self, trained: Trained) -> None:
        """Draw paths between pairs of latents: on great circles of z, and straight in w."""
        start, end = np.split(self.draw_latents(2 * PATHS, self.config.sampling.seed), 2)
        in_z = self.map_all(trained, slerp(start, end, PATH_STEPS).reshape(2 * PATHS * PATH_STEPS // 2, -1))
        in_w = lerp(self.map_all(trained, start), self.map_all(trained, end), PATH_STEPS)
        paths = np.stack([in_z.reshape(in_w.shape), in_w], axis=1)
        caption = trained.caption.plus("between two latents: on a great circle of z, below it straight in w")
        save_interpolation(
            trained.workdir.figures / "interpolation.png",
            paths.reshape(2 * PATHS, PATH_STEPS, -1),
            functools.partial(self.paint, trained),
            caption,
        )

    def draw_between(self, trained: Trained) -> None:
        """Draw straight paths through the latents that `sampling.between` names, from each file to the next."""
        files = self.config.sampling.between
        shape = 2 * self.blocks, self.config.model.latent_dim
        w = np.stack([np.broadcast_to(read_latent(file, shape[1]), shape) for file in files])
        paths = lerp(w[:-1].reshape(len(w) - 1, -1), w[1:].reshape(len(w) - 1, -1), PATH_STEPS)
        rows = self.paint(trained, paths.reshape(-1, *w.shape[1:]))
        caption = trained.caption.plus(f"from {' to '.join(map(str, files))}")
        save_grid(trained.workdir.figures / "between.png", rows, PATH_STEPS, caption)

    def draw_growth(self, trained: Trained) -> None:
        """Draw the samples of the same latents at the end of every span of the growth that has been reached."""
        reached = [span for span in self.spans[1:] if span.begin < trained.step]
        grown = np.asarray(trained.variables.memory["grown"])[: len(reached)]
        now = np.asarray(jax.jit(self.draw_grown)(trained.variables))
        steps = ", ".join(f"{span.begin} ({before.side})" for before, span in zip(self.spans, reached, strict=False))
        caption = trained.caption.plus(f"the same latents after steps {steps} (pixels), and now" if steps else "now")
        save_strips(trained.workdir.figures / "growth.png", np.concatenate([grown, now[None]]), caption)

    def draw_arithmetic(self, trained: Trained) -> None:
        """Draw what `sampling.arithmetic` asks for, of styles w: "red circle - circle + square"."""
        self.save_arithmetic(trained, self.draw_styles(trained, CANDIDATES), self.paint, shell=False)
