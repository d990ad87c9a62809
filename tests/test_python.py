"""Runs from Python: the notebook, what it exports in a process without gm_jax, and what a user may do wrong."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import gm_jax
from gm_jax import api
from gm_jax.defaults import vae_config
from tests import tiny

NOTEBOOK = tiny.ROOT / "examples" / "first_steps.ipynb"
TRAIN = 'gm_jax.train_run(config, "runs/first_steps", changes)'
WITHOUT_GM_JAX = "import sys\nsys.modules['gm_jax'] = None  # whoever imports it fails\n"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """What the notebook's cells leave, run one after the other, and where.

    The run is shrunk as other tests shrink it, so that they compile the same programs.
    """
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert TRAIN in text
    text = text.replace(TRAIN, TRAIN.replace("changes", "changes | tiny"))
    shrunk = tiny.shrinking(tiny.load("ddpm_mnist"), {})
    names, folder = {"tiny": shrunk}, tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(text, str(NOTEBOOK), "exec"), names)
    return names, folder


def test_the_notebook(notebook):
    names, _ = notebook
    run = names["run"]
    assert run.step == 4 and run.config.model.width == 8 and [line["step"] for line in run.metrics()] == [2, 4, 4]
    assert names["images"].shape == (20, 28, 28, 1) and names["images"].dtype == np.uint8
    expected = run.run.task.sample(run.trained.variables, 20, 0)  # all digits in turn
    np.testing.assert_array_equal(names["images"], expected["images"])
    assert np.abs(np.int16(names["again"]) - expected["images"]).max() <= 1
    assert names["results"]["loss"]["n"] == 10
    saved = json.loads((run.run.workdir.path / "evaluation.json").read_text())
    assert saved["results"]["loss"] == names["results"]["loss"] and saved["step"] == 4
    assert run.figure("loss").size > (50, 50)
    changes = {"sampling.steps": 3, "sampling.guidance_interval": (0.3, 5.0), "sampling.guidance": 2}
    changed = gm_jax.load(run.run.workdir.path, "best", changes)
    assert (changed.step, changed.config.sampling.steps, changed.config.sampling.guidance) == (4, 3, 2.0)
    assert tuple(changed.config.sampling.guidance_interval) == (0.3, 5.0) and run.config.sampling.steps == 5


def test_the_ten_lines_of_the_docs_draw_the_samples_of_the_run_without_gm_jax(notebook):
    names, folder = notebook
    (code,) = re.findall(r"```python\n(.*?)```", (tiny.ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    code = code.replace("runs/ddpm_mnist/export", str(names["folder"]))
    command = [sys.executable, "-c", f"{WITHOUT_GM_JAX}{code}\nnp.save('images.npy', images)"]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "XLA_FLAGS")}
    (folder / "empty").mkdir()
    subprocess.run(command, cwd=folder / "empty", env=environment, check=True)
    images = np.load(folder / "empty" / "images.npy")
    difference = np.abs(np.int16(images) - names["images"][:16])
    assert images.dtype == np.uint8 and difference.max() <= 1 and np.mean(difference) < 0.01


def test_labels_are_numbers_or_names_for_all_or_for_each(notebook, monkeypatch):
    run, seen = notebook[0]["run"], []
    monkeypatch.setattr(run.run.task, "apply", lambda f, v, batch, seed: seen.append((batch, seed)) or {"images": 0})
    for label, expected in ((7, [7, 7]), ("7", [7, 7]), ([1, "2"], [1, 2]), (np.array([3, 4]), [3, 4]), (None, [0, 1])):
        run.sample(2, seed=5, label=label)
        batch, seed = seen.pop()
        assert batch["label"].tolist() == expected and batch["label"].dtype == np.int32 and seed == 5
    monkeypatch.setitem(run.config.sampling, "seed", 9)
    run.sample()
    batch, seed = seen.pop()
    assert len(batch["label"]) == run.config.sampling.n and seed == 9


def test_a_mistake_is_a_user_error_of_one_line(notebook, tmp_path):
    run, folder = notebook[0]["run"], notebook[0]["run"].run.workdir.path
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(folder / "config.json", half)
    for call, message in (
        (lambda: gm_jax.load(tmp_path / "none"), "there is no run in"),
        (lambda: gm_jax.load(half), "has no run.json that tells its data"),
        (lambda: gm_jax.load(folder, 3), "there is no checkpoint 3; there are 2, 4, newest and best"),
        (lambda: gm_jax.load(folder, changes={"sampling.stesp": 3}), "(did you mean 'sampling.steps'?)"),
        (lambda: gm_jax.load(folder, changes={"sampling.steps": "many"}), "sampling.steps='many': "),
        (lambda: gm_jax.load(folder, changes={"model.width": 9}), "was trained with 8: leave it out"),
        (lambda: run.sample(2, label=10), "there is no class 10"),
        (lambda: run.sample(2, label=7.5), "there is no class 7.5"),
        (lambda: run.sample(0, label=7), "n must be at least 1"),
        (lambda: run.sample(2, seed=-1), "a seed from 0 to 4294967295"),
        (lambda: run.sample(2, label="seven"), "there is no class 'seven'"),
        (lambda: run.sample(2, label=[1, 2, 3]), "2 samples with 3 labels"),
        (lambda: run.figure("reverse_chian"), "(did you mean 'reverse_chain'?)"),
        (lambda: run.apply("denoisr"), "there is no network 'denoisr' (did you mean 'denoiser'?)"),
        (lambda: gm_jax.read_config("configs/ddpm_mnits.py"), "there is no config file"),
        (lambda: gm_jax.train_run(vae_config(), tmp_path, {"stesp": 3}), "the config has no key 'stesp'"),
        (lambda: gm_jax.train_run("configs/fnn_mnist.py", tmp_path), "is no config: read one with gm_jax.read_config"),
        (lambda: gm_jax.train_run(vae_config(), "/dev/null/run"), "cannot write to the workdir"),
    ):
        with pytest.raises(gm_jax.UserError, match=re.escape(message)) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_a_config_of_a_file_is_that_of_the_command_line():
    config = gm_jax.read_config(tiny.CONFIGS["vae_mnist"].parent / "vae_mnist.py:modern")
    assert config.to_json() == tiny.load("vae_mnist:modern").to_json()


def test_training_gets_the_changes_and_leaves_the_config_alone(tmp_path, monkeypatch):
    """Changes prevail over what the config says for embedded data; an interrupt is one."""
    seen = []
    monkeypatch.setattr(api, "train", lambda run, command, began: seen.append((run, command)) or 130)
    config = tiny.load("fnn_mnist")
    config.dataset.name, config.if_embedded = "digits", {"log_every": 30, "batch_size": 20}
    before = config.to_json()
    with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
        gm_jax.train_run(config, tmp_path / "run", {"log_every": 7})
    ((run, command),) = seen
    assert (run.config.log_every, run.config.batch_size, run.overrides) == (7, 20, {"log_every": 7})
    assert run.name == "run" and command == f"gm_jax.train_run(config, '{tmp_path}/run')"
    assert config.to_json() == before


def test_importing_gm_jax_imports_no_jax():
    code = "import gm_jax, sys; gm_jax.UserError; print(*dir(gm_jax)); assert not {'jax', 'numpy'} & sys.modules.keys()"
    result = subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, check=True, capture_output=True, text=True)
    assert {"load", "train_run", "read_config", "load_export", "UserError"} <= set(result.stdout.split())
    with pytest.raises(AttributeError, match="module 'gm_jax' has no attribute 'laod'"):
        gm_jax.laod  # noqa: B018
