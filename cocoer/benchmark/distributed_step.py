"""One optimizer step by every process of torchrun, for `gpu_check`: prints a line of JSON from rank 0.

torchrun --nproc-per-node 2 -m cocoer.benchmark.distributed_step CONFIG cuda PERSONS
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import replace

import torch.distributed as dist

from cocoer.benchmark.model import random_model
from cocoer.benchmark.variants import person_batch
from cocoer.config import load_config
from cocoer.runtime import start_runtime
from cocoer.training.learner import build_learner, training_mode
from cocoer.training.step import step_facts, train_step


def main(config_file: str, device: str, persons: int) -> int:
    """Exit code 0. Prints loss, milliseconds, backend, and whether all processes hold equal parameters afterwards."""
    with start_runtime(device) as runtime:
        config = load_config(config_file)
        learner = build_learner(config, random_model(config, runtime.device), runtime)
        training_mode(learner.model, learner.frozen_norms)
        batch = person_batch(config, persons, runtime.device)
        # each process has other persons, so equal weights mean that gradients were exchanged
        batch = replace(batch, context=batch.context * (1 + 0.5 * runtime.rank))
        facts = step_facts([batch], False, runtime)
        start = time.perf_counter()
        loss = train_step(learner, [batch], facts, config.optim.lr, runtime, "distributed step")["loss"]
        ms = 1000 * (time.perf_counter() - start)
        held = hashlib.sha256()
        for parameter in learner.model.parameters():
            held.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
        digests = runtime.gather(held.hexdigest())
        backend = dist.get_backend() if dist.is_initialized() else "one process"
        if runtime.is_main:
            print(json.dumps({"loss": loss, "ms": ms, "backend": backend, "equal": len(set(digests)) == 1}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
