"""The augmentations of gm_jax.data.augment and gm_jax.layers.diff_augment in PyTorch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gm_jax.layers.diff_augment import HOLE, SHIFT


def augment(images: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Crop, flip and cut out of images uint8 [B, H, W, C], as gm_jax.data.augment does."""
    batch, height, width, _ = images.shape
    device = images.device
    every = torch.arange(batch, device=device)[:, None, None]
    if settings["crop"] or settings["flip"]:
        rows = torch.arange(height, device=device).expand(batch, height)
        columns = torch.arange(width, device=device).expand(batch, width)
        if settings["crop"]:
            shift = torch.randint(-settings["crop"], settings["crop"] + 1, (2, batch, 1), device=device)
            rows, columns = reflected(rows + shift[0], height), reflected(columns + shift[1], width)
        if settings["flip"]:
            columns = torch.where(torch.rand(batch, 1, device=device) < 0.5, columns.flip(1), columns)
        images = images[every, rows[:, :, None], columns[:, None, :]]
    if settings["cutout"]:
        size = settings["cutout"]
        inside = [
            ((torch.arange(n, device=device) - torch.randint(n, (batch, 1), device=device) + size // 2) // size == 0)
            for n in (height, width)
        ]
        hole = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
        mean = images.float().mean((1, 2), keepdim=True).to(torch.uint8)
        images = torch.where(hole, mean, images)
    return images


def reflected(places: Tensor, size: int) -> Tensor:
    """Bring places back into [0, size) by mirroring at the first and the last pixel."""
    places = places.abs()
    return torch.where(places < size, places, 2 * (size - 1) - places)


def diff_augment(x: Tensor, names: Sequence[str]) -> Tensor:
    """Change images [B, C, H, W] in [-1, 1] as their authors' code does (Zhao et al. 2020), each in its own way."""
    for name, (change, count) in CHANGES.items():
        if name in names:
            x = change(x, torch.rand(len(x), count, device=x.device))
    return x


def colour(x: Tensor, u: Tensor) -> Tensor:
    """Change brightness, saturation and contrast by numbers u [B, 3] in [0, 1)."""
    brightness, saturation, contrast = u[:, :, None, None, None].unbind(1)
    x = x + (brightness - 0.5)
    x = torch.lerp(x.mean(1, keepdim=True), x, 2.0 * saturation)
    return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, contrast + 0.5)


def translation(x: Tensor, u: Tensor) -> Tensor:
    """Shift, and show 0 where nothing comes from."""
    batch, _, height, width = x.shape
    every, places = torch.arange(batch, device=x.device)[:, None, None], []
    for axis, side in enumerate((height, width)):
        most = round(side * SHIFT)
        by = (u[:, axis, None] * (2 * most + 1)).floor().long() - most
        places.append((torch.arange(side, device=x.device) - by + 1).clamp(0, side + 1))
    padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    return padded[every, places[0][:, :, None], places[1][:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """Show 0 in a square around any pixel."""
    inside = []
    for axis, side in enumerate(x.shape[2:]):
        size = round(side * HOLE)
        distance = torch.arange(side, device=x.device) - (u[:, axis, None] * side).floor() + size // 2
        inside.append((distance >= 0) & (distance < size))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)


CHANGES = {"colour": (colour, 3), "translation": (translation, 2), "cutout": (cutout, 2)}  # and their random numbers
