"""Every mistake a user can make on the command line: one line that says what to do, exit status 2, nothing lost."""

import json
import sys
from types import SimpleNamespace

import pytest
from absl.testing import flagsaver

from gm_jax import backend, cli, cluster, evaluate, export, main, run, sample, train
from tests.tiny import ROOT, flags, gm_jax, train_tiny

DDPM = f"--config={ROOT / 'configs' / 'ddpm_mnist.py'}"
GAN = f"--config={ROOT / 'configs' / 'dcgan_mnist.py'}"
DIGITS = ["--config.dataset.name=digits"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which experiment? give --config="),
        (["--config=configs/ddpm_mnits.py"], "no config file configs/ddpm_mnits.py (did you mean 'ddpm_mnist.py'?)"),
        (["--config=configs/ddpm_mnist.py:huge"], "has no variant"),
        ([DDPM, "--config.modle.width=3"], "the config has no key 'modle.width' (did you mean 'model.width'?)"),
        ([DDPM, "--config.optim.lr=3"], "the config has no key 'optim.lr'"),
        ([GAN, *DIGITS, "--config.model.generator.widht=3"], "has no key model.generator.widht (did you mean"),
        ([GAN, *DIGITS, "--config.model.discriminator.bias=7"], "must be like its default, True"),
        ([DDPM, "--config.batch_size=many"], "--config.batch_size=many"),
        ([DDPM, "--config.dataset.embedded", "False"], "stray argument 'False'"),
        ([DDPM, "--mode=smaple"], "(did you mean 'sample'?)"),
        ([DDPM, "--confg.steps=3"], "Unknown command line flag 'confg.steps'"),
        ([DDPM, "--config.dataset.name=mnsit"], "(did you mean 'mnist'?)"),
        ([DDPM, "--config.dataset.embedded=False", "--config.dataset.data_dir=/nowhere"], "mnist"),
        ([DDPM, "--workdir=/dev/null/run"], "cannot write to the workdir /dev/null/run"),
        ([DDPM, *DIGITS, "--config.batch_size=7"], "batch_size=7 is not divisible by the 2 devices"),
        ([DDPM, *DIGITS, "--config.steps_per_call=7"], "is not divisible by steps_per_call=7"),
        ([DDPM, *DIGITS, "--config.diffusion.schedule=cosin"], "(did you mean 'cosine'?)"),
        ([DDPM, *DIGITS, "--config.sampling.sampler=dimm"], "(did you mean 'ddim'?)"),
        ([DDPM, *DIGITS, "--config.model.multipliers=(1,1,1,1,1)"], "divide by 64"),
        ([DDPM, *DIGITS, "--config.optim.name=adm"], "(did you mean 'adam'?)"),
        ([DDPM, "--mode=sample"], "there is no run in"),
    ],
)
def test_one_line_and_exit_2(arguments, message, tmp_path):
    if not any(a.startswith("--workdir") for a in arguments):
        arguments = [*arguments, f"--workdir={tmp_path / 'run'}"]
    result = gm_jax(*arguments, devices=2, HOME=str(tmp_path))
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("gm_jax: ")]
    assert len(lines) == 1 and message in lines[0], result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("module", "mode"), [(evaluate, "evaluate"), (export, "export"), (sample, "sample"), (sample, "figures")]
)
def test_a_mode_is_of_the_checkpoint_and_the_keys_that_are_given(module, mode, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(backend, "configure", lambda: None)
    monkeypatch.setattr(run, "open_trained", lambda name, keys, workdir: (name, keys, workdir.path))
    monkeypatch.setattr(module, mode, lambda opened, checkpoint: seen.append((*opened, checkpoint)) or 0)
    given = [DDPM, "--config.sampling.n=3", f"--workdir={tmp_path}", f"--mode={mode}", "--checkpoint=best"]
    monkeypatch.setattr(sys, "argv", ["main", *given])
    with flagsaver.flagsaver():
        cli.parse(sys.argv)
        assert main.main(None) == 0
    assert seen == [("ddpm_mnist", {"sampling.n": 3}, tmp_path, "best")]


def test_a_tasks_own_mode_gets_the_checkpoint_and_gives_the_status(monkeypatch, tmp_path):
    opened = SimpleNamespace(
        restore=lambda checkpoint: f"checkpoint {checkpoint}",
        task=SimpleNamespace(modes=lambda: {"translate": lambda trained: 7 if trained == "checkpoint best" else 0}),
    )
    monkeypatch.setattr("gm_jax.defaults.diffusion.MODES", ("translate",), raising=False)
    monkeypatch.setattr(backend, "configure", lambda: None)
    monkeypatch.setattr(run, "open_trained", lambda *_: opened)
    monkeypatch.setattr(sys, "argv", ["main", DDPM, f"--workdir={tmp_path}", "--mode=translate", "--checkpoint=best"])
    with flagsaver.flagsaver():
        cli.parse(sys.argv)
        assert main.main(None) == 7


def test_training_is_told_the_keys_that_are_given_and_the_command_that_goes_on(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(backend, "configure", lambda: None)
    monkeypatch.setattr(run, "open_training", lambda name, config, workdir, keys: (name, config.steps, workdir, keys))
    monkeypatch.setattr(cluster, "_member", cluster.Member(1, 1))
    monkeypatch.setattr(train, "train", lambda opened, command, began: seen.append((*opened, command)) or 0)
    monkeypatch.setattr(sys, "argv", ["main", f"{DDPM}:paper", "--config.steps=50", f"--workdir={tmp_path / 'a b'}"])
    with flagsaver.flagsaver():
        cli.parse(sys.argv)
        assert main.main(None) == 0
    ((name, steps, workdir, keys, command),) = seen
    assert (name, steps, workdir.path, keys) == ("ddpm_mnist_paper", 50, tmp_path / "a b", {"steps": 50})
    assert not workdir.writes and not workdir.path.exists()
    assert command == f"python -m gm_jax.main {DDPM}:paper --config.steps=50 '--workdir={tmp_path}/a b'"


def test_a_mistake_is_told_before_what_takes_long_is_imported(tmp_path):
    result = gm_jax(DDPM, "--mode=smaple", script="-X importtime -m gm_jax.main", fresh=True)
    assert result.returncode == 2 and "did you mean 'sample'?" in result.stderr
    imported = {line.split()[-1] for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "gm_jax.cli" in imported and not imported & {"jax", "flax", "optax", "orbax", "gm_jax.run"}


def test_traceback_on_request(tmp_path):
    result = gm_jax(DDPM, "--mode=sample", f"--workdir={tmp_path}", "-v=1")
    assert result.returncode == 2 and "Traceback" in result.stderr


def test_offline_start_announces_the_stand_in(tmp_path):
    """No network, no data: MNIST becomes the embedded digits, said in a warning, in run.json and under the figures."""
    changes = dict(dataset__name="mnist", steps=2)
    result = gm_jax(*flags("fnn_mnist", tmp_path / "run", **changes), devices=2, fresh=True, HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    if record["dataset"]["origin"] != "embedded":
        pytest.skip("this machine reached the data host: MNIST itself was downloaded")
    assert "1,797" in record["dataset"]["stand_in"] and record["dataset"]["requested"] == "mnist"
    assert record["dataset"]["stand_in"] in result.stderr


def test_changed_config_on_resume_is_refused_by_field(tmp_path):
    train_tiny(tmp_path, "fnn_cifar10")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    result = gm_jax(*flags("fnn_cifar10", tmp_path, optim__learning_rate=0.5, model__hidden=(16,)), devices=2)
    assert result.returncode == 2
    fields = "model.hidden ([8, 8] there, [16] now), optim.learning_rate (0.001 there, 0.5 now)"
    assert f"was written by another config: {fields}: use those values" in result.stderr
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_several_names_may_be_given_with_commas():
    """As words, without Python's brackets and quotes, paths too; a member of a sweep and a run read them alike."""
    words = ["--config.evaluation.metrics=frechet,kernel", "--config.evaluation.extractors=runs/a_b,pixels"]
    brackets = [
        "--config.evaluation.during=('frechet','kernel')",
        "--config.steps=7",
        "--config.model.multipliers=(1,2)",
    ]
    config, overrides = cli.read_config([DDPM, *words, *brackets, "--config.rows=D1"])
    assert config.evaluation.metrics == config.evaluation.during == ("frechet", "kernel")
    assert overrides["evaluation.extractors"] == config.evaluation.extractors == ("runs/a_b", "pixels")
    assert (config.steps, config.model.multipliers, config.rows) == (7, (1, 2), ("D1",))
