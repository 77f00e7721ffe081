"""Search for the nearest code.

Shape suffixes: N frames, D code dim, V codes.
"""

import torch

# Frames whose scores are held at once: 256 x 8192 codes x 4 bytes are 8 MB.
CHUNK = 256


@torch.no_grad()
def nearest_code(x_ND, codebook_VD):
    """Index of the code with the largest inner product, for each frame.

    For codes of unit norm this is the nearest code in Euclidean distance, whatever the norm
    of the frame. The scores are computed for a few frames at a time: no tensor of
    (frames, codes, dim) exists, and no tensor of (frames, codes) beyond one chunk.

    Arguments
    ---------
    x_ND : torch.Tensor
        Frames, float32, shape (frames, dim).
    codebook_VD : torch.Tensor
        Codes of unit norm, float32, shape (codes, dim).

    Returns
    -------
    codes_N : torch.Tensor
        LongTensor of shape (frames,). A tie goes to the lowest index, so a frame of zeros gets
        code 0; a frame that holds NaN or Inf gets -1, which no codebook has.

    Example
    -------
    >>> codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> nearest_code(torch.tensor([[0.1, 3.0], [0.0, 0.0], [float("nan"), 1.0]]), codebook)
    tensor([ 1,  0, -1])
    """
    codes_N = x_ND.new_empty(len(x_ND), dtype=torch.long)
    for start in range(0, len(x_ND), CHUNK):
        scores_CV = x_ND[start : start + CHUNK] @ codebook_VD.T
        torch.argmax(scores_CV, dim=-1, out=codes_N[start : start + CHUNK])
    return codes_N.masked_fill(~torch.isfinite(x_ND).all(-1), -1)
