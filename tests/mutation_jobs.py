"""The processes that try changes: each has a copy of the repository, and forks one of its own for every change.

A job has imported JAX and the like, but nothing that the copy holds; its forks import the copy as it is at that moment.
"""

import collections
import ctypes
import hashlib
import importlib
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.mutations import Mutation

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("gm_jax", "tests", "configs", "benchmarks", "launch", "pyproject.toml")
FOLDER = Path(tempfile.gettempdir()) / f"gm_jax_mutate_{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"
IMPORTED = (  # once by each job, not by each of its forks: what tests need, without gm_jax, without threads
    "jax.numpy flax.linen optax orbax.checkpoint clu.parameter_overview grain.python tensorboardX tensorflow_datasets "
    "ml_collections.config_flags absl.testing.flagsaver hypothesis.strategies PIL.ImageDraw PIL.ImageFont scipy.stats "
    "matplotlib.figure matplotlib.backends.backend_agg sklearn.datasets sklearn.decomposition sklearn.mixture "
    "sklearn.naive_bayes"
)
CACHE_LIMIT = 2 << 30
PROCESS = "a process"  # stands among a test's files for what cannot be followed
FORK = multiprocessing.get_context("fork")


def seconds() -> float:
    """Return the processor's time of this process and of all that it has waited for."""
    return sum(os.times()[:4])


def generators(item: pytest.Item) -> dict[str, np.random.Generator]:
    """Return those that the tests of a file share: what they draw depends on the tests before."""
    return {name: value for name, value in vars(item.module).items() if isinstance(value, np.random.Generator)}


class Failures:
    """Pytest plugin: which tests fail, or files of tests, given the states of generators before each test."""

    def __init__(self, chances: dict[str, dict]):
        self.chances, self.failed = chances, []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        for name, generator in generators(item).items():
            generator.bit_generator.state = self.chances[item.nodeid][name]

    def pytest_runtest_logreport(self, report):
        self.failed += [report.nodeid] * report.failed

    pytest_collectreport = pytest_runtest_logreport


class Recorder(Failures):
    """Pytest plugin: which lines of gm_jax each test runs, and how long it takes.

    Attributes:
        tests: by id, of those that pass: seconds; shared and group, the seconds and names of its fixtures that other
            tests use too; lines, by file; chance, the states of generators before it.
    """

    def __init__(self):
        super().__init__({})
        self.tests, self.passed = {}, False
        self.lines, self.sharing = set(), 0.0  # since the test began
        self.shared = {}  # fixture: (name, lines, seconds)
        self.prefix = f"{Path.cwd()}/"
        sys.addaudithook(lambda event, _: self.lines.add((PROCESS, 0)) if event == "subprocess.Popen" else None)
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def trace(self, frame, event, _):
        path = frame.f_code.co_filename.removeprefix(self.prefix)
        if not path.startswith("gm_jax/"):
            return None
        if event == "line":
            self.lines.add((path, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        """Forget what is compiled: the test shall trace by itself. What its shared fixtures ran counts as its own."""
        sys.modules["jax"].clear_caches()
        self.lines, self.sharing, began = set(), 0.0, seconds()
        about = {"chance": {name: generator.bit_generator.state for name, generator in generators(item).items()}}
        result = yield
        fixtures = [d for several in item._fixtureinfo.name2fixturedefs.values() for d in several if d in self.shared]
        names, lines, costs = zip(*map(self.shared.get, fixtures), strict=True) if fixtures else ([item.nodeid], [], [])
        by_file = collections.defaultdict(list)
        for path, line in self.lines.union(*lines):
            by_file[path].append(line)
        if self.passed:
            own = seconds() - began - self.sharing
            self.tests[item.nodeid] = about | dict(seconds=own, shared=sum(costs), group=" ".join(names), lines=by_file)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        outer, self.lines, began = self.lines, set(), seconds()
        try:
            return (yield)
        finally:
            cost = seconds() - began
            if self.lines:
                self.shared[fixturedef] = f"{fixturedef} {getattr(request, 'param', '')}", self.lines, cost
            self.lines, self.sharing = outer | self.lines, self.sharing + cost

    def pytest_runtest_logreport(self, report):
        super().pytest_runtest_logreport(report)
        self.passed = report.passed and (report.when == "setup" or self.passed)


class Job:
    """One of the processes that work side by side, with its copy of the repository and its compilation cache."""

    def __init__(self, number: int):
        self.copy, self.cache, self.clock = FOLDER / f"copy_{number}", FOLDER / f"cache_{number}", 0
        ask_to_end_with_parent()
        shutil.rmtree(self.copy, ignore_errors=True)
        for name in COPIED:
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, self.copy / name)
        self.cache.mkdir(exist_ok=True)
        os.chdir(self.copy)
        os.environ.update(PYTHONPATH=str(self.copy), JAX_COMPILATION_CACHE_DIR=str(self.cache))
        runpy.run_path("tests/conftest.py")
        for name in IMPORTED.split():
            importlib.import_module(name)

    def fork(self, limit: float | None, function: Callable, *arguments) -> object:
        """Return what the function does in a process of its own; a text if that dies, or lasts too long."""
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self.child, args=(sender, function, *arguments))
        process.start()
        sender.close()
        try:
            return receiver.recv() if receiver.poll(limit) else f"the limit of {limit:.0f} s"
        except EOFError:
            return "the death of the process"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # and what its tests have started
            process.join()

    def child(self, sender, function: Callable, *arguments) -> None:
        os.setsid()
        ask_to_end_with_parent()
        with open("output.txt", "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.path[:] = [str(self.copy), *(path for path in sys.path if Path(path).resolve() != ROOT)]
        for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
            del sys.modules[name]
        sender.send(function(*arguments))

    def write(self, path: str, source: bytes) -> None:
        """Write a file with a time of its own: what Python keeps compiled is known by time (in seconds) and size."""
        self.clock += 1
        (self.copy / path).write_bytes(source)
        os.utime(self.copy / path, (self.clock, self.clock))

    def prune(self) -> None:
        """Drop the newest half of a cache that is too large: the oldest is the unchanged code's."""
        files = sorted(self.cache.iterdir(), key=lambda path: path.stat().st_mtime)
        if sum(path.stat().st_size for path in files) > CACHE_LIMIT:
            for path in files[len(files) // 2 :]:
                path.unlink()


def ask_to_end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of Linux


def run_pytest(plugin: Failures, *arguments: str) -> int:
    return pytest.main(["-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp=temporary", *arguments], [plugin])


def record(path: str) -> tuple[dict, list[str]]:
    """Run a file of tests; return what is known of those that pass, and the names of the others."""
    recorder = Recorder()
    run_pytest(recorder, path)
    sys.settrace(None)
    return recorder.tests, recorder.failed


def first_to_fail(chances: dict[str, dict]) -> str | None:
    """Run tests in this order up to the first that fails; return its name."""
    failures = Failures(chances)
    status = run_pytest(failures, "-x", *chances)
    return failures.failed[0] if failures.failed else f"pytest's status {status}" if status else None


def start_job(numbers) -> None:
    global job
    job = Job(numbers.get())


def record_in_job(path: str) -> tuple[dict, list[str]] | str:
    return job.fork(None, record, path)


def try_in_job(mutation: Mutation, chances: dict[str, dict], expected: float) -> tuple[str | None, float]:
    """Return which test notices a change, if any, and after how many seconds."""
    original, began = (job.copy / mutation.path).read_bytes(), seconds()
    limit = (60 + 10 * expected) * max(1.0, os.getloadavg()[0] / os.cpu_count())
    job.write(mutation.path, mutation.apply(original))
    try:
        return (job.fork(limit, first_to_fail, chances) if chances else None), seconds() - began
    finally:
        job.write(mutation.path, original)
        job.prune()
