"""Finds and joins the processes that `torchrun` or Slurm started."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

PATIENCE = timedelta(hours=6)
"""Time that processes wait for the one that validates and writes."""


def count_processes() -> tuple[int, int]:
    """Return the processes on each node and the nodes; 1 and 1 without torchrun or Slurm."""
    if TorchElasticEnvironment.detect():
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return per_node, int(os.environ["WORLD_SIZE"]) // per_node
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return 1, 1


def launch_fabric(device: torch.device, precision: torch.dtype) -> Fabric:
    """Return the fabric that places tensors and joins the processes; wait for the others.

    Args:
        device: Where a single process runs; several take one device each.
        precision: float32, or bfloat16 for autocast.
    """
    per_node, nodes = count_processes()
    are_many = per_node * nodes > 1
    fabric = Fabric(
        accelerator=device.type,
        devices=per_node if are_many or device.index is None else [device.index],
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=PATIENCE) if are_many else "auto",
        precision="bf16-mixed" if precision is torch.bfloat16 else "32-true",
    )
    fabric.launch()
    return fabric


def seed_epoch(seed: int, epoch: int, rank: int):
    """Seed the randomness inside the network, so that an epoch does not depend on earlier ones."""
    state = np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


def leave_processes():
    """Leave the group of processes, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
