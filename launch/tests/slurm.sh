#!/usr/bin/env bash
# Run launch/slurm.sbatch on a Slurm cluster of this one machine, two tasks: joined, stopped by SIGTERM, queued again,
# ended with the bits of a run that nothing disturbed. Needs root and Debian's slurm-wlm and munge:
#   apt-get install slurm-wlm munge && launch/tests/slurm.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || { echo "skipped: $program is not installed (apt-get install slurm-wlm munge)"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: Slurm's daemons need root here"; exit 0; }
if pgrep -x slurmctld >/dev/null; then echo "skipped: another Slurm runs on this machine"; exit 0; fi

root="$(mktemp -d)"
chmod 755 "$root"
mkdir "$root/state" "$root/spool"
cat >"$root/slurm.conf" <<END
ClusterName=gm_jax
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd.pid
SlurmctldPort=16817
SlurmdPort=16818
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
END
export SLURM_CONF="$root/slurm.conf"
daemons=()
finish() {
    for daemon in "${daemons[@]}"; do kill "$daemon" 2>/dev/null || true; done
    wait
    rm -rf "$root"
}
trap finish EXIT
if ! munge -n >/dev/null 2>&1; then
    mkdir -p /run/munge && chown munge: /run/munge
    su munge -s /bin/sh -c "munged --foreground --force" >"$root/munged.log" 2>&1 &
    daemons+=($!)
    sleep 1
fi
slurmctld -D >"$root/slurmctld.log" 2>&1 &
daemons+=($!)
slurmd -D -N localhost >"$root/slurmd.log" 2>&1 &
daemons+=($!)
for _ in $(seq 60); do sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo

export JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR="$root/compiled" GM_JAX_CACHE="$root/cache"
arguments=(--config=configs/fnn_mnist.py --config.dataset.name=digits --config.steps=800 --config.log_every=20
    --config.steps_per_call=10 --config.checkpoint_every=200 --config.evaluate_every=400)

PYTHON="${PYTHON:-python3}"
source launch/environment.sh
install runtime requirements.txt
.venv/bin/python -m gm_jax.main "${arguments[@]}" --workdir="$root/whole" --processes=2 >"$root/whole.log" 2>&1

job="$(sbatch --parsable --ntasks=2 --output="$root/job.log" launch/slurm.sbatch "${arguments[@]}" --workdir="$root/run")"
wait_for() {  # wait_for SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || { echo "FAILED: waited in vain for: $*"; tail -n 5 "$root"/*.log; exit 1; }
        sleep 0.2
    done
}
trained() { grep -q "\"step\": $2," "$root/$1/metrics.jsonl" 2>/dev/null; }
gone() { [ -z "$(squeue --noheader --jobs="$job" 2>/dev/null)" ]; }
log="$root/job.log"
said() { grep -q "$1" "$log" 2>/dev/null; }
wait_for 120 trained run 300
scancel --signal=TERM "$job.0"  # to the tasks of the step, as at a preemption
wait_for 60 said "is queued again to go on"
wait_for 180 said "continuing $root/run from step"
wait_for 180 said "done: 800 steps"
wait_for 30 gone

grep -E "stopped at|queued again|continuing|done" "$root/job.log"
.venv/bin/python - "$root" <<'END'
import json
import sys
from pathlib import Path

root = Path(sys.argv[1])
record = json.loads((root / "run" / "run.json").read_text())
assert record["environment"]["processes"] == 2, record["environment"]
assert [start["from_step"] > 0 for start in record["starts"]] == [False, True], record["starts"]
whole, run = (json.loads((root / name / "checkpoints/800/meta/metadata").read_text()) for name in ("whole", "run"))
assert whole == run and (root / "whole/metrics.jsonl").read_bytes() == (root / "run/metrics.jsonl").read_bytes()
print(f"{len(run['content']['leaves'])} arrays and all metrics have the bits of the run that was not disturbed")
END

# Who cancels a job does not want it back.
log="$root/cancelled.log"
job="$(sbatch --parsable --ntasks=2 --output="$log" launch/slurm.sbatch "${arguments[@]}" --workdir="$root/cancelled")"
wait_for 120 trained cancelled 100
scancel "$job"
wait_for 60 gone
if said "queued again" || ! said "stopped at step"; then
    echo "FAILED: a cancelled job was queued again, or did not save"
    tail -n 5 "$log"
    exit 1
fi
echo "passed"
