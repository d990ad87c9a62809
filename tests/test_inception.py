"""FID's Inception: its network, the files of its weights, and the ways of resizing what it sees."""

import collections
import hashlib
import importlib.util
import io
import math
import os
import pickle
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from gm_jax import extractors, inception_weights
from gm_jax.data import download
from gm_jax.errors import UserError
from gm_jax.metrics import torch_weights
from gm_jax.metrics.resize import CONVENTIONS, resize
from gm_jax.models.inception import BLOCKS, FEATURES, InceptionV3, averages

WIDTH = 16  # divides the features of the network in tests
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture(autouse=True)
def _no_weights_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("GM_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GM_JAX_INCEPTION", raising=False)


def shapes(width):
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    return flatten_dict(jax.eval_shape(InceptionV3(width).init, jax.random.key(0), image), sep="/")


@pytest.fixture(scope="module")
def small():
    """Random variables of a small network, by their paths."""
    rng = np.random.default_rng(0)
    return {
        name: (0.5 + rng.random(leaf.shape) if name.endswith("var") else rng.standard_normal(leaf.shape)).astype("f4")
        for name, leaf in shapes(WIDTH).items()
    }


# The network.


def test_the_network_has_the_parameters_of_the_published_one():
    """94 layers and a head of 1,008 classes; the twin in PyTorch has as many, and the bias of its head."""
    sizes = {name: math.prod(leaf.shape) for name, leaf in shapes(1).items()}
    statistics = sum(size for name, size in sizes.items() if name.startswith("batch_stats"))
    assert sum(sizes.values()) - statistics == 23_849_952 and statistics == 2 * 17_216
    assert len([name for name in sizes if name.endswith("conv/kernel")]) == 94
    assert sizes["params/fc/kernel"] == FEATURES * 1008


def test_an_average_counts_the_pixels_inside_alone():
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).astype(np.float32)
    windows = [[x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean((1, 2)) for j in range(5)] for i in range(4)]
    np.testing.assert_allclose(averages(jnp.asarray(x)), np.stack([np.stack(r, 1) for r in windows], 1), atol=1e-6)


def test_nothing_is_multiplied_in_less_than_single_precision(small):
    variables = unflatten_dict(small, sep="/")
    program = jax.make_jaxpr(InceptionV3(WIDTH).apply)(variables, jnp.zeros((1, 299, 299, 3)))
    products = [e for e in equations(program.jaxpr) if e.primitive.name in ("dot_general", "conv_general_dilated")]
    assert len(products) == 94 + 1
    assert all(set(e.params["precision"]) == {jax.lax.Precision.HIGHEST} for e in products)


def equations(program):
    """All equations of a program and of those within."""
    for equation in program.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def assert_close(ours, theirs, name):
    """Within 1e-4 of the largest value, and of the typical one on average."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max(), name
    assert np.abs(ours - theirs).mean() <= 3e-5 * np.abs(theirs).mean(), name


@needs_torch
@pytest.mark.parametrize("format", ["zip", "legacy"])
def test_real_size_or_small_the_network_computes_what_pytorch_computes(format, tmp_path):
    """After every block and in every feature, from a file that PyTorch wrote; the real size once, since it is slow."""
    import torch

    from tests.inception_twin import Inception, trained

    width = 1 if format == "zip" else WIDTH
    tiles = np.random.default_rng(1).uniform(-1, 1, (2, 13, 13, 3)).astype(np.float32)
    images = tiles.repeat(23, 1).repeat(23, 2)  # as little noise as photographs have
    twin = trained(Inception(width), torch.from_numpy(nchw(images)))
    file = tmp_path / "state.pth"
    torch.save(twin.state_dict(), file, _use_new_zipfile_serialization=format == "zip")
    variables, _ = inception_weights.load(file, known=known(file), width=width)
    features, logits, blocks = jax.jit(lambda v, x: InceptionV3(width).apply(v, x, blocks=True))(variables, images)
    with torch.inference_mode():
        theirs = twin(torch.from_numpy(nchw(images)))
    assert set(blocks) == set(BLOCKS) and list(theirs[2]) == list(BLOCKS)
    for name, value in theirs[2].items():
        assert_close(nchw(blocks[name]), value, name)
    assert features.shape == (2, FEATURES // width) and float(features.min()) > 0
    np.testing.assert_allclose(features, theirs[0], rtol=1e-4)
    assert_close(logits, theirs[1], "logits")


# Files of weights.


def known(file):
    return {hashlib.sha256(file.read_bytes()).hexdigest(): file.name}


class Storage:
    """What a test pickles as a storage of PyTorch."""

    def __init__(self, key, values, kind="FloatStorage"):
        self.key, self.values, self.kind = key, values, kind


class Call:
    """What a test pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def stand_in(module, name):
    """A function that a pickle names "module.name"."""

    def function(*_):
        raise AssertionError("called")

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


REBUILD = stand_in("torch._utils", "_rebuild_tensor_v2")


def tensor(key, values, offset=0, shape=None, strides=None, kind="FloatStorage"):
    """What a test pickles as a tensor: a view of a storage of its own."""
    values = np.ascontiguousarray(values)
    size = values.itemsize
    shape = values.shape if shape is None else shape
    strides = tuple(n // size for n in values.strides) if strides is None else strides
    return Call(REBUILD, Storage(key, values, kind), offset, shape, strides, False, collections.OrderedDict())


def pickled(tree, monkeypatch, view=()):
    """Pickle as PyTorch does, with stand-ins for its functions; returns also the storages that were met.

    `view` is what the old format has at the end of a storage's id.
    """
    storages = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                storages[value.key] = value.values.tobytes()
                return "storage", getattr(sys.modules["torch"], value.kind), value.key, "cpu", value.values.size, *view
            return None

    with monkeypatch.context() as patch:
        for name in ("torch", "torch._utils"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        for kind in ("FloatStorage", "LongStorage", "WeirdStorage"):
            setattr(sys.modules["torch"], kind, stand_in("torch", kind))
        sys.modules["torch._utils"]._rebuild_tensor_v2 = REBUILD
        stream = io.BytesIO()
        Pickler(stream, protocol=2).dump(tree)
    return stream.getvalue(), storages


def write_zip(file, tree, monkeypatch, **changes):
    """Write an archive as `torch.save` does."""
    data, storages = pickled(tree, monkeypatch)
    members = {"data.pkl": data, "byteorder": b"little", **{f"data/{key}": raw for key, raw in storages.items()}}
    with zipfile.ZipFile(file, "w") as archive:
        for name, raw in {**members, **changes}.items():
            archive.writestr(f"state/{name}", raw)
    return file


def write_legacy(file, tree, monkeypatch, magic=0x1950A86A20F9469CFC6C, little=True, view=None):
    """Write the row of pickles that `torch.save` wrote before version 1.6, as the published state dict is."""
    data, storages = pickled(tree, monkeypatch, view=(view,))
    info = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(part, protocol=2) for part in (magic, 1001, info))
    raw = b"".join((len(values) // 4).to_bytes(8, "little") + values for values in storages.values())
    file.write_bytes(head + data + pickle.dumps(list(storages), protocol=2) + raw)
    return file


def state_dict_of(small):
    """A state dict in pytorch-fid's names, made from the variables of the small network."""
    state = collections.OrderedDict()
    for ours, theirs, _ in inception_weights.layers():
        for (collection, *part), (name, _) in inception_weights.PARTS.items():
            value = small["/".join((collection, *ours, *part))]
            state[f"{theirs}.{name}"] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    state["fc.weight"] = small["params/fc/kernel"].T
    return collections.OrderedDict((name, tensor(str(i), value)) for i, (name, value) in enumerate(state.items()))


def refusal(function, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_state_dict_becomes_the_networks_variables_and_the_second_load_is_from_the_cache(
    write, small, tmp_path, monkeypatch
):
    file = write(tmp_path / "small.pth", state_dict_of(small), monkeypatch)
    hashes = known(file)
    variables, digest = inception_weights.load(file, known=hashes, width=WIDTH)
    assert {digest: "small.pth"} == hashes
    assert set(flatten_dict(variables, sep="/")) == set(small)
    monkeypatch.setattr(torch_weights, "read", None)  # what is in the cache is not read again
    again = [inception_weights.load(file, hashes, WIDTH), inception_weights.load(None, hashes, WIDTH)]
    monkeypatch.setenv("GM_JAX_INCEPTION", str(file))
    for loaded, found in [(variables, digest), *again, inception_weights.load(known=hashes)]:
        assert found == digest
        for name, value in flatten_dict(loaded, sep="/").items():
            np.testing.assert_array_equal(value, small[name], err_msg=name)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["inception.safetensors"]
    assert "cannot be read" in refusal(inception_weights.load, tmp_path / "gone.pth", hashes)


def test_the_cache_is_a_safetensors_file_and_made_again_if_damaged_or_of_another_source(tmp_path):
    file = tmp_path / "x.safetensors"
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([7])}
    inception_weights.write_safetensors(file, tensors, "from")
    data = file.read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert header % 8 == 0 and np.frombuffer(data[8 + header :], "<f4").tolist() == [0, 1, 2, 3, 4, 5, 7]
    found, source = inception_weights.read_safetensors(file, ("from",))
    assert source == "from" and found["a"].tolist() == tensors["a"].tolist() and found["b"].tolist() == [7]
    assert inception_weights.read_safetensors(file, ("elsewhere",)) is None
    for damaged in (data[:-1], data[:-1] + b"?", data[:20], b"", data[:8] + b"?" + data[9:]):
        file.write_bytes(damaged)
        assert inception_weights.read_safetensors(file, ("from",)) is None


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    file = write_zip(tmp_path / "x.pth", {"fc.weight": tensor("0", np.ones((3, 2), "f4"))}, monkeypatch)
    hashes = known(file)
    assert "has no tensor 'Conv2d_1a_3x3.conv.weight'" in refusal(inception_weights.load, file, hashes)
    assert "is not FID's Inception, or damaged" in refusal(inception_weights.load, file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "is not FID's Inception, or damaged" in refusal(inception_weights.load, file, hashes)
    assert set(inception_weights.KNOWN.values()) == {
        "pt_inception-2015-12-05-6726825d.pth",
        "inception-2015-12-05.pt",
    }
    assert [digest[:16] for digest in inception_weights.KNOWN] == ["6726825d0af5f729", "f58cb9b6ec323ed6"]


def test_weights_of_another_shape_are_refused_and_not_kept(small, tmp_path, monkeypatch):
    file = write_zip(tmp_path / "small.pth", state_dict_of(small), monkeypatch)
    assert "is of another network" in refusal(inception_weights.load, file, known(file), width=8)
    assert not (tmp_path / "cache").exists()


def test_without_file_cache_and_network_one_line_says_which_file_to_give(monkeypatch):
    monkeypatch.setattr(inception_weights, "silence", lambda url: "ConnectionError")
    assert "does not answer (ConnectionError): give pt_inception-2015-12-05" in refusal(inception_weights.load)


def test_a_download_is_checked_converted_and_removed(small, tmp_path, monkeypatch):
    import requests

    file = write_zip(tmp_path / "small.pth", state_dict_of(small), monkeypatch)
    monkeypatch.setattr(inception_weights, "silence", lambda url: None)

    class Response(io.BytesIO):
        def raise_for_status(self):
            pass

        def iter_content(self, size):
            return iter(lambda: self.read(size), b"")

    monkeypatch.setattr(requests, "get", lambda *_, **__: Response(file.read_bytes()))
    assert "is not FID's Inception, or damaged" in refusal(inception_weights.load)
    _, digest = inception_weights.load(known=known(file), width=WIDTH)
    assert digest in known(file)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["inception.safetensors"]
    assert download.PATIENCE < 10


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    evil = {"fc.weight": Call(os.system, f"touch {marker}")}
    file = write_zip(tmp_path / "evil.pth", evil, monkeypatch)
    assert "asks to run or use 'posix.system'" in refusal(torch_weights.read, file)
    assert "posix.system" in refusal(inception_weights.load, file, known(file))
    for function in (eval, getattr, pickle.loads, importlib.import_module):
        file = write_zip(tmp_path / "evil.pth", {"a": Call(function, "1")}, monkeypatch)
        assert f"{function.__name__}'" in refusal(torch_weights.read, file)
    file.write_bytes(pickle.dumps(Call(os.system, f"touch {marker}"), protocol=2))  # the old format
    assert "asks to run or use 'posix.system'" in refusal(torch_weights.read, file)
    assert not marker.exists()


def test_views_are_read_and_what_reaches_beyond_its_storage_is_refused(tmp_path, monkeypatch):
    values = np.arange(6, dtype=np.float32)
    views = {
        "turned": tensor("0", values, 0, (3, 2), (1, 3)),
        "part": tensor("1", values, 4, (2,), (1,)),
        "scalar": tensor("2", np.int64([3]), 0, (), (), kind="LongStorage"),
        "empty": tensor("3", values, 0, (0, 2), (2, 1)),
        "deep": {"er": tensor("4", values)},
        "text": "not a tensor",
    }
    found = torch_weights.read(write_zip(tmp_path / "x.pth", views, monkeypatch))
    assert {name: value.tolist() for name, value in found.items()} == {
        "turned": [[0, 3], [1, 4], [2, 5]],
        "part": [4, 5],
        "scalar": 3,
        "empty": [],
        "deep.er": [0, 1, 2, 3, 4, 5],
    }
    for offset, shape, strides in [
        (1, (6,), (1,)),
        (0, (2,), (6,)),
        (0, (7,), (0,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
        (0, (2**40, 2**40), (0, 0)),
    ]:
        file = write_zip(tmp_path / "x.pth", {"a": tensor("0", values, offset, shape, strides)}, monkeypatch)
        assert "is damaged or no PyTorch file" in refusal(torch_weights.read, file)


def test_damaged_archives_are_refused_in_one_line(tmp_path, monkeypatch):
    good = {"a": tensor("0", np.arange(100, dtype=np.float32))}
    file = write_zip(tmp_path / "x.pth", good, monkeypatch)
    data = file.read_bytes()
    place = data.index(np.arange(100, dtype=np.float32).tobytes()) + 50
    flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    for damaged in (flipped, data[: len(data) // 2], data[:-30], b"", b"PK\x03\x04", b"\x80\x02", b"weights"):
        file.write_bytes(damaged)
        assert "is damaged or no PyTorch file" in refusal(torch_weights.read, file)
    for changes in (
        {"data/0": b"short"},
        {"data/0": b"0" * 404},
        {"byteorder": b"big"},
        {"data.pkl": b"cos\nsystem\n."},
    ):
        write_zip(file, good, monkeypatch, **changes)
        refusal(torch_weights.read, file)
    for wrong, reason in (
        (tensor("../../0", np.ones(1, "f4")), "could leave the archive"),
        (tensor("0", np.ones(1, "f4"), kind="WeirdStorage"), "asks to run or use 'torch.WeirdStorage'"),
        (Call(REBUILD, "no storage", 0, (1,), (1,)), "a tensor without storage"),
    ):
        assert reason in refusal(torch_weights.read, write_zip(file, {"x": wrong}, monkeypatch))
    assert "cannot be read" in refusal(torch_weights.read, tmp_path / "gone")
    loop = {}
    loop["a"] = loop
    assert "without end" in refusal(torch_weights.read, write_zip(file, loop, monkeypatch))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # a small file may become a large array
        archive.writestr("state/data.pkl", pickled(good, monkeypatch)[0], zipfile.ZIP_STORED)
        archive.writestr("state/data/0", bytes(400))
    assert "no 'data/0' of the right size" in refusal(torch_weights.read, file)
    monkeypatch.setattr(torch_weights, "MAX_FILE", 100)
    assert "has more than" in refusal(torch_weights.read, file)


def test_damaged_files_of_the_old_format_are_refused_in_one_line(tmp_path, monkeypatch):
    values = {"a": tensor("94", np.arange(100, dtype=np.float32)), "b": tensor("95", np.ones((2, 3), "f4"))}
    file = write_legacy(tmp_path / "x.pth", values, monkeypatch)
    assert torch_weights.read(file)["b"].tolist() == [[1, 1, 1], [1, 1, 1]]
    data = file.read_bytes()
    size = data.index((100).to_bytes(8, "little") + bytes(4))
    for damaged in (data[:-1], data[: len(data) // 2], data[:size] + b"e" + data[size + 1 :]):
        file.write_bytes(damaged)
        assert "is damaged or no PyTorch file" in refusal(torch_weights.read, file)
    for wrong in ({"magic": 7}, {"little": False}, {"view": ("root", 0, 6)}):
        assert "is damaged or no PyTorch file" in refusal(
            torch_weights.read, write_legacy(file, values, monkeypatch, **wrong)
        )


TOWERS = {  # names of StyleGAN2-ADA's archive, as its sources have them
    "Conv2d_4a_3x3": "conv_4",
    "Mixed_5b.branch1x1": "mixed.conv",
    "Mixed_5b.branch5x5_2": "mixed.tower.conv_1",
    "Mixed_5d.branch3x3dbl_3": "mixed_2.tower_1.conv_2",
    "Mixed_5d.branch_pool": "mixed_2.tower_2.conv",
    "Mixed_6a.branch3x3": "mixed_3.conv",
    "Mixed_6a.branch3x3dbl_1": "mixed_3.tower.conv",
    "Mixed_6e.branch7x7_3": "mixed_7.tower.conv_2",
    "Mixed_6e.branch7x7dbl_5": "mixed_7.tower_1.conv_4",
    "Mixed_7a.branch3x3_2": "mixed_8.tower.conv_1",
    "Mixed_7a.branch7x7x3_4": "mixed_8.tower_1.conv_3",
    "Mixed_7b.branch3x3_1": "mixed_9.tower_conv",
    "Mixed_7b.branch3x3_2a": "mixed_9.tower_mixed_conv",
    "Mixed_7b.branch3x3_2b": "mixed_9.tower_mixed_conv_1",
    "Mixed_7c.branch3x3dbl_2": "mixed_10.tower_1_conv_1",
    "Mixed_7c.branch3x3dbl_3b": "mixed_10.tower_1_mixed_conv_1",
    "Mixed_7c.branch_pool": "mixed_10.tower_2_conv",
}


def test_layers_have_the_names_of_the_archive():
    names = {state_dict: archive for _, state_dict, archive in inception_weights.layers()}
    assert len(names) == len(set(names.values())) == 94
    assert {name: names[name] for name in TOWERS} == {name: f"layers.{theirs}" for name, theirs in TOWERS.items()}


@needs_torch
def test_a_torchscript_archive_gives_the_same_variables(small, tmp_path):
    """An archive with the modules, names and attributes of StyleGAN2-ADA's: lists of numbers, flags and code, too."""
    import torch

    class Layer(torch.nn.Module):
        def __init__(self, weight, beta, mean, var):
            super().__init__()
            self.stride, self.padding = 1, [0, 3]
            for name, value in dict(weight=weight, beta=beta, mean=mean, var=var).items():
                setattr(self, name, torch.nn.Parameter(torch.from_numpy(value.copy())))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
            return torch.nn.functional.batch_norm(x, self.mean, self.var, bias=self.beta, eps=1e-3)

    class Group(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Group()
    for ours, _, theirs in inception_weights.layers():
        *groups, last = theirs.split(".")
        parent = root
        for group in groups:
            if not hasattr(parent, group):
                parent.add_module(group, Group())
            parent = getattr(parent, group)
        kernel = small["/".join(("params", *ours, "conv", "kernel"))].transpose(3, 2, 0, 1)
        beta = small["/".join(("params", *ours, "bn", "bias"))]
        statistics = [small["/".join(("batch_stats", *ours, "bn", name))] for name in ("mean", "var")]
        parent.add_module(last, Layer(kernel, beta, *statistics))
    root.output = torch.nn.Linear(FEATURES // WIDTH, 1008)
    root.output.weight.data = torch.from_numpy(small["params/fc/kernel"].T.copy())
    file = tmp_path / "scripted.pt"
    torch.jit.script(root).save(str(file))
    variables, _ = inception_weights.load(file, known=known(file), width=WIDTH)
    expected = {name: np.ones_like(v) if name.endswith("scale") else v for name, v in small.items()}
    for name, value in flatten_dict(variables, sep="/").items():
        np.testing.assert_array_equal(value, expected.pop(name), err_msg=name)
    assert not expected
    assert unflatten_dict(small, sep="/")["params"].keys() == variables["params"].keys()


# Resizing.


def images(height, width, channels=3, n=2):
    return np.random.default_rng(height).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def bilinear(x, size, centres):
    """A loop over pixels: x [B, H, W, C] float64."""
    result = np.empty((len(x), size, size, x.shape[-1]))
    for i in range(size):
        for j in range(size):
            y, z = ((k + centres / 2) * n / size - centres / 2 for k, n in ((i, x.shape[1]), (j, x.shape[2])))
            y, z = max(y, 0), max(z, 0)
            top, left = int(y), int(z)
            bottom, right = min(top + 1, x.shape[1] - 1), min(left + 1, x.shape[2] - 1)
            a, b = y - top, z - left
            upper = (1 - b) * x[:, top, left] + b * x[:, top, right]
            lower = (1 - b) * x[:, bottom, left] + b * x[:, bottom, right]
            result[:, i, j] = (1 - a) * upper + a * lower
    return result


def cubic(x, size):
    """Bicubic with antialiasing along the two middle axes, as Pillow documents it (a = -1/2)."""

    def kernel(t):
        t = abs(t)
        return (1.5 * t - 2.5) * t * t + 1 if t < 1 else (((t - 5) * t + 8) * t - 4) * -0.5 if t < 2 else 0.0

    for axis in (1, 2):
        n = x.shape[axis]
        stretch = max(n / size, 1)
        rows = []
        for i in range(size):
            weights = np.array([kernel((k + 0.5 - (i + 0.5) * n / size) / stretch) for k in range(n)])
            rows.append(np.tensordot(weights / weights.sum(), x, (0, axis)))
        x = np.stack(rows, axis)
    return x


@pytest.mark.parametrize("shape", [(4, 6), (9, 7), (7, 23), (1, 1)])
def test_resizing_is_what_loops_over_pixels_compute(shape):
    x = images(*shape)
    exact = x.astype(float)
    loops = {
        "tf": (bilinear(exact, 7, 0) - 128) / 128,
        "pytorch": 2 * bilinear(exact / 255, 7, 1) - 1,
        "clean": (cubic(exact, 7) - 128) / 128,
    }
    assert list(loops) == list(CONVENTIONS)
    for convention, expected in loops.items():
        ours = resize(x, convention, 7)
        assert ours.dtype == np.float32 and ours.shape == (2, 7, 7, 3)
        np.testing.assert_allclose(ours, expected, atol=2e-5, err_msg=convention)


def test_images_of_the_right_size_keep_their_values():
    x = images(299, 299, n=1)
    for convention in CONVENTIONS:
        expected = 2 * (x / 255) - 1 if convention == "pytorch" else (x - 128.0) / 128
        np.testing.assert_allclose(resize(x, convention), expected, atol=1e-6)


def test_clean_is_pillows_float_images_a_channel_at_a_time():
    x = images(32, 48, n=1)
    channels = [
        Image.fromarray(x[0, :, :, i].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC) for i in range(3)
    ]
    assert {channel.mode for channel in channels} == {"F"}
    expected = (np.stack([np.asarray(channel) for channel in channels], -1) - 128) / 128
    np.testing.assert_array_equal(resize(x, "clean")[0], expected)
    assert expected.max() > 1  # neither clipped nor rounded


@needs_torch
@pytest.mark.parametrize("shape", [(32, 32), (64, 48), (300, 1)])
def test_bilinear_resizing_is_pytorchs_and_nvidias(shape):
    import torch
    import torch.nn.functional as F

    x = images(*shape)
    theirs = torch.from_numpy(nchw(x)).float()
    half = 2 * F.interpolate(theirs / 255, size=(299, 299), mode="bilinear", align_corners=False) - 1
    np.testing.assert_allclose(nchw(resize(x, "pytorch")), half, atol=2e-5)
    # NVIDIA's archive writes TensorFlow's resizing as a shift of a grid.
    theta = torch.eye(2, 3)
    theta[0, 2] += 1 / shape[1] - 1 / 299
    theta[1, 2] += 1 / shape[0] - 1 / 299
    grid = F.affine_grid(theta[None].repeat(len(x), 1, 1), list(theirs.shape[:2]) + [299, 299], align_corners=False)
    shifted = F.grid_sample(theirs, grid, mode="bilinear", padding_mode="border", align_corners=False)
    np.testing.assert_allclose(nchw(resize(x, "tf")), (shifted - 128) / 128, atol=2e-4)


def test_grey_images_are_repeated_and_other_channels_and_conventions_refused():
    x = images(5, 5, channels=1)
    for convention in CONVENTIONS:
        grey = np.asarray(resize(x, convention, 7))
        assert grey.shape == (2, 7, 7, 3)
        np.testing.assert_array_equal(grey, resize(x.repeat(3, -1), convention, 7))
    assert "not 4 channels" in refusal(resize, images(5, 5, channels=4), "tf")
    assert "(did you mean 'pytorch'?): tf, pytorch, clean" in refusal(resize, x, "torch")


def test_conventions_are_part_of_the_name(small, monkeypatch):
    """Only the published weights make an FID; the features are the network's of the resized images."""
    variables = unflatten_dict(small, sep="/")
    monkeypatch.setattr(inception_weights, "load", lambda path: (variables, "another"))
    monkeypatch.setattr(extractors, "InceptionV3", lambda: InceptionV3(WIDTH))
    monkeypatch.setattr(extractors, "INCEPTION_CHUNK", 2)
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 1), dtype=np.uint8)
    apply = jax.jit(InceptionV3(WIDTH).apply)
    for convention in CONVENTIONS:
        extractor = extractors.open_extractor("inception", convention, (20, 24, 1), "file")
        assert (extractor.name, extractor.published) == (f"inception_{convention}", False)
        assert (extractor.width, extractor.classes) == (FEATURES // WIDTH, 1008)
        if convention != "pytorch":  # one that is resized on the device, and the one on the host
            expected = np.concatenate(apply(variables, resize(images, convention)), 1)
            assert_near(extractor.see(images), expected)
    monkeypatch.setattr(inception_weights, "load", lambda path: (variables, next(iter(inception_weights.KNOWN))))
    published = extractors.open_extractor("inception", "clean", (20, 24, 1))
    assert (published.name, published.published) == ("clean", True) and published.identity.startswith("6726825d")


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
