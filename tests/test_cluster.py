"""Several processes of one job: real ones, on CPUs, that find each other by the flags and talk through gloo."""

import json
import subprocess
import sys
import time

import pytest

from gm_jax import joining, launcher
from gm_jax.errors import UserError
from tests.tiny import flags, gm_jax, gm_jax_processes

CHANGES = dict(steps=10, log_every=2, checkpoint_every=5, evaluate_every=5)


def sealed(workdir, step):
    return json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())["content"]


def starts(workdir):
    return json.loads((workdir / "run.json").read_text())["starts"]


def evaluation(workdir):
    results = json.loads((workdir / "evaluation.json").read_text())["results"]
    return {name: result for name, result in results.items() if name != "sampling_time"}


def test_two_processes_stopped_and_killed_end_with_the_bits_of_one_with_two_devices(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    whole, parts = (flags("gan_mnist", folder, **CHANGES) for folder in (one, two))
    for mode in ("train", "evaluate"):
        assert gm_jax(*whole, f"--mode={mode}", devices=2).returncode == 0

    # Both stop after the same step, although only one got the signal, and process 0 alone speaks.
    stopped = gm_jax_processes(*parts, scripts=("gm_jax.main", "tests.interrupted SIGTERM call 2"))
    assert [result.returncode for result in stopped] == [143, 143], stopped[0].stderr
    assert "saved. Continue with:" in stopped[0].stdout and "saved" not in stopped[1].stdout
    step = starts(two)[-1]["to_step"]
    assert 3 <= step <= 3 + 3 and sealed(two, step)["step"] == step

    # One process with two devices goes on from there, and two from where that was stopped.
    result = gm_jax(*parts, script="-m tests.interrupted SIGTERM call 6", devices=2)
    assert result.returncode == 143 and f"from step {step}" in result.stdout

    # One is killed: the other ends with a status that says so, soon, and in one line.
    began = time.time()
    killed = gm_jax_processes(*parts, scripts=("gm_jax.main", "tests.interrupted SIGKILL step 8"))
    assert [result.returncode for result in killed] == [1, -9] and time.time() - began < 60
    assert killed[0].stderr.splitlines()[-1].startswith("gm_jax: another process of this job has ended: start all anew")

    for mode in ("train", "evaluate"):
        finished = gm_jax_processes(*parts, f"--mode={mode}")
        assert [result.returncode for result in finished] == [0, 0], finished[0].stderr
    assert starts(two)[-1]["from_step"] == 7

    assert sealed(one, 10) == sealed(two, 10)
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    pictures = [{path.name: path for path in (folder / "figures").iterdir()} for folder in (one, two)]
    assert pictures[0].keys() == pictures[1].keys()
    assert pictures[0]["samples.png"].read_bytes() == pictures[1]["samples.png"].read_bytes()
    assert evaluation(one) == evaluation(two)


def test_processes_that_were_given_different_configs_end_in_a_line_each(tmp_path):
    given = flags("gan_mnist", tmp_path, **CHANGES)
    results = gm_jax_processes(*given, own=("", "--config.seed=5"))
    assert results[1].returncode == 2 and results[0].returncode not in (0, 2)
    assert "gm_jax (process 1): process 1 has a config other than process 0" in results[1].stderr


def test_a_mistake_of_all_processes_is_told_once(tmp_path):
    results = gm_jax_processes(*flags("gan_mnist", tmp_path, batch_size=3))
    assert [result.returncode for result in results] == [2, 2]
    assert results[0].stderr.count("batch_size=3 is not divisible by the 2 devices") == 1
    assert "batch_size" not in results[1].stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("host:1", 2, None), "--process is missing"),
        ((None, 2, 0), "--coordinator is missing"),
        (("host:1", 2, 2), "--process=2 is not one of 0 ... 1"),
        (("host:1", 2, -1), "--process=-1 is not one of"),
        (("host", 2, 0), "--coordinator=host is not HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_are_told_in_a_line(given, said):
    with pytest.raises(UserError, match=said):
        joining.check_flags(*given)


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, None),
        ({"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2"}, "slurm"),
        ({"SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "1"}, None),
        ({"SLURM_NTASKS": "2"}, None),  # in an allocation, but not started by srun
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, "ompi"),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, None),
    ],
)
def test_the_kind_of_cluster_is_read_from_its_variables(environment, kind):
    assert joining.detect(environment) == kind


def test_open_mpi_5_needs_mpi4py(monkeypatch):
    for found, kind in ((None, None), ("there", "mpi4py")):
        monkeypatch.setattr(joining.importlib.util, "find_spec", lambda name, found=found: found)
        if kind:
            assert joining.detect({"OMPI_COMM_WORLD_SIZE": "2"}) == kind
        else:
            with pytest.raises(UserError, match="pip install mpi4py"):
                joining.detect({"OMPI_COMM_WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("scripts", "status", "said"),
    [
        (["pass", "pass"], 0, ""),
        (["os._exit(2)", "os._exit(2)"], 2, ""),  # they have said why
        (["time.sleep(60)", "os._exit(3)"], 3, "process 1 of 2 ended with exit status 3"),
        (["os.kill(os.getpid(), 9)", "time.sleep(60)"], 137, "process 0 of 2 ended with SIGKILL"),
        (["os._exit(1)", "os.kill(os.getpid(), 9)"], 137, "process 1 of 2 ended with SIGKILL"),
    ],
)
def test_the_launcher_ends_all_when_one_has_died_and_says_which(scripts, status, said, monkeypatch, capfd):
    monkeypatch.setattr(launcher, "GRACE", 0.2)
    command = [sys.executable, "-S", "-c"]
    running = [subprocess.Popen([*command, f"import os, time; {script}"]) for script in scripts]
    time.sleep(0.5)  # so that those that end are seen at once
    assert launcher.wait(running) == status
    assert all(process.poll() is not None for process in running)
    assert (said in capfd.readouterr().err) if said else (capfd.readouterr().err == "")
