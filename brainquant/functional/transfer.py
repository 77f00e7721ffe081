"""From the host to the device without waiting."""


def to_device(tensor, device):
    """A tensor on the device, where the program need not wait for it to arrive.

    Arguments
    ---------
    tensor : torch.Tensor
        On the host, or there already.
    device : torch.device
        Where to.

    Returns
    -------
    tensor : torch.Tensor

    Example
    -------
    >>> import torch
    >>> to_device(torch.tensor([3]), torch.device("cpu"))
    tensor([3])
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # else the copy begins when all that was asked for is done
    return tensor.to(device, non_blocking=True)
