"""Change one place of the product's code for the worse, run the tests, and tell which changes none of them noticed.

    python -m tests.mutate [--n=150] [--seed=0] [--only gm_jax/losses ...] [--tests tests/test_gan.py ...] [--jobs=2]
                           [--report=FILE]

First every file of tests runs once, and the lines of gm_jax that each test runs are kept in .pytest_cache/mutate.json
until a file changes. Then each change meets only the tests that run its line, the fastest first. Everything happens in
copies of the repository. Results are appended to .pytest_cache/mutate.jsonl: started again, the command goes on.
Seconds are those of the processor, not of the clock.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import sys
from pathlib import Path

from tests.mutation_jobs import COPIED, FOLDER, FORK, PROCESS, ROOT, record_in_job, start_job, try_in_job
from tests.mutations import Mutation, draw, find_mutations

FILES = ("evaluate", "experiment", "optim", "parallel", "portions", "run", "stages", "state", "step", "train", "window")
TARGETS = [
    *(f"gm_jax/{folder}" for folder in ("losses", "metrics", "models", "samplers", "tasks", "data/pipeline.py")),
    *(f"gm_jax/{name}.py" for name in FILES),
]
KNOWN, RESULTS = ROOT / ".pytest_cache" / "mutate.json", ROOT / ".pytest_cache" / "mutate.jsonl"


def digests_of(paths: list[str]) -> dict[str, str]:
    """Return for each file of tests a digest of it and of everything that it may use."""
    used = [path for name in COPIED[:1] + COPIED[2:] for path in sorted(ROOT.joinpath(name).rglob("*.py"))]
    used += [path for path in sorted(ROOT.glob("tests/*.py")) if not path.name.startswith(("test_", "mutat"))]
    common = b"".join(path.read_bytes() for path in used)
    return {path: hashlib.sha256(common + (ROOT / path).read_bytes()).hexdigest() for path in paths}


def recorded(pool: concurrent.futures.Executor, digests: dict[str, str]) -> dict[str, dict]:
    """Return what is known of each test; record what is not known yet."""
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    stale = [path for path, digest in digests.items() if known.get(path, {}).get("digest") != digest]
    futures = {pool.submit(record_in_job, path): path for path in stale}
    for future in concurrent.futures.as_completed(futures):
        path, result = futures[future], future.result()
        if isinstance(result, str):
            raise SystemExit(f"{path}: ended by {result}; see output.txt in {FOLDER}/copy_*")
        known[path] = {"digest": digests[path], "tests": result[0]}
        failed = [f"LEFT OUT, it fails on the unchanged code: {name}" for name in result[1]]
        print(f"{path}: {len(result[0])} tests recorded", *failed, sep="\n  ", flush=True)
        KNOWN.parent.mkdir(exist_ok=True)
        KNOWN.write_text(json.dumps(known))
    for path in FOLDER.glob("cache_*/*"):  # what a job has compiled serves all
        for cache in FOLDER.glob("cache_*"):
            if not (cache / path.name).exists():
                os.link(path, cache / path.name)
    return {name: about for path in digests for name, about in known[path]["tests"].items()}


def choose(mutation: Mutation, tests: dict[str, dict]) -> list[str]:
    """Return the tests that run the place, the fastest first; then those that start processes, which may run it."""
    place = set(range(mutation.first, mutation.last + 1))
    touching = [n for n, t in tests.items() if mutation.path in t["lines"]]
    if not mutation.imported:
        touching = [n for n in touching if place.intersection(tests[n]["lines"][mutation.path])]
    starting = [n for n in tests.keys() - touching if PROCESS in tests[n]["lines"]]
    costs = collections.defaultdict(list)  # tests that share a fixture stay together: it is made once
    for test in tests.values():
        costs[test["group"]].append(test["shared"] + test["seconds"])
    rank = {n: (min(costs[t["group"]]), t["group"], t["seconds"], n) for n, t in tests.items()}
    return sorted(touching, key=rank.get) + sorted(starting, key=rank.get)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.mutate", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=150, help="how many places to change")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", action="extend", help=f"files and folders; default: {' '.join(TARGETS)}")
    parser.add_argument("--tests", nargs="+", action="extend", help="files of tests; default: all")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", type=Path, help="a Markdown file")
    arguments = parser.parse_args()
    for path in [*(arguments.only or ()), *(arguments.tests or ())]:
        if not (ROOT / path).exists():
            parser.error(f"there is no {path} in {ROOT}")
    return arguments


def main() -> int:
    arguments = parse()
    targets = [ROOT / name for name in arguments.only or TARGETS]
    files = [file for path in targets for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    found = [mutation for file in files for mutation in find_mutations(ROOT, str(file.relative_to(ROOT)))]
    drawn = draw(found, arguments.n, arguments.seed)
    digests = digests_of(arguments.tests or [f"tests/{path.name}" for path in sorted(ROOT.glob("tests/test_*.py"))])
    numbers = FORK.SimpleQueue()
    for number in range(arguments.jobs):
        numbers.put(number)
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, FORK, start_job, (numbers,)) as pool:
        results = try_all(pool, drawn, recorded(pool, digests), digests)
    return report(drawn, results, arguments.report)


def try_all(pool, drawn: list[Mutation], tests: dict[str, dict], digests: dict[str, str]) -> dict[str, dict]:
    """Let the tests meet every change that they have not met; return all results, by the changes' texts."""
    everything = hashlib.sha256("".join(digests.values()).encode()).hexdigest()
    known = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    results = {r["key"]: r for r in known if r["digest"] == digests.get((r["by"] or "").split("::")[0], everything)}
    futures = {}
    for mutation in drawn:
        if repr(mutation) not in results:
            names = choose(mutation, tests)
            expected = sum(tests[name]["seconds"] + tests[name]["shared"] for name in names)
            chances = {name: tests[name]["chance"] for name in names}
            futures[pool.submit(try_in_job, mutation, chances, expected)] = mutation, len(names)
    for future in concurrent.futures.as_completed(futures):
        (mutation, number), (by, took) = futures[future], future.result()
        digest = digests.get((by or "").split("::")[0], everything)
        result = dict(key=repr(mutation), by=by, seconds=took, tests=number, digest=digest)
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
        results[repr(mutation)] = result
        print(f"{mutation}  {f'caught by {by}' if by else f'SURVIVED {number} tests'} in {took:.1f} s", flush=True)
    return results


def report(drawn: list[Mutation], results: dict[str, dict], path: Path | None) -> int:
    """Print the summary and the survivors, write them as Markdown, and return the exit status."""
    survivors = sorted(mutation for mutation in drawn if results[repr(mutation)]["by"] is None)
    caught = len(drawn) - len(survivors)
    summary = f"caught {caught} of {len(drawn)} ({100 * caught / len(drawn):.0f} %)"
    print(summary, *survivors, sep="\n")
    if path:
        rows = [f"| {m.path}:{m.line} | `{m.before}` | `{m.after}` | {results[repr(m)]['tests']} |" for m in survivors]
        head = [f"Mutations: {summary}", "", "| survivor | before | after | tests that ran it |", "|---|---|---|---|"]
        path.write_text("\n".join([*head, *rows]) + "\n")
    return 0 if caught >= 0.9 * len(drawn) else 1


if __name__ == "__main__":
    sys.exit(main())
