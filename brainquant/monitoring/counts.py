"""Sums and code counts of a run, which stay on the device until they are read.

Shape suffixes: N frames, G codebooks, V codes.
"""

from typing import Any

import torch
from speechbrain.utils.distributed import ddp_all_reduce

from ..ranks import gather_over_ranks, rank, world_size


class CodeMonitor(torch.nn.Module):
    """Counts how often each code was used. Counts of batches and of ranks can be added.

    Arguments
    ---------
    num_codebooks : int
        Codebooks.
    codebook_size : int
        Codes of each.

    Example
    -------
    >>> monitor = CodeMonitor(1, 4)
    >>> monitor.update(torch.tensor([[0], [3], [-1]]))
    >>> monitor.update(torch.tensor([[0], [3]]))
    >>> monitor.counts
    tensor([[2, 0, 0, 2]])
    >>> code_statistics(monitor.counts)["code_perplexity"]
    [2.0]
    """

    counts: torch.Tensor

    def __init__(self, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_codebooks, codebook_size).long())

    @torch.no_grad()
    def update(self, codes_NG: torch.Tensor) -> None:
        """Adds the codes of frames, without -1. Nothing leaves the device."""
        valid_GN = (codes_NG >= 0).T.long()
        self.counts.scatter_add_(1, codes_NG.T.clamp(min=0), valid_GN)


class Sums:
    """Named sums over micro-batches: added on the device, and over ranks when they are read.

    Arguments
    ---------
    num_codebooks, codebook_size : int
        Of the codes that are counted beside the sums; 0 for none.
    device : str or torch.device
        Where the sums are kept.

    Example
    -------
    >>> sums = Sums(1, 4)
    >>> sums.add(torch.tensor([[2]]), loss=torch.tensor(1.5), targets=1)
    >>> sums.add(torch.tensor([[2]]), loss=torch.tensor(0.5), targets=1)
    >>> sums.read()["loss"], sums.counts.tolist()
    (2.0, [[0, 0, 2, 0]])
    """

    def __init__(
        self,
        num_codebooks: int = 0,
        codebook_size: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.monitor = CodeMonitor(num_codebooks, codebook_size).to(device)
        self.values: dict[str, float | torch.Tensor] = {}

    @property
    def counts(self) -> torch.Tensor:
        """How often each code was used, shape (codebooks, codes)."""
        return self.monitor.counts

    def add(self, codes_NG: torch.Tensor | None = None, /, **values: float | torch.Tensor) -> None:
        """Adds the codes and the values (numbers or tensors of one element) of a micro-batch."""
        if codes_NG is not None:
            self.monitor.update(codes_NG)
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                value = value.detach().double()
            self.values[name] = self.values.get(name, 0.0) + value

    def merge(self, other: "Sums") -> None:
        """Adds the sums of another."""
        self.monitor.counts += other.counts
        for name, value in other.values.items():
            self.values[name] = self.values.get(name, 0.0) + value

    def clear(self) -> None:
        """Starts again from zero."""
        self.monitor.counts.zero_()
        self.values = {}

    def state_dict(self) -> dict:
        """The sums, for a checkpoint."""
        values = {n: torch.as_tensor(v, dtype=torch.double).cpu() for n, v in self.values.items()}
        return {"counts": self.counts.cpu(), "values": values}

    def load_state_dict(self, state: dict) -> None:
        """Takes the sums of ``state_dict``, in place of its own."""
        self.counts.copy_(state["counts"])
        self.values = {n: value.to(self.counts.device) for n, value in state["values"].items()}

    def state_of_ranks(self) -> list[dict]:
        """The sums of each rank, for a checkpoint; every rank has to call this."""
        return gather_over_ranks(self.state_dict())

    def load_state_of_ranks(self, states: list[dict]) -> None:
        """Takes this rank's sums of ``state_of_ranks``.

        With another number of ranks, the first rank takes the sums of all.
        """
        if len(states) == world_size():
            self.load_state_dict(states[rank()])
            return
        self.clear()
        for state in states if rank() == 0 else ():
            other = Sums(*self.counts.shape, device=self.counts.device)
            other.load_state_dict(state)
            self.merge(other)

    def reduced(self) -> "Sums":
        """The same sums over all ranks; every rank has to call this."""
        counts_GV, device = self.counts, self.counts.device
        # A rank that had only placeholders may lack names, or have them in another order.
        names = sorted(set().union(*gather_over_ranks([*self.values])))
        values = [
            torch.as_tensor(self.values.get(name, 0.0), dtype=torch.double, device=device)
            for name in names
        ]
        packed = torch.cat([counts_GV.flatten().double(), *[v.view(1) for v in values]])
        packed = ddp_all_reduce(packed, torch.distributed.ReduceOp.SUM)
        total = Sums(*counts_GV.shape, device=device)
        total.counts.copy_(packed[: counts_GV.numel()].view_as(counts_GV))
        total.values = dict(zip(names, packed[counts_GV.numel() :].unbind()))
        return total

    def read(self) -> dict[str, float]:
        """The values as Python numbers. Only this waits for the device."""
        return {name: float(value) for name, value in self.values.items()}


def code_statistics(counts_GV: torch.Tensor) -> dict[str, Any]:
    """Statistics of the use of the codes.

    Arguments
    ---------
    counts_GV : torch.Tensor
        Counts, shape (codebooks, codes).

    Returns
    -------
    statistics : dict
        ``code_perplexity``: of each codebook; ``code_perplexity_sum``: their sum;
        ``perplexity_cap``: the largest possible perplexity of a codebook, min(codes, frames);
        ``code_usage``: the share of codes that were used; ``dead_codes``: the number of codes that
        were not, in all codebooks; ``commonest_code``: the share of frames with the commonest
        code, mean of the codebooks; ``frames``.

    Example
    -------
    >>> statistics = code_statistics(torch.tensor([[3, 3, 0, 0]]))
    >>> statistics["code_perplexity_sum"], statistics["dead_codes"], statistics["commonest_code"]
    (2.0, 2, 0.5)
    """
    counts_GV = counts_GV.double().cpu()
    frames_G1 = counts_GV.sum(1, keepdim=True)
    shares_GV = counts_GV / frames_G1.clamp(min=1)
    perplexity_G = torch.exp(torch.special.entr(shares_GV).sum(1)).tolist()
    perplexity_G = [round(perplexity, 6) for perplexity in perplexity_G]
    frames = int(frames_G1.max())
    return {
        "code_perplexity": perplexity_G,
        "code_perplexity_sum": sum(perplexity_G),
        "perplexity_cap": min(counts_GV.shape[1], frames),
        "code_usage": float((counts_GV > 0).double().mean()),
        "dead_codes": int((counts_GV == 0).sum()),
        "commonest_code": float(shares_GV.amax(1).mean()),
        "frames": frames,
    }
