"""k-means quantiser of HuBERT.

Shape suffixes: I input dim, V clusters.
"""

import torch

from ..search.nearest import nearest_code
from .base import Quantiser, check_frames, check_positive
from .fitted import keep_fitted, load_fitted


class KMeansQuantizer(Quantiser):
    """Index of the centroid that is nearest to the frame.

    The centroids are fitted beforehand and stay as they are, as for the targets of HuBERT (Hsu et
    al., https://arxiv.org/abs/2106.07447). The ``state_dict`` holds them as ``centroids``. A run
    keeps a copy of the file in its folder.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    centroids : str or torch.Tensor
        Path of the file that ``brainquant kmeans`` writes, a .safetensors with the tensor
        ``centroids``; or that tensor itself, shape (clusters, input_dim).

    Raises
    ------
    ValueError
        Where the file is missing or another one, or the centroids are of another size than
        input_dim.

    Example
    -------
    >>> quantiser = KMeansQuantizer(2, torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    >>> quantiser(torch.tensor([[[1.0, 1.0], [2.0, 3.0], [9.0, 0.0]]]))
    tensor([[0, 1, 1]])
    """

    num_codebooks = 1
    files_needed = {"centroids": keep_fitted}  # a run keeps them, see training/needed_files.py

    def __init__(self, input_dim, centroids):
        super().__init__()
        check_positive(input_dim=input_dim)
        self.input_dim = input_dim
        centroids_VI, command = centroids, "brainquant kmeans <recipe's YAML>"
        if not isinstance(centroids, torch.Tensor):
            command += f" --output {centroids}"
            [centroids_VI] = load_fitted(
                centroids, ["centroids"], argument="centroids", command=command
            )
        if centroids_VI.dim() != 2 or centroids_VI.shape[1] != input_dim:
            raise ValueError(
                f"centroids must be of shape (clusters, {input_dim}) for input_dim={input_dim}, "
                f"got {tuple(centroids_VI.shape)}; fit them to what this quantiser sees, with: "
                f"{command}"
            )
        self.register_buffer("centroids", centroids_VI.float().contiguous())

    @classmethod
    def from_estimator(cls, estimator):
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
        # A copy: partial_fit goes on in the same memory.
        centroids_VI = torch.tensor(estimator.cluster_centers_, dtype=torch.float32)
        return cls(centroids_VI.shape[1], centroids_VI)

    @property
    def codebook_size(self):
        """Number of clusters."""
        return len(self.centroids)

    def forward(self, x):
        """Codes of frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).

        Returns
        -------
        codes : torch.Tensor
            LongTensor, shape (batch, time), as RandomProjectionQuantizer gives them. A frame that
            is not finite gets -1: the ``ignore_index`` of your own cross-entropy.
        """
        check_frames(x, self.input_dim)
        return nearest_code(x.flatten(0, 1), self.centroids).view(x.shape[:2])

    def encode(self, x):
        """Codes of frames, shape (batch, time, 1); see ``Quantiser.encode``."""
        return self(x).unsqueeze(-1)
