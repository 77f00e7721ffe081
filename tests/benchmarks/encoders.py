"""SpeechBrain's encoders, the same with our quick parts, and what else was tried.

> python tests/benchmarks/encoders.py

Forward and backward in training of the conformers of steps.py on 8 utterances of 5 s, alternating.
`ours` is what a Brain makes of them (brainquant.models.quick); `SDPA` has in RelPosMHAXL, too,
scaled_dot_product_attention in the place of products and softmax; `torch.compile` compiles ours.
About 5 minutes on 2 cores, most of which is compiling.
"""

import argparse
import functools

import torch
import torch.nn.functional as F
from measure import alternate, machine, print_table
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.nnet.attention import RelPosEncXL, RelPosMHAXL

from brainquant.models.quick import quicken

# Width, layers, heads, feed-forward, attention, frames: of the small and the base models.
ENCODERS = {
    "BEST-RQ small": (144, 4, 4, 576, "RelPosMHAXL", 125),
    "wav2vec 2.0 small": (144, 4, 4, 576, "regularMHA", 250),
    "BEST-RQ base, 2 layers": (576, 2, 8, 2048, "RelPosMHAXL", 125),
    "wav2vec 2.0 base, 2 layers": (768, 2, 8, 3072, "regularMHA", 250),
}
METHODS = ("SpeechBrain", "ours", "SDPA", "torch.compile")


def relative(attention, query, key, value, pos_embs, key_padding_mask=None, attn_mask=None, **_):
    """RelPosMHAXL through SDPA: what depends on positions is added as a mask is."""
    heads = attention.num_heads
    projected = F.linear(query, attention.in_proj_weight).unflatten(2, (heads, -1))
    query, key, value = projected.chunk(3, dim=-1)
    positions = attention.linear_pos(pos_embs).unflatten(2, (heads, -1))
    bias_u, bias_v = (
        bias.view(1, 1, heads, -1) for bias in (attention.pos_bias_u, attention.pos_bias_v)
    )
    scores = ((query + bias_v) * attention.scale).transpose(1, 2) @ positions.permute(0, 2, 3, 1)
    scores = attention.rel_shift(scores)
    if key_padding_mask is not None:
        scores = scores.masked_fill(key_padding_mask[:, None, None], -torch.inf)
    output = F.scaled_dot_product_attention(
        (query + bias_u).transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
        attn_mask=scores, scale=attention.scale,
    )  # fmt: skip
    return attention.out_proj(output.transpose(1, 2).flatten(2)), None


def make_step(name, method):
    """A function that makes a forward and a backward."""
    dim, layers, heads, ffn, kind, frames = ENCODERS[name]
    torch.manual_seed(0)
    encoder = ConformerEncoder(
        layers, dim, ffn, heads, activation=torch.nn.GELU, dropout=0.0, attention_type=kind
    )
    x_BTD, padding_BT = torch.randn(8, frames, dim), torch.zeros(8, frames, dtype=torch.bool)
    positions = RelPosEncXL(dim)(x_BTD) if kind == "RelPosMHAXL" else None
    if method != "SpeechBrain":
        quicken(encoder)
    if method == "SDPA":
        for module in encoder.modules():
            if isinstance(module, RelPosMHAXL):
                module.forward = functools.partial(relative, module)
    called = torch.compile(encoder) if method == "torch.compile" else encoder

    def step():
        y_BTD, _ = called(x_BTD, src_key_padding_mask=padding_BT, pos_embs=positions)
        y_BTD.sin().sum().backward()
        encoder.zero_grad()
        return y_BTD.detach()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="encoders that have this in their name")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    print(machine())
    for name in [name for name in ENCODERS if options.only in name]:
        steps = {method: make_step(name, method) for method in options.methods}
        outputs = {method: step() for method, step in steps.items()}
        seconds, rows = alternate(steps), []
        stock = options.methods[0]
        for method in options.methods:
            difference = (outputs[method] - outputs[stock]).abs().max()
            rows.append({
                "method": method, "seconds": seconds[method],
                "times as fast": seconds[stock] / seconds[method],
                "largest difference": float(difference),
            })  # fmt: skip
        print_table(f"{name}: forward and backward of 8 utterances of 5 s", rows)


if __name__ == "__main__":
    main()
