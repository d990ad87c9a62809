"""B3: diffusion in ten steps that only add noise, x_t = x_{t-1} + sqrt(beta_t) epsilon.

    python -m gm_jax.main --config=configs/diffusion10_mnist.py    # as long as ddpm_mnist
      ... --mode=evaluate --config.evaluation.metrics=frechet,inception_score --config.evaluation.extractors=WORKDIR

The report (001, part A-III) gives the equation and the number of steps, draws the chain, and names FID and the
Inception score; it names neither betas nor a network, and its loss only as "the discrepancy to the real data". The
network here is `ddpm_mnist`'s, its loss the squared error of the image, and betas grow from 0.02 to 4 in equal steps,
so that noise 4.5 times as strong as the images ends the chain: what is left of them there, 5 % of the variance, a chain
that never shrinks them can only drown. Samples visit all ten steps, with noise in each, and images of the chain are
scaled down by what noise adds.
"""

from gm_jax.defaults import small_diffusion_config


def get_config():
    config = small_diffusion_config()
    config.rows = ("B3",)
    config.minutes = 6
    config.dataset.name = "mnist"
    config.diffusion.timesteps = 10
    config.diffusion.schedule = "exploding"
    config.diffusion.beta_start, config.diffusion.beta_end = 0.02, 4.0
    config.sampling.update(sampler="ancestral", spacing="time", steps=None)
    return config
