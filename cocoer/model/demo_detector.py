"""A small SCRFD-style detector for the demo world: fully convolutional, three strides, two anchors a point.

Trained by `scripts/train_demo_detectors.py` on synthetic scenes. Its outputs have SCRFD's layout (Guo et al. 2021: scores, then
left-top-right-bottom distances in strides), so insightface loads the exported file as one of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
ANCHORS = 2
KINDS = ("face", "person")
FEATURES = 48
SLOT_LIMITS = {"face": (22.0, 30.0, 42.0, 58.0, 80.0), "person": (48.0, 72.0, 100.0, 135.0, 175.0)}
"""The longer side of a box, in input pixels, decides its slot: (stride, anchor) = divmod(slot, ANCHORS)."""

RADIUS = 1.5
"""A point is positive up to so many strides from the box's centre."""


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Backbone(nn.Module):
    """RGB in -1..1 [B, 3, S, S] -> features of the three strides, each [B, FEATURES, S/s, S/s], mixed from coarse to fine."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(conv(3, 16, 2), conv(16, 24, 2), conv(24, 24), conv(24, 48, 2), conv(48, 48))
        self.middle = nn.Sequential(conv(48, 64, 2), conv(64, 64))
        self.coarse = nn.Sequential(conv(64, 64, 2), conv(64, 64))
        self.lateral = nn.ModuleList([nn.Conv2d(c, FEATURES, 1) for c in (48, 64, 64)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, S, S] -> [B, FEATURES, S/s, S/s] for s in STRIDES."""
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.lateral[2](self.coarse(middle))
        middle = self.lateral[1](middle) + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        fine = self.lateral[0](fine) + F.interpolate(middle, scale_factor=2.0, mode="nearest")
        return [fine, middle, coarse]


class Head(nn.Module):
    """Scores and distances of one kind of box, the same weights on every stride but for a scale each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(FEATURES, FEATURES)
        self.score = nn.Conv2d(FEATURES, ANCHORS, 3, 1, 1)
        self.box = nn.Conv2d(FEATURES, ANCHORS * 4, 3, 1, 1)
        self.scale = nn.Parameter(torch.ones(len(STRIDES)))
        assert self.score.bias is not None, "a convolution has a bias unless told otherwise"
        nn.init.constant_(self.score.bias, -4.0)  # nearly every point is background

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """-> logits [B, points, 1] and distances in strides [B, points, 4], per stride; a point's anchors lie side by side."""
        logits, distances = [], []
        for i, x in enumerate(features):
            x = self.body(x)
            logits.append(self.score(x).permute(0, 2, 3, 1).flatten(1).unsqueeze(-1))
            box = F.softplus(self.box(x) * self.scale[i])
            distances.append(box.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
        return logits, distances


class OneDetector(nn.Module):
    """Backbone and one head, as exported: a single image [1, 3, H, W] -> three score and three distance arrays, no batch axis."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[1, 3, H, W] -> scores 3 x [points, 1], distances 3 x [points, 4]."""
        logits, distances = self.head(self.backbone(x))
        return (*(torch.sigmoid(v)[0] for v in logits), *(v[0] for v in distances))


def points_of(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor points of a side x side input as insightface numbers them: centres [P, 2], strides [P], slots [P]."""
    centres, strides, slots = [], [], []
    for i, stride in enumerate(STRIDES):
        n = side // stride
        y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        centres.append((torch.stack([x, y], -1).reshape(-1, 1, 2).repeat(1, ANCHORS, 1) * stride).reshape(-1, 2))
        strides.append(torch.full((n * n * ANCHORS,), stride))
        slots.append(torch.arange(ANCHORS).repeat(n * n) + i * ANCHORS)
    return torch.cat(centres).float(), torch.cat(strides).float(), torch.cat(slots)


def targets_of(boxes: Tensor, kind: str, centres: Tensor, strides: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    """Which points should find which box: index of the box per point, -1 for none [P]; and the points to ignore [P] bool.

    A box owns the points of its slot within RADIUS strides of its centre; points of a neighbouring slot there are ignored.
    """
    owner, ignored = torch.full((len(centres),), -1), torch.zeros(len(centres), dtype=torch.bool)
    if not len(boxes):
        return owner, ignored
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2  # [n, 2]
    apart = (centres[:, None] - middle[None]).abs().amax(-1) / strides[:, None]  # [P, n]
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    slot = torch.bucketize(longer, torch.tensor(SLOT_LIMITS[kind]))  # [n]
    near = apart <= RADIUS
    mine = near & (slots[:, None] == slot[None])
    nearest = torch.where(mine, apart, torch.inf)
    owner = torch.where(mine.any(1), nearest.argmin(1), owner)
    ignored = (near & ((slots[:, None] - slot[None]).abs() == 1)).any(1) & (owner < 0)
    return owner, ignored


def loss_of(logits: Tensor, distances: Tensor, boxes: list[Tensor], kind: str, points: tuple[Tensor, ...]) -> Tensor:
    """Focal loss of the scores and GIoU loss of the boxes, over a batch. logits [B, P, 1], distances [B, P, 4]."""
    centres, strides, slots = points
    total, positives = logits.new_zeros(()), 0
    for row, own in enumerate(boxes):
        owner, ignored = targets_of(own, kind, centres, strides, slots)
        hit = owner >= 0
        score = logits[row, :, 0]
        wanted = hit.float()
        p = torch.sigmoid(score)
        weight = torch.where(hit, 0.6 * (1 - p) ** 2, 0.4 * p**2) * (~ignored)
        total = total + (weight.detach() * F.binary_cross_entropy_with_logits(score, wanted, reduction="none")).sum()
        positives += int(hit.sum())
        if hit.any():
            d, c = distances[row, hit] * strides[hit, None], centres[hit]
            total = total + giou_loss(torch.cat([c - d[:, :2], c + d[:, 2:]], 1), own[owner[hit]]).sum()
    return total / max(1, positives)


def giou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019) of boxes [n, 4] with boxes [n, 4]: [n]."""

    def size(b: Tensor) -> Tensor:
        return (b[:, 2] - b[:, 0]).clamp(min=0) * (b[:, 3] - b[:, 1]).clamp(min=0)

    shared = size(
        torch.cat([torch.maximum(found[:, :2], wanted[:, :2]), torch.minimum(found[:, 2:], wanted[:, 2:])], 1)
    )
    around = size(
        torch.cat([torch.minimum(found[:, :2], wanted[:, :2]), torch.maximum(found[:, 2:], wanted[:, 2:])], 1)
    )
    union = size(found) + size(wanted) - shared
    return 1 - shared / union.clamp(min=1e-6) + (around - union) / around.clamp(min=1e-6)
