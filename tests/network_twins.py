"""What the PyTorch peers of `benchmarks/` compute for each case, in double precision. Needs PyTorch.

The peers share no code with gm_jax. Here they get the same weights, dropout keeps what `dropout_noise` says, and the
running variance is that of the batch, where PyTorch's would be that of a sample.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.special import expit
from torch import Tensor, nn

from benchmarks import torch_generative as peers
from benchmarks.peers_torch import as_torch, copy_weights
from benchmarks.torch_networks import CLASSIFIERS, UNet
from benchmarks.torch_translation import PatchGAN, ResidualGenerator
from tests.network_cases import CASES, CLASSES, LATENTS, Case, dropout_noise, opened, state_vector

ACTIVATIONS = {"linear": lambda x: x, "relu": lambda x: np.maximum(x, 0.0), "sigmoid": expit}
CODERS = {
    "conv": (peers.ConvEncoder, peers.ConvDecoder),
    "mlp": (peers.MLPEncoder, peers.MLPDecoder),
    "residual": (peers.ResidualEncoder, peers.ResidualDecoder),
}
TRANSLATORS = {"residual generator": ResidualGenerator, "patchgan": PatchGAN}
UNET_DEFAULTS = {"blocks": 2, "attention": (16,), "heads": 1, "dropout": 0.0, "space_to_depth": 1}


def peer_values(name: str) -> tuple[np.ndarray, ...]:
    """Return what the peer of a case computes, as `computed` returns what our network does."""
    case, (_, _, inputs, variables, _) = CASES[name], opened(name)
    with double_precision():
        if case.kind in ("autoencoder", "vae"):
            return coder_values(case, variables["params"], **inputs)
        output, state = call(peer_of(case), variables, case.train, **inputs)
        return (output, *state_vector(state))


def peer_of(case: Case) -> nn.Module:
    """Build the peer of a network that is called as a whole."""
    match case.kind:
        case "classifier":
            return CLASSIFIERS[case.name](case.shape, CLASSES, **case.keywords)
        case "generator":
            return peers.GANS[case.name][0](case.shape, LATENTS, **case.keywords, classes=case.classes)
        case "discriminator":
            return peers.GANS[case.name][1](case.shape, **case.keywords, classes=case.classes)
        case "translator":
            given = {} if case.name == "residual generator" else {"channels": case.shape[2]}
            return TRANSLATORS[case.name](**given, **case.keywords)
    return UNet(case.shape, **{**UNET_DEFAULTS, "classes": case.classes, **case.keywords})


def coder_values(case: Case, params: Mapping[str, Any], x: np.ndarray, z: np.ndarray | None = None) -> tuple:
    """Return the reconstruction and the code of an autoencoder, or all that a VAE computes."""
    keywords = {key: value for key, value in case.keywords.items() if key not in ("activation", "learned_scale")}
    make_encoder, make_decoder = CODERS[case.name]
    encoder = make_encoder(case.shape, (2 if case.kind == "vae" else 1) * LATENTS, **keywords)
    decoder = make_decoder(case.shape, LATENTS, **{key: keywords[key] for key in keywords if key != "dense"})

    def decode(z: np.ndarray) -> np.ndarray:
        return call(decoder, {"params": params["decoder"]}, z=z)[0]

    code, _ = call(encoder, {"params": params["encoder"]}, x=x)
    if case.kind == "autoencoder":
        code = ACTIVATIONS[case.keywords.get("activation", "linear")](code)
        return expit(decode(code)), code
    mean, log_variance = code[:, :LATENTS], code[:, LATENTS:]
    images = decode(z.reshape(-1, LATENTS)).reshape(*z.shape[:2], *case.shape)
    return mean, log_variance, images, decode(mean)


def call(peer: nn.Module, variables: dict, train: bool = False, **inputs: np.ndarray) -> tuple[np.ndarray, dict]:
    """Return the output of a peer with our weights, and its state after that, both laid out as ours."""
    turned = getattr(peer, "turned", False)
    for name, module in list(peer.named_modules()):
        if isinstance(module, nn.Dropout):
            peer.set_submodule(name, Masked(module.p, turned))
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(note_moments)
    load(variables, peer)

    arguments = {name: torch.tensor(value) for name, value in inputs.items()}
    arguments = {name: x.double() if x.is_floating_point() else x for name, x in arguments.items()}
    if "x" in arguments:
        x = arguments["x"].permute(0, 3, 1, 2)
        arguments["x"] = x.flip(2, 3) if turned else x
    with torch.no_grad():
        output = peer.train(train)(**arguments)
    if output.ndim == 4:
        output = (output.flip(2, 3) if turned else output).permute(0, 2, 3, 1)
    return output.numpy(), state_of(peer, variables, turned)


def load(variables: Mapping[str, Any], peer: nn.Module) -> None:
    """Copy our weights; all that a peer has to learn must be among them. An embedding is its product with one-hots."""
    leaves = flatten_dict(variables)
    renamed = {(*path[:-1], path[-1].replace("embedding", "kernel")): leaf for path, leaf in leaves.items()}
    copy_weights(unflatten_dict(renamed), peer)
    ours = sum(leaf.size for path, leaf in leaves.items() if path[0] == "params")
    theirs = sum(parameter.numel() for parameter in peer.parameters() if parameter.requires_grad)
    assert ours == theirs, f"the peer has {theirs} parameters, not {ours}"


def state_of(peer: nn.Module, variables: Mapping[str, Any], turned: bool) -> dict:
    """Return running statistics and spectral vectors after a call, as 0.9 of the old and 0.1 of the new statistics."""
    state = {}
    for (collection, *path, leaf), old in flatten_dict(variables).items():
        if collection != "params":
            layer = peer.get_submodule(".".join(path))
            if leaf == "u":
                new = layer.u.numpy()
            elif peer.training:
                new = as_torch(layer, layer.moments[leaf].numpy(), turned)  # what turns it turns it back
                new = 0.9 * old.astype(np.float64) + 0.1 * new
            else:
                new = old
            state[collection, *path, leaf] = new
    return unflatten_dict(state)


def note_moments(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """Note mean and variance of each channel of what batch norm is given."""
    axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
    norm.moments = {"mean": inputs[0].mean(axes), "var": inputs[0].var(axes, unbiased=False)}


class Masked(nn.Module):
    """Dropout that keeps, scaled by 1 / (1 - rate), the values whose noise is no less than the rate."""

    def __init__(self, rate: float, turned: bool):
        super().__init__()
        self.rate, self.turned = rate, turned

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        batch, *rest = x.shape
        noise = torch.tensor(dropout_noise((batch, *rest[1:], rest[0])))
        if x.ndim == 4:
            noise = (noise.flip(1, 2) if self.turned else noise).permute(0, 3, 1, 2)
        return x * (noise >= self.rate) / (1.0 - self.rate)


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Make new tensors, such as parameters, double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
