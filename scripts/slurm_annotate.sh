#!/usr/bin/env bash
# An archive annotated under SLURM by Ray, one Ray node a machine; goes on by itself after a time limit or a preemption.
#
#   sbatch --nodes 4 scripts/slurm_annotate.sh INPUT OUT [--checkpoint ... --set ...]
#
# Adapt the resources to your cluster. INPUT, OUT and the weights must have the same path on all machines. Every start does what is
# left, so the job is put back into the queue two minutes before its end and when a machine fails.
#SBATCH --job-name=cocoer-annotate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log
set -uo pipefail

if [ $# -lt 2 ]; then
  echo "usage: sbatch $0 INPUT OUT [further arguments of cocoer annotate]" >&2
  exit 2
fi

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
gpus=${SLURM_GPUS_ON_NODE:-0}
actors=$((SLURM_NNODES * (gpus > 0 ? gpus : 1)))

again() {
  echo "time is nearly over; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap again USR1

# In the background, so that the signal reaches this shell at once.
srun --kill-on-bad-exit=1 .venv/bin/ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_NNODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --disable-usage-stats -- \
  .venv/bin/cocoer annotate "$1" --output "$2" --engine ray --address "$head:$port" --actors "$actors" \
  --gpus-per-actor $((gpus > 0)) "${@:3}" &
wait $!
