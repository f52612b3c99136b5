#!/usr/bin/env bash
# Training under SLURM, one process a GPU, on one machine or several; goes on by itself after a time limit or a preemption.
#
#   sbatch --nodes 2 scripts/slurm_train.sh configs/emotic.yaml [--set optim.precision=bf16 ...]
#
# Adapt the resources to your cluster. SLURM sends SIGUSR1 two minutes before the end: train.py finishes its step, saves
# its state and exits with 75, and this script puts the job back into the queue. `--resume latest` starts from the
# beginning where there is no state yet, so it is always given.
#SBATCH --job-name=cocoer
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log
set -uo pipefail

if [ $# -lt 1 ]; then
  echo "usage: sbatch $0 CONFIG.yaml [further arguments of train.py]" >&2
  exit 2
fi
config=$1
shift

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# exec: the signal must reach Python itself, not a shell around it.
srun --kill-on-bad-exit=0 bash -c '
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
  exec .venv/bin/python train.py --config "$0" --resume latest "$@"' "$config" "$@"
code=$?

if [ "$code" -eq 75 ]; then
  echo "stopped with its state saved; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$code"
