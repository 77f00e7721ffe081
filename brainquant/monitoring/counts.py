"""Numbers about a run: sums that are kept on the device until somebody reads them.

Shape suffixes: N frames, G codebooks, V codes.
"""

import torch
from speechbrain.utils.distributed import ddp_all_reduce


class CodeMonitor(torch.nn.Module):
    """Counts how often each code was used; adds up over batches, chunks and ranks.

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

    def __init__(self, num_codebooks, codebook_size):
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_codebooks, codebook_size).long())

    @torch.no_grad()
    def update(self, codes_NG):
        """Adds the codes of frames; -1 is no code. Nothing leaves the device."""
        valid_GN = (codes_NG >= 0).T.long()
        self.counts.scatter_add_(1, codes_NG.T.clamp(min=0), valid_GN)


class Sums:
    """Named sums over micro-batches, added on the device and over ranks when they are read.

    Arguments
    ---------
    monitor : CodeMonitor
        Counts the codes that belong to these sums.

    Example
    -------
    >>> sums = Sums(CodeMonitor(1, 4))
    >>> sums.add(torch.tensor([[2]]), loss=torch.tensor(1.5), targets=1)
    >>> sums.add(torch.tensor([[2]]), loss=torch.tensor(0.5), targets=1)
    >>> sums.read()["loss"]
    2.0
    """

    def __init__(self, monitor):
        self.monitor = monitor
        self.values = {}

    def add(self, codes_NG, **values):
        """Adds the codes and the values (numbers or tensors of one element) of a micro-batch."""
        self.monitor.update(codes_NG)
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                value = value.detach().double()
            self.values[name] = self.values.get(name, 0.0) + value

    def merge(self, other):
        """Adds the sums of another."""
        self.monitor.counts += other.monitor.counts
        for name, value in other.values.items():
            self.values[name] = self.values.get(name, 0.0) + value

    def clear(self):
        """Starts again from zero."""
        self.monitor.counts.zero_()
        self.values = {}

    def state(self):
        """What ``load_state`` takes, for a checkpoint."""
        values = {n: torch.as_tensor(v, dtype=torch.double).cpu() for n, v in self.values.items()}
        return {"counts": self.monitor.counts.cpu(), "values": values}

    def load_state(self, state):
        """Takes the sums of ``state``, in the place of what was there."""
        counts_GV = self.monitor.counts
        counts_GV.copy_(state["counts"])
        self.values = {n: value.to(counts_GV.device) for n, value in state["values"].items()}

    def reduced(self):
        """The same over all ranks; a collective, so every rank has to call it."""
        counts_GV = self.monitor.counts
        device = counts_GV.device
        values = [
            torch.as_tensor(v, dtype=torch.double, device=device) for v in self.values.values()
        ]
        packed = torch.cat([counts_GV.flatten().double(), *[v.view(1) for v in values]])
        packed = ddp_all_reduce(packed, torch.distributed.ReduceOp.SUM)
        total = Sums(CodeMonitor(*counts_GV.shape).to(device))
        total.monitor.counts.copy_(packed[: counts_GV.numel()].view_as(counts_GV))
        total.values = dict(zip(self.values, packed[counts_GV.numel() :].unbind()))
        return total

    def read(self):
        """The values as Python numbers: the only place that waits for the device."""
        return {name: float(value) for name, value in self.values.items()}


def code_statistics(counts_GV):
    """What the counts say about the use of the codes.

    Arguments
    ---------
    counts_GV : torch.Tensor
        Counts, shape (codebooks, codes).

    Returns
    -------
    statistics : dict
        ``code_perplexity``: of each codebook; ``code_perplexity_sum``; ``code_usage``: share of
        codes used at all; ``dead_codes``: codes never used, over all codebooks; ``frames``;
        ``perplexity_cap``: the most that a codebook can show with so many frames, min(codes,
        frames); ``commonest_code``: share of frames of the commonest code, mean of codebooks.

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
