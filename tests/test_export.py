"""Mode export: programs do what the tasks' functions do, and bad folders are told in a line.

Here are made-up weights, and of every task the programs that compile fast; EXPORT_ALL=1 takes the others, too.
`test_python` runs the sampler of a diffusion model, in a process without gm_jax.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from gm_jax.errors import UserError
from gm_jax.export import by_name, export, lower, write_export
from gm_jax.exported import call, load_export
from gm_jax.model_card import numbers, sampled_otherwise, summary
from gm_jax.provenance import describe_data, describe_start
from gm_jax.run import Run
from gm_jax.tasks.task import Trained
from gm_jax.workdir import read_json, write_json
from tests.tiny import open_tiny

N = 3
COMMAND = "python -m gm_jax.main --config.dataset.data_dir='/home/my own' --workdir=/tmp/x --config.seed=1"
PROGRAMS = {  # of a config: those that are run, and those that are exported if EXPORT_ALL=1
    "cgan_mnist": (("generator",), ("sample",)),
    "stylegan_shapes": (("mapping",), ("sample", "synthesis")),
    "cyclegan_shapes": (("translate_ab",), ("translate_ba",)),
    "vae_celeba": (("sample", "encoder"), ("decoder",)),
    "denoising_autoencoder_mnist": (("encoder",), ("decoder",)),
    "fnn_mnist": (("classifier",), ()),
    "gmm_mnist": ((), ("sample",)),
    "naive_bayes_mnist": (("sample",), ()),
}
READ = {  # networks and memory whose weights go along
    "cgan_mnist": {"params/generator", "model_state/generator"},
    "cyclegan_shapes": {"params/ab"},
    "fnn_mnist": {"params/classifier"},
}


def pretend(folder: Path, name: str, **changes) -> tuple[Run, Trained]:
    """Open a tiny run whose weights are made up: nothing needs to be trained or compiled."""
    run = open_tiny(folder, name, **changes)
    run.workdir.update_run(dataset=describe_data(run), **describe_start(run, COMMAND))
    write_json(run.workdir.path / "config.json", json.loads(run.config.to_json()))
    rng = np.random.default_rng(0)

    def fill(path, x):
        values = 0.3 * rng.normal(size=x.shape)
        positive = {"density", "var", "level"} & {getattr(key, "key", "") for key in path}
        return np.asarray(np.abs(values) if positive else values, x.dtype)

    return run, run.trained(jax.tree_util.tree_map_with_path(fill, run.experiment.state_shapes()))


def inputs_of(program) -> dict[str, np.ndarray]:
    """Draw inputs as a program describes them."""
    rng = np.random.default_rng(1)
    draw = {"uint8": lambda shape: rng.integers(0, 256, shape), "int32": lambda shape: rng.integers(0, 2, shape)}
    draw["float32"] = lambda shape: rng.normal(size=shape)
    return {name: np.asarray(draw[x.dtype]((N, *x.shape)), x.dtype) for name, x in program.inputs.items()}


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for rounding: of a few pixels to the next grey level."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if actual.dtype == np.uint8:
        difference = np.abs(np.int16(actual) - expected)
        assert difference.max() <= 1 and np.mean(difference) < 0.01 and np.std(expected) > 1.0
    else:
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_do_what_the_tasks_functions_do(name, tmp_path, monkeypatch):
    (run, trained), folder = pretend(tmp_path / "run", name), tmp_path / "export"
    programs, (fast, slow) = run.task.programs(), PROGRAMS[name]
    assert programs.keys() == {*fast, *slow}
    chosen = programs if os.environ.get("EXPORT_ALL") else {key: programs[key] for key in fast}
    if not chosen:
        pytest.skip("only with EXPORT_ALL=1")
    monkeypatch.setattr(run.task, "programs", lambda: chosen)
    write_export(run, trained, folder)
    about = json.loads((folder / "export.json").read_text())
    if name in READ and chosen.keys() == set(fast):
        assert {"/".join(path.split("/")[:2]) for path in load_file(folder / "weights.safetensors")} == READ[name]
    assert "label" not in about["sampling"]  # the caller says it
    for file in folder.glob("*.jaxexport"):
        assert b"gm_jax" not in file.read_bytes()  # no path of this machine
    for key, program in load_export(folder).items():
        given, position = inputs_of(programs[key]), np.arange(5, 5 + N, dtype=np.int32)
        expected = run.task.apply(programs[key].function, trained.variables, {**given, "position": position}, seed=3)
        keys = {"number": position, "seed": 3} if key in ("sample", "synthesis") else {}  # others draw nothing
        assert about["programs"][key]["inputs"].keys() == {*given, *keys}
        made = program(**given, **keys)
        for output, value in expected.items():
            same(made[output], value)
            described = about["programs"][key]["outputs"][output]
            assert described["shape"] == ["batch", *value.shape[1:]] and described["dtype"] == str(value.dtype)


def test_a_program_has_xlas_own_convolutions(tmp_path):
    run, trained = pretend(tmp_path / "run", "cgan_mnist")
    weights, rebuild = by_name(trained.variables)
    exported = lower(run.task.programs()["generator"], rebuild, weights, 2, ["tpu"])
    kernels = [x for x in jax.tree.leaves(trained.variables.params["generator"]) if np.ndim(x) == 4]
    assert exported.mlir_module().count("stablehlo.convolution(") == len(kernels) > 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run, its weights, and an export of small programs."""
    folder = tmp_path_factory.mktemp("exported")
    run, trained = pretend(folder / "run", "autoencoder_mnist")
    error = {"value": 0.5, "standard_error": 0.01, "n": 7, "split": "test", "unit": "dB", "note": "of few images"}
    write_json(run.workdir.path / "evaluation.json", {"step": trained.step, "results": {"error": error}})
    write_export(run, trained, folder / "export")
    return run, trained, folder / "export"


def test_the_model_card_tells_data_numbers_calls_and_command(exported):
    run, trained, folder = exported
    card = (folder / "README.md").read_text()
    assert "trained on digits (embedded: 28 x 28 x 1; 1350 examples of the split train)" in card
    assert "| error (dB) | 0.5 | 0.01 | 7 | test |\n\n- error: of few images." in card
    assert "Command: `python -m gm_jax.main --config.seed=1`" in card
    about = json.loads((folder / "export.json").read_text()) | {"stand_in": "MNIST was not found"}
    assert "NOTE: MNIST was not found." in summary(about, run.workdir.run()["dataset"]) and "NOTE" not in card
    code = card.split("```python")[1].split("```")[0]
    assert "encoder.call(weights, image=np.zeros((2, 28, 28, 1), np.uint8))  # code" in code
    compile(code, "card", "exec")
    otherwise = sampled_otherwise(run, ["seed"], {"overrides": {"sampling.seed": 3, "sampling.n": 9}})
    assert otherwise == ["sampling.seed=3"] and sampled_otherwise(run, ["seed"], {"step": 3}) == []
    evaluation = read_json(run.workdir.path / "evaluation.json")
    assert numbers(trained.step, evaluation, otherwise).startswith("NOTE: their samples were drawn otherwise")
    write_json(run.workdir.path / "evaluation.json", {"step": trained.step + 1, "results": {}})
    assert numbers(trained.step, read_json(run.workdir.path / "evaluation.json")).startswith("This checkpoint has not")


def test_a_bad_export_is_told_in_a_line(exported, tmp_path):
    about = json.loads((exported[2] / "export.json").read_text())
    program = jax.export.deserialize(bytearray((exported[2] / "encoder.jaxexport").read_bytes()))
    assert program.platforms == tuple(about["platforms"]) == ("cpu", "cuda", "tpu")
    operations = dataclasses.replace(program, mlir_module_serialized=b"operations of tomorrow").serialize()
    unreadable = f"was exported by JAX 99.0 and JAX {jax.__version__} cannot read it"

    def future(program):
        about["programs"]["encoder"]["digest"] = hashlib.blake2b(program).hexdigest()[:32]
        return {"encoder.jaxexport": program, "export.json": json.dumps({**about, "jax": "99.0"}).encode()}

    for i, (files, message) in enumerate(
        [
            ({"export.json": None}, "is no export"),
            ({"export.json": b"{"}, "is no export"),
            ({"export.json": b'{"format": 99}'}, "is an export of format 99, not 1"),
            ({"export.json": b"[]"}, "is an export of format None, not 1"),
            ({"encoder.jaxexport": b"half"}, "encoder.jaxexport is damaged or gone"),
            ({"weights.safetensors": None}, "weights.safetensors is damaged or gone"),
            (future(b"a format of tomorrow"), unreadable),
            (future(operations), unreadable),
        ]
    ):
        folder = shutil.copytree(exported[2], tmp_path / str(i))
        for name, content in files.items():
            (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=re.escape(message)) as raised:
            load_export(folder)
        assert "\n" not in str(raised.value)


def test_a_program_is_told_its_inputs_by_name(exported):
    with pytest.raises(UserError, match="the program decoder takes code, not image"):
        load_export(exported[2])["decoder"](image=np.zeros((1, 28, 28, 1)))


def test_inputs_that_do_not_fit_are_refused_and_not_rounded():
    """Images in [0, 1] cast to grey levels would all be black, and label 256 of uint8 label 0."""
    image = {"shape": ["batch", 2, 2, 1], "dtype": "uint8", "meaning": "images, NHWC, 0 ... 255"}
    label = {"shape": ["batch"], "dtype": "int32", "meaning": "a class"}
    known = {"image": image, "label": label, "seed": {"shape": [], "dtype": "uint32", "meaning": "a number"}}
    given = {"image": np.full((3, 2, 2, 1), 255), "label": [0, 1, 2], "seed": 2**32 - 1}
    taken = call("x", known, lambda weights, **inputs: inputs, {}, **given)
    assert {key: str(value.dtype) for key, value in taken.items()} == {k: v["dtype"] for k, v in known.items()}
    for key, value, message in (
        ("image", np.full((3, 2, 2, 1), 0.5), "x: image is float64 with values that are not uint8: images, NHWC"),
        ("image", np.full((3, 2, 2, 1), 256), "with values that are not uint8"),
        ("image", np.zeros((3, 2, 2), np.uint8), "x: image has the shape [3, 2, 2], not [batch, 2, 2, 1]"),
        ("label", ["a", "b", "c"], "with values that are not int32: a class"),
        ("label", [0, 1], "takes as many of each input, one or more, not 3 of image, 2 of label"),
        ("seed", -1, "x: seed is int64 with values that are not uint32"),
        ("seed", [0, 1, 2], "x: seed has the shape [3], not []"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            call("x", known, None, {}, **{**given, key: value})
    with pytest.raises(UserError, match="one or more, not 0 of label"):
        call("x", {"label": label}, None, {}, label=np.zeros(0, int))


def test_an_export_takes_the_place_of_nothing_else(exported, tmp_path):
    """`run.export(folder)` replaces the folder: one that holds a run, or anything but an export, stays as it is."""
    run, trained, _ = exported
    (tmp_path / "file").write_text("")
    for folder, message in (
        (run.workdir.path, "which would be lost: name another one"),
        (tmp_path, "is not an export alone, it has file"),
        (tmp_path / "file", "cannot write an export to"),
        (tmp_path / "file" / "export", "cannot write an export to"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            write_export(run, trained, folder)
    assert (run.workdir.path / "run.json").exists() and (tmp_path / "file").exists()


def test_the_mode_writes_into_the_workdir_in_place_of_an_older_export(tmp_path, monkeypatch, capsys):
    run, trained = pretend(tmp_path, "fnn_mnist")
    monkeypatch.setattr(type(run), "restore", lambda self, checkpoint: trained if checkpoint == "best" else None)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "old.jaxexport").write_text("")
    assert export(run, "best") == 0 and str(tmp_path / "export") in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "export").iterdir()} == {
        "README.md",
        "classifier.jaxexport",
        "export.json",
        "weights.safetensors",
    }
