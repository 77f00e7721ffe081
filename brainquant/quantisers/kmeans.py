"""k-means quantiser of HuBERT.

Shape suffixes: N frames, I input dim, V clusters.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from typing_extensions import override

from ..functional.imports import import_late
from ..search.nearest import nearest_code
from .base import Quantiser, check_frames, check_positive
from .centroid_files import keep_fitted, load_centroids

if TYPE_CHECKING:
    from sklearn.cluster import KMeans, MiniBatchKMeans

FRAMES_PER_CLUSTER = 100
ITERATIONS = 20  # of ``fit``; its centroids are then within 2 % of where they would end


def count_different(frames_NI: np.ndarray, enough: int) -> int:
    """How many rows differ, counted up to a number; it holds that many of them.

    Example
    -------
    >>> count_different(np.array([[1.0], [2.0], [1.0], [3.0]]), 2)
    2
    """
    seen: set[bytes] = set()
    for frame_I in frames_NI:
        seen.add(frame_I.tobytes())
        if len(seen) == enough:
            break
    return len(seen)


class KMeansQuantizer(Quantiser):
    """Index of the centroid that is nearest to the frame.

    The centroids never change in a training, as for the targets of HuBERT (Hsu et al.,
    https://arxiv.org/abs/2106.07447). With ``clusters``, a Brain of this package fits them to the
    corpus before the first step; in your own Brain, call ``fit`` yourself. Until then they are
    random. With ``centroids`` they come from a file, of which a run keeps a copy in its folder. The
    ``state_dict`` holds them as ``centroids``, and with ``clusters`` also ``fitted``.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    centroids : str, torch.Tensor or None
        Path of the file that ``brainquant kmeans`` writes, a .safetensors with the tensor
        ``centroids``; or that tensor itself, shape (clusters, input_dim). Either this or
    clusters : int or None
        Number of centroids that ``fit`` finds.
    seed : int
        Draws the frames with which ``fit`` begins.

    Raises
    ------
    ValueError
        If centroids and clusters are both given or both missing, if the file is missing or holds
        no centroids, or if their size is not input_dim.

    Example
    -------
    >>> quantiser = KMeansQuantizer(2, torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    >>> quantiser(torch.tensor([[[1.0, 1.0], [2.0, 3.0], [9.0, 0.0]]]))
    tensor([[0, 1, 1]])
    >>> quantiser = KMeansQuantizer(1, clusters=2)
    >>> quantiser.fit(torch.tensor([[0.0], [1.0], [8.0], [9.0]]))
    >>> sorted(quantiser.centroids.flatten().tolist())
    [0.5, 8.5]
    """

    num_codebooks = 1
    files_needed = {"centroids": keep_fitted}  # a run keeps it, see training/needed_files.py
    centroids: torch.Tensor
    fitted: torch.Tensor | None

    def __init__(
        self,
        input_dim: int,
        centroids: Path | str | torch.Tensor | None = None,
        *,
        clusters: int | None = None,
        seed: int = 1234,
    ):
        super().__init__()
        check_positive(input_dim=input_dim)
        if (centroids is None) == (clusters is None):
            given = type(centroids).__name__ if isinstance(centroids, torch.Tensor) else centroids
            raise ValueError(
                f"either clusters or centroids must be given, got clusters={clusters!r}, "
                f"centroids={given!r}; set the other one to null under the quantiser in your YAML"
            )
        self.input_dim = input_dim
        self.seed = seed
        self.register_buffer("fitted", None if clusters is None else torch.tensor(False))
        if clusters is not None:
            [clusters] = check_positive(clusters=clusters)
            generator = torch.Generator().manual_seed(seed)
            drawn_VI = torch.randn(
                clusters, input_dim, generator=generator, device=generator.device
            )
            self.register_buffer("centroids", drawn_VI.to(torch.get_default_device()))
            return
        command = "brainquant kmeans <recipe's YAML>"
        if isinstance(centroids, torch.Tensor):
            centroids_VI = centroids
        else:
            assert centroids is not None
            command += f" --output {centroids}"
            centroids_VI = load_centroids(centroids, command)
        if centroids_VI.dim() != 2 or centroids_VI.shape[1] != input_dim:
            raise ValueError(
                f"centroids must be of shape (clusters, {input_dim}) for input_dim={input_dim}, "
                f"got {tuple(centroids_VI.shape)}; fit them to the inputs of this quantiser, with: "
                f"{command}"
            )
        self.register_buffer("centroids", centroids_VI.float().contiguous())

    @classmethod
    def from_estimator(cls, estimator: KMeans | MiniBatchKMeans) -> KMeansQuantizer:
        """The quantiser whose codes are the labels of a fitted scikit-learn estimator.

        Arguments
        ---------
        estimator : sklearn.cluster.KMeans or sklearn.cluster.MiniBatchKMeans
            After its ``fit``.

        Returns
        -------
        quantiser : KMeansQuantizer

        Example
        -------
        >>> from sklearn.cluster import KMeans
        >>> frames = torch.tensor([[0.0], [1.0], [8.0], [9.0]])
        >>> estimator = KMeans(n_clusters=2, random_state=0).fit(frames.numpy())
        >>> quantiser = KMeansQuantizer.from_estimator(estimator)
        >>> quantiser(frames[None])[0].tolist() == estimator.predict(frames.numpy()).tolist()
        True
        """
        # A copy: partial_fit changes cluster_centers_ in place.
        centroids_VI = torch.tensor(estimator.cluster_centers_, dtype=torch.float32)
        return cls(centroids_VI.shape[1], centroids_VI)

    @property
    @override
    def frames_to_fit(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Frames that ``fit`` needs if ``clusters`` is given: 100 for each cluster."""
        return 0 if self.fitted is None or self.fitted else FRAMES_PER_CLUSTER * len(self.centroids)

    @override
    def fit(self, x: torch.Tensor) -> None:
        """Finds the centroids, by k-means of scikit-learn; see ``Quantiser.fit``.

        It begins with frames drawn at random and takes 20 iterations. On real speech that is better
        and quicker than the mini-batches of ``brainquant kmeans``, which does not hold all frames.

        Raises
        ------
        ValueError
            If ``clusters`` is not given, or if there are fewer different frames than clusters.
        """
        if self.fitted is None:
            raise ValueError(
                "clusters must be given for a quantiser that is fitted, got centroids; set "
                "clusters: and centroids: null under the quantiser in your YAML"
            )
        clusters, frames_NI = len(self.centroids), x.float().cpu().numpy()
        if (different := count_different(frames_NI, clusters)) < clusters:
            raise ValueError(
                f"{len(x)} frames, of which {different} differ, are too few for {clusters} "
                f"clusters; set clusters: under the quantiser in your YAML to fewer"
            )
        make = import_late("sklearn.cluster").KMeans
        estimator = make(
            clusters, init="random", n_init=1, max_iter=ITERATIONS, random_state=self.seed
        ).fit(frames_NI)
        self.centroids.copy_(torch.from_numpy(estimator.cluster_centers_))
        self.fitted.fill_(True)

    @property
    @override
    def codebook_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Number of clusters."""
        return len(self.centroids)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Codes of frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).

        Returns
        -------
        codes : torch.Tensor
            LongTensor, shape (batch, time), as from RandomProjectionQuantizer. A frame that is
            not finite gets -1; pass ``ignore_index=-1`` to your own cross-entropy.
        """
        check_frames(x, self.input_dim)
        return nearest_code(x.flatten(0, 1), self.centroids).view(x.shape[:2])

    @override
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of frames, shape (batch, time, 1); see ``Quantiser.encode``."""
        return self(x).unsqueeze(-1)
