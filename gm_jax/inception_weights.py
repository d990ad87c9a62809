"""The published weights of FID's Inception V3: found, checked, converted to Flax and kept in a cache.

Two files hold the same network: the state dict of pytorch-fid and torch-fidelity, and the TorchScript archive of
StyleGAN2-ADA and clean-fid. Either will do; a file with any other checksum is refused.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from gm_jax.data.atomic import usable
from gm_jax.data.download import PATIENCE, silence
from gm_jax.errors import UserError
from gm_jax.metrics import torch_weights
from gm_jax.models.inception import BLOCKS, SIZE, InceptionV3, Layer, named_steps

STATE_DICT, TORCHSCRIPT = "pt_inception-2015-12-05-6726825d.pth", "inception-2015-12-05.pt"
KNOWN = {  # SHA-256 -> the published name
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2": STATE_DICT,
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4": TORCHSCRIPT,
}
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{STATE_DICT}"
VARIABLE = "GM_JAX_INCEPTION"
HELP = f"give {STATE_DICT} or {TORCHSCRIPT} as evaluation.inception or ${VARIABLE}"
MAX_BYTES = 2**28  # of a file of weights

# Of a layer: the path in the Flax variables, the name in the state dict, and in the TorchScript archive (None: ones).
PARTS = {
    ("params", "conv", "kernel"): ("conv.weight", "weight"),
    ("params", "bn", "scale"): ("bn.weight", None),
    ("params", "bn", "bias"): ("bn.bias", "beta"),
    ("batch_stats", "bn", "mean"): ("bn.running_mean", "mean"),
    ("batch_stats", "bn", "var"): ("bn.running_var", "var"),
}
HEAD = ("params", "fc", "kernel")


def load(
    path: str | Path | None = None, known: Mapping[str, str] = KNOWN, width: int = 1
) -> tuple[dict[str, dict], str]:
    """Return the variables of `InceptionV3(width)`, float32 NumPy arrays, and the SHA-256 of the published file.

    The file is `path`, else $GM_JAX_INCEPTION, else what an earlier call has left in the cache ($GM_JAX_CACHE or
    ~/.cache/gm_jax: inception.safetensors), else a download. `known` are the checksums that are accepted, {SHA-256:
    name}. Raises UserError if the file is missing or another one, or if nothing can be downloaded.
    """
    given, cache = path or os.environ.get(VARIABLE), cache_file()
    digest = checked(Path(given).expanduser(), known) if given else None
    cached = read_safetensors(cache, (digest,) if given else known)
    if cached is not None:
        flat, source = cached
        return unflatten_dict(flat, sep="/"), source
    path = Path(given).expanduser() if given else download(cache.parent, known)
    digest = digest or checked(path, known)
    flat = convert(torch_weights.read(path), path)
    check_shapes(flat, width, path)
    _keep(cache, flat, digest)
    if not given:
        path.unlink()
    return unflatten_dict(flat, sep="/"), digest


def cache_file() -> Path:
    """Return where the converted weights are kept."""
    return Path(os.environ.get("GM_JAX_CACHE") or "~/.cache/gm_jax").expanduser() / "inception.safetensors"


def checked(path: Path, known: Mapping[str, str]) -> str:
    """Return the SHA-256 of a file of weights; raises UserError unless it is a known one."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"the weights {path} cannot be read ({error.strerror or error}): {HELP}") from error
    if digest not in known:
        raise UserError(f"{path} is not FID's Inception, or damaged (SHA-256 {digest[:8]}...): {HELP}")
    return digest


def download(folder: Path, known: Mapping[str, str] = KNOWN, url: str = URL) -> Path:
    """Download the state dict into `folder` and return its path; raises UserError if it does not come whole."""
    import requests

    target = folder / STATE_DICT
    if target.is_file():  # left by a process that could not convert it
        return target
    reason = silence(url)
    if reason:
        raise UserError(f"the weights of FID's Inception are not here, and {url} does not answer ({reason}): {HELP}")
    if not usable(folder, MAX_BYTES):
        raise UserError(f"{folder} cannot be written or is full: set another $GM_JAX_CACHE, or {HELP}")
    logging.info("Downloading %s.", url)
    with tempfile.TemporaryDirectory(prefix=".inception.", dir=folder) as temporary:
        part = Path(temporary) / STATE_DICT
        try:
            with requests.get(url, stream=True, timeout=10 * PATIENCE) as response, part.open("wb") as file:
                response.raise_for_status()
                for chunk in response.iter_content(2**20):
                    file.write(chunk)
                    if file.tell() > MAX_BYTES:
                        raise UserError(f"{url} is not FID's Inception but something larger: {HELP}")
        except requests.RequestException as error:
            raise UserError(f"the download of {url} failed ({type(error).__name__}): try again, or {HELP}") from error
        checked(part, known)
        os.replace(part, target)
    return target


def layers() -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield of every layer its path in the Flax variables, its name in the state dict, and in the TorchScript archive.

    The archive has the names of the graph of 2015: "conv_2", "mixed_4.tower_1.conv_3", "mixed_9.tower_mixed_conv_1".
    """
    stem = mixed = 0
    for block, content in BLOCKS.items():
        if isinstance(content, Layer):
            yield (block,), block, f"layers.{_numbered('conv', stem)}"
            stem += 1
        elif isinstance(content, dict):
            prefix = f"layers.{_numbered('mixed', mixed)}"
            mixed += 1
            towers = 0
            split = any(not isinstance(step, Layer | str) for steps in content.values() for step in steps)
            joint = "_" if split else "."
            for branch, steps in content.items():
                named = [(name, step) for name, step in named_steps(branch, steps) if not isinstance(step, str)]
                alone = len(steps) == 1  # no tower: a layer of the block itself
                for i, (name, step) in enumerate(named):
                    tower = "" if alone else _numbered("tower", towers) + joint
                    if isinstance(step, Layer):
                        yield (block, name), f"{block}.{name}", f"{prefix}.{tower}{_numbered('conv', i)}"
                    else:
                        for side, number in (("a", 0), ("b", 1)):
                            theirs = f"{prefix}.{tower}mixed_{_numbered('conv', number)}"
                            yield (block, name + side), f"{block}.{name}{side}", theirs
                towers += bool(named) and not alone


def _numbered(name: str, i: int) -> str:
    return f"{name}_{i}" if i else name


def convert(tensors: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Return the Flax variables, by "/"-joined paths, of the tensors of either file; raises UserError if some lack."""
    scripted = "output.weight" in tensors
    variables = {}
    try:
        for ours, state_dict, torchscript in layers():
            for (collection, *part), names in PARTS.items():
                name = names[scripted]
                if name is None:
                    value = np.ones_like(tensors[f"{torchscript}.beta"])
                else:
                    value = tensors[f"{torchscript if scripted else state_dict}.{name}"]
                variables["/".join((collection, *ours, *part))] = value
        variables["/".join(HEAD)] = tensors["output.weight" if scripted else "fc.weight"]
    except KeyError as error:
        raise UserError(f"{path} has no tensor {error}, which FID's Inception has: {HELP}") from error
    # PyTorch has [out, in] and [out, in, height, width] where Flax has [in, out] and [height, width, in, out].
    turned = {2: (1, 0), 4: (2, 3, 1, 0)}
    variables = {name: np.transpose(value, turned.get(value.ndim)) for name, value in variables.items()}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in variables.items()}


def check_shapes(flat: Mapping[str, np.ndarray], width: int, path: Path) -> None:
    """Raise UserError unless the variables are those of `InceptionV3(width)`."""
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
    expected = flatten_dict(jax.eval_shape(InceptionV3(width).init, jax.random.key(0), image), sep="/")
    wrong = [name for name, value in expected.items() if flat[name].shape != value.shape]
    if wrong:
        raise UserError(f"{path} is of another network than FID's Inception ({wrong[0]} has another shape): {HELP}")


def _keep(cache: Path, flat: dict[str, np.ndarray], digest: str) -> None:
    """Write the cache, unless it cannot be written; raises UserError if the user has named that place."""
    if usable(cache.parent, sum(value.nbytes for value in flat.values())):
        write_safetensors(cache, flat, digest)
    elif os.environ.get("GM_JAX_CACHE"):
        raise UserError(f"$GM_JAX_CACHE = {os.environ['GM_JAX_CACHE']} cannot be written or is full: set another")
    else:
        logging.warning("No place for the weights of Inception in %s: set $GM_JAX_CACHE.", cache.parent)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Write float32 tensors in the format of the package `safetensors`: a length, a JSON header of it, the values.

    (Twenty lines for one type, instead of a package.) The header names the SHA-256 of the published file and that of
    the values. The file appears whole or not at all.
    """
    header, offset, digest = {}, 0, hashlib.sha256()
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
        digest.update(np.ascontiguousarray(value, "<f4"))
    header["__metadata__"] = {"source": source, "sha256": digest.hexdigest()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for value in tensors.values():
                file.write(np.ascontiguousarray(value, "<f4"))
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide it from other users
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_safetensors(
    path: Path, sources: Mapping[str, str] | tuple[str, ...]
) -> tuple[dict[str, np.ndarray], str] | None:
    """Return the tensors that `write_safetensors` wrote and their source; None if missing, damaged or of another."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:start])
        metadata = header.pop("__metadata__")
        if metadata["source"] not in sources:
            return None
        if hashlib.sha256(memoryview(data)[start:]).hexdigest() == metadata["sha256"]:
            values = np.frombuffer(data, "<f4", offset=start)
            tensors = {
                name: values[entry["data_offsets"][0] // 4 : entry["data_offsets"][1] // 4].reshape(entry["shape"])
                for name, entry in header.items()
            }
            return tensors, metadata["source"]
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    logging.warning("%s is damaged and will be made again.", path)
    return None
