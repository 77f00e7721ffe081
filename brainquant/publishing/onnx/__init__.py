"""A trained encoder as ONNX, for programs without torch."""

from .export import export_onnx

__all__ = ["export_onnx"]
