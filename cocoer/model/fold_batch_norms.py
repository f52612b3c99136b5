"""Folding batch norms into the convolutions before them, for inference: fewer layers, the same answers.

`LevelModel.fold` uses it for the backbones and the CLIP tower.
"""

from __future__ import annotations

from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class _BatchNormTracer(fx.Tracer):
    """Looks into modules only as far as there are batch norms, so that nothing else needs to be traceable."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """True for the batch norms and for whatever holds none."""
        return isinstance(m, nn.BatchNorm2d) or not any(isinstance(child, nn.BatchNorm2d) for child in m.modules())


def fold_batch_norms(network: nn.Module) -> int:
    """Fold every batch norm that directly follows a convolution into it, in place; returns how many.

    The order of computation is read from the network itself. A norm that follows something else (DenseNet's first ones,
    which come before their convolutions) stays, and so does one whose convolution feeds other layers as well.
    The norm's place is kept by an `nn.Identity`. Folded in float64, so that only the result is rounded.
    Raises ValueError for a network in training mode, whose norms have no fixed statistics.
    """
    if network.training:
        raise ValueError("batch norms can be folded in evaluation mode only; call eval() first")
    graph = _BatchNormTracer().trace(network)
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    folded = 0
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        name, conv_name = str(node.target), str(before.target)
        norm, conv = network.get_submodule(name), network.get_submodule(conv_name)
        # a subclass does more than normalise (timm's applies the activation too), so it stays
        if type(norm) is not nn.BatchNorm2d or not isinstance(conv, nn.Conv2d) or norm.training:
            continue
        if calls[name] > 1 or calls[conv_name] > 1:
            continue
        dtype = conv.weight.dtype
        network.set_submodule(conv_name, fuse_conv_bn_eval(conv.double(), norm.double()).to(dtype))
        network.set_submodule(name, nn.Identity())
        folded += 1
    return folded
