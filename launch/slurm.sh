#!/usr/bin/env bash
# Starts a Ray cluster inside a SLURM allocation and runs a config on it. Needs a shared file system with the checkout
# and its environment.
#
#   sbatch launch/slurm.sh configs/innovator_vl/rl.yaml [key=value ...] [--resume]
#
# The run goes on from its last checkpoint if it has one: when SLURM has put the job back into the queue, and when the
# same line is submitted again. Before the time limit the run is told to stop, writes a checkpoint and ends with code 75.
# So it does at a preemption where slurm.conf has PreemptParameters=send_user_signal; without that SLURM signals Ray's
# own processes, which end at once, and the run goes back to the last checkpoint that it wrote by itself.
#
# The defaults are one whole node of 8 GPUs, which that config fills: 4 engines and 4 learner ranks. For two nodes:
#
#   sbatch --nodes=2 launch/slurm.sh configs/innovator_vl/rl.yaml rollout.workers=8 learner.ranks=8
#
# VENV (default: .venv in the checkout) and RAY_PORT (default: 6379) can be set in the environment.
#SBATCH --job-name=innovator-rl
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=48:00:00
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# To this script alone (B), so many seconds before the end: checkpoint.stop_within_s, and the time to write and to close.
#SBATCH --signal=B:TERM@300
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch launch/slurm.sh CONFIG.yaml [key=value ...] [--resume]" >&2
    exit 2
fi

cd "${SLURM_SUBMIT_DIR:-.}"
# shellcheck source=/dev/null
source "${VENV:-.venv}/bin/activate"
settings=()
again=(--auto-resume)
for argument in "${@:2}"; do
    [[ "$argument" == --* ]] || settings+=("$argument")
    [[ "$argument" != --resume && "$argument" != --auto-resume ]] || again=()
done
rl config show "$1" "${settings[@]}" >/dev/null # a mistake in the file or in a setting shows before Ray starts

port="${RAY_PORT:-6379}"
gpus="${SLURM_GPUS_ON_NODE:-0}"
cpus="${SLURM_CPUS_PER_TASK:-1}"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}"
head_ip="$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')"
export RAY_ADDRESS="$head_ip:$port"

echo "Ray head on $head ($RAY_ADDRESS), ${#nodes[@]} nodes with $gpus GPUs and $cpus CPUs each"
srun --nodes=1 --ntasks=1 --overlap -w "$head" \
    ray start --head --node-ip-address="$head_ip" --port="$port" --num-gpus="$gpus" --num-cpus="$cpus" --block &
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap -w "$node" \
        ray start --address="$RAY_ADDRESS" --num-gpus="$gpus" --num-cpus="$cpus" --block &
done

# Waits until every node has joined: the placement of the run is decided when it starts.
python - "${#nodes[@]}" <<'WAIT'
import sys
import time

import ray

wanted, deadline = int(sys.argv[1]), time.monotonic() + 300
while True:
    try:
        ray.init(address="auto", logging_level="ERROR")
        break
    except ConnectionError:
        if time.monotonic() > deadline:
            sys.exit("slurm.sh: the Ray head did not come up within 300 s")
        time.sleep(2)
while sum(node["Alive"] for node in ray.nodes()) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"slurm.sh: fewer than {wanted} nodes joined the Ray cluster within 300 s")
    time.sleep(2)
WAIT

# Not a step of its own: srun answers SIGTERM with SIGKILL for its tasks. This script runs on the first node, as it should.
code=0
rl train "$@" "${again[@]}" &
train=$!
trap 'trap "" TERM; kill -TERM "$train" 2>/dev/null || true' TERM # the second one would end the run without a checkpoint
wait "$train" || code=$?
if [ "$code" -eq 143 ]; then # it was the wait that the signal ended
    code=0
    wait "$train" || code=$?
fi
exit "$code"
