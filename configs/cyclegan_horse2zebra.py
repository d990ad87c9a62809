"""B5: CycleGAN between horses and zebras, the paper's best-known pair.

    python -m gm_jax.main --config=configs/cyclegan_horse2zebra.py    # for a GPU: TFDS's cycle_gan/horse2zebra, or
      ... --config.dataset.folder=DIR    # a folder with trainA, trainB, testA and testB, as the authors' archive has it
      ... --mode=translate --config.translate.input=FOLDER --config.translate.direction=ab

All settings are the paper's (Zhu et al. 2017): 9 residual blocks, PatchGANs of 70 pixels, least squares, lambda 10,
half of that for identity, a pool of 50, Adam at 2e-4 with beta1 0.5, single images, 100 epochs at that rate and 100
on the way to 0. Images are resized to 286 pixels, of which a random part of 256 is mirrored at random; test images
show their middle. Published (120 against 140 test images, 256 pixels, without identity loss): FID 77.2 to zebras by
the legacy resizing, 75.2 by the clean, 62.1 with an identity loss; 138.6 to horses.
"""

from gm_jax.defaults import photographs_config


def get_config():
    return photographs_config("horse2zebra")
