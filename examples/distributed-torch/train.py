"""Data-parallel training of a small network, on one host or on many.

torchrun starts this file on every host and sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

import argparse
import json
import os

import torch
import torch.distributed as dist

# Import this before the process group exists. Otherwise torch imports it later, for example for an optimizer,
# and its functions keep the group alive, whose threads may abort the process when it exits.
import torch.distributed.nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
    parser.add_argument("--output-dir", default=os.environ["SM_OUTPUT_DATA_DIR"])
    return parser.parse_args()


def find_device() -> torch.device:
    """The GPU of this process, since torchrun starts one process per GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)  # also for NCCL
    return device


def sum_over_ranks(value: float, device: torch.device) -> float:
    total = torch.tensor(value, device=device)
    dist.all_reduce(total)
    return total.item()


def train(options: argparse.Namespace, device: torch.device) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()

    # Every rank generates the same data and keeps its own part.
    torch.manual_seed(1)
    points = torch.rand(1024, 2) * 4 - 2
    heights = (points.sin().sum(1, keepdim=True))[rank::size].to(device)
    points = points[rank::size].to(device)

    network = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    model = DistributedDataParallel(network.to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)

    losses = []
    for epoch in range(options.epochs):
        optimizer.zero_grad()
        loss = mse_loss(model(points), heights)
        loss.backward()  # also averages the gradients over the ranks
        optimizer.step()
        losses.append(sum_over_ranks(loss.item(), device) / size)
        if rank == 0:
            print(f"epoch {epoch} loss {losses[-1]:.4f}", flush=True)

    metrics = {
        "rank": rank,
        "ranks": size,
        "sum of ranks": sum_over_ranks(float(rank), device),
        "points": len(points),
        "losses": losses,
        "weights": sum(parameter.abs().sum().item() for parameter in network.parameters()),
    }
    with open(f"{options.output_dir}/metrics-{rank}.json", "w") as file:
        json.dump(metrics, file)
    if rank == 0:  # from the CPU, so that it can be loaded without a GPU
        torch.save(network.cpu().state_dict(), f"{options.model_dir}/network.pt")


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    device = find_device()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    train(options, device)  # a separate function, since the model also keeps the group alive
    dist.barrier()  # no rank exits before all have finished
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
