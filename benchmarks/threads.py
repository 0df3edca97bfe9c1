"""How OpenMP's threads should wait: a training step with spinning and with sleeping threads, idle and next to other work.

    python benchmarks/threads.py [--rounds 3] [--steps 4] [--width 256] [--others N]

A step is forward and backward of a small transformer (torch only). Each variant is a process of its own; variants are
interleaved, and the same is done while N processes (default: one per processor) compute without pause. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from priorkit.core.process.processors import SHORT_SPIN, processors

STEP = """
import json, sys, time, torch
width, steps = int(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True)
model, x = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), torch.randn(4, 128, width)
times = []
for number in range(steps + 1):
    begun, used = time.perf_counter(), time.process_time()
    model(x).square().sum().backward()
    times.append((time.perf_counter() - begun, time.process_time() - used))
wall, cpu = zip(*times[1:])
print(json.dumps([sorted(wall)[len(wall) // 2], sorted(cpu)[len(cpu) // 2]]))
"""

BUSY = "while True: pass"


def step(policy: str, threads: int, width: int, steps: int) -> tuple[float, float]:
    """Median seconds and processor seconds of a step."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    for name in ("OMP_WAIT_POLICY", *SHORT_SPIN):
        environment.pop(name, None)
    if policy == "short":
        environment |= SHORT_SPIN
    elif policy != "default":
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, "-c", STEP, str(width), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, cpu = json.loads(done.stdout)
    return wall, cpu


def main() -> None:
    """Measure all variants, idle and busy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--others", type=int, default=processors())
    arguments = parser.parse_args()
    variants = [
        ("default", 1),
        *((policy, processors()) for policy in ("default", "short", "PASSIVE", "ACTIVE")),
    ]
    for others in dict.fromkeys((0, arguments.others)):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
        time.sleep(0.5)
        measured: dict[tuple[str, int], list[tuple[float, float]]] = {variant: [] for variant in variants}
        try:
            for _ in range(arguments.rounds):
                for variant, rows in measured.items():
                    rows.append(step(*variant, arguments.width, arguments.steps))
        finally:
            for process in busy:
                process.kill()
        for (policy, threads), rows in measured.items():
            wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            print(
                f"{others} others  {threads} threads  {policy:<8} {wall:8.3f} s  {cpu:8.3f} processor s",
                flush=True,
            )


if __name__ == "__main__":
    main()
