"""The demo world's detector: points, targets, losses and layout against slow oracles; nothing is trained or exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cocoer.model.demo_detector import (
    ANCHORS,
    KINDS,
    Backbone,
    Head,
    OneDetector,
    giou_loss,
    loss_of,
    points_of,
    targets_of,
)

SIDE = 96


def test_every_box_has_points_of_its_own_slot_near_its_centre() -> None:
    centres, strides, slots = points_of(256)
    boxes = torch.tensor([[10.0, 10, 30, 28], [100, 40, 160, 110], [20, 20, 220, 250]])
    for kind in KINDS:
        owner, ignored = targets_of(boxes, kind, centres, strides, slots)
        assert set(owner.tolist()) == {-1, 0, 1, 2}
        assert not (ignored & (owner >= 0)).any()
        middle = (boxes[owner[owner >= 0], :2] + boxes[owner[owner >= 0], 2:]) / 2
        assert ((centres[owner >= 0] - middle).abs().amax(1) <= 1.5 * strides[owner >= 0]).all()
    owner, ignored = targets_of(boxes[:0], "face", centres, strides, slots)
    assert (owner == -1).all() and not ignored.any()


def test_the_right_answer_costs_least() -> None:
    points = points_of(SIDE)
    centres, strides, _ = points
    boxes = torch.tensor([[16.0, 12, 56, 66]])
    owner, _ = targets_of(boxes, "face", *points)
    logits = torch.where(owner >= 0, 9.0, -9.0).view(1, -1, 1)
    right = torch.cat([centres - boxes[0, :2], boxes[0, 2:] - centres], 1).clamp(min=0) / strides[:, None]
    best = loss_of(logits, right[None], [boxes], "face", points)
    assert best < 0.01
    for other in (loss_of(-logits, right[None], [boxes], "face", points),
                  loss_of(logits, 1.5 * right[None], [boxes], "face", points)):  # fmt: skip
        assert other > best + 0.1
    assert loss_of(logits * 0 - 20, right[None], [boxes[:0]], "face", points) < 1e-6


def test_giou_is_nothing_for_the_same_box_and_grows_with_distance() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    losses = [float(giou_loss(box + shift, box)) for shift in (0.0, 2.0, 9.0, 20.0, 40.0)]
    assert losses[0] == pytest.approx(0, abs=1e-6) and losses == sorted(losses) and losses[-1] > 1.5


def test_points_are_numbered_row_by_row_with_their_anchors_side_by_side() -> None:
    centres, strides, slots = points_of(32)
    wanted = [
        (x * stride, y * stride, stride, 2 * i + anchor)
        for i, stride in enumerate((8, 16, 32))
        for y in range(32 // stride)
        for x in range(32 // stride)
        for anchor in (0, 1)
    ]
    assert [(*c, s, k) for c, s, k in zip(centres.tolist(), strides.tolist(), slots.tolist(), strict=True)] == wanted


def slow_targets(
    box: list[float], limits: tuple[float, ...], points: tuple[Tensor, ...]
) -> tuple[list[int], list[bool]]:
    """`targets_of` for one box, point by point."""
    slot = sum(max(box[2] - box[0], box[3] - box[1]) > limit for limit in limits)
    owner, ignored = [], []
    for (x, y), stride, place in zip(*(p.tolist() for p in points), strict=True):
        near = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2)) <= 1.5 * stride
        owner.append(0 if near and place == slot else -1)
        ignored.append(near and abs(place - slot) == 1)
    return owner, ignored


@pytest.mark.parametrize(
    "side",
    [
        20.0,
        22.0,
        26.0,
        40.0,
        43.0,
        60.0,
        80.0,
        99.0,
        135.0,
        136.0,
        180.0,
        22.5,
        30.5,
        48.5,
        58.5,
        72.5,
        80.5,
        100.5,
        175.5,
    ],
)  # just above a limit
@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_those_of_a_loop_over_the_points(kind: str, side: float) -> None:
    limits = {"face": (22, 30, 42, 58, 80), "person": (48, 72, 100, 135, 175)}[kind]
    points = points_of(128)
    for box in (
        [14.0, 20.0, 14 + side, 20 + side / 2],
        [12.0, 14.0, 12 + side / 3, 14 + side],
        [32.0, 32, 32 + side, 32 + side],
    ):
        owner, ignored = targets_of(torch.tensor([box]), kind, *points)
        assert (owner.tolist(), ignored.tolist()) == slow_targets(box, limits, points)


def test_a_point_that_two_boxes_want_goes_to_the_nearer_one() -> None:
    centres, strides, slots = points_of(64)
    boxes = torch.tensor([[20.0, 20, 44, 44], [24.0, 20, 48, 44]])  # centres (32, 32) and (36, 32)
    owner, _ = targets_of(boxes, "face", centres, strides, slots)
    found = {tuple(c): o for c, o, s in zip(centres.tolist(), owner.tolist(), slots.tolist(), strict=True) if s == 1}
    assert found[(24.0, 32.0)] == 0 and found[(40.0, 32.0)] == 1 and found[(8.0, 32.0)] == -1


def test_a_point_of_a_box_is_not_ignored_for_a_neighbour_of_another_size() -> None:
    points = points_of(64)
    for order in ([0, 1], [1, 0]):
        boxes = torch.tensor([[22.0, 22, 42, 42], [18.0, 18, 46, 46]])[
            order
        ]  # sides 20 and 28, slots 0 and 1, centre (32, 32)
        owner, ignored = targets_of(boxes, "face", *points)
        near = (points[0] - 32).abs().amax(1) <= 12
        assert owner[near & (points[2] == 0)].tolist() == [order.index(0)] * 9
        assert owner[near & (points[2] == 1)].tolist() == [order.index(1)] * 9
        assert not ignored[owner >= 0].any()
        assert (
            ignored.sum() == ((points[2] == 2) & ((points[0] - 32).abs().amax(1) <= 24)).sum()
        )  # of slot 2, next to 1


def test_without_a_box_the_loss_is_the_backgrounds_alone() -> None:
    """At p = 1/2 a point of the background costs 0.4 (1/2)^2 ln 2; there is no positive to share it, so nothing is divided."""
    points = points_of(32)
    logits, distances = torch.zeros(1, len(points[0]), 1), torch.ones(1, len(points[0]), 4)
    found = loss_of(logits, distances, [torch.zeros(0, 4)], "face", points)
    assert float(found) == pytest.approx(len(points[0]) * 0.4 * 0.25 * np.log(2), rel=1e-5)


def test_giou_is_torchvisions() -> None:
    from torchvision.ops import generalized_box_iou_loss

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 40, 2, generator=generator) * 50
    found, wanted = (torch.cat([c, c + 3 + torch.rand(40, 2, generator=generator) * 40], 1) for c in corners)
    torch.testing.assert_close(giou_loss(found, wanted), generalized_box_iou_loss(found, wanted))
    torch.testing.assert_close(giou_loss(found, found), torch.zeros(40))
    small, other = found / 100, wanted / 100  # less than a pixel wide: the share of areas is the same
    torch.testing.assert_close(giou_loss(small, other), giou_loss(found, wanted), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(giou_loss(small, small), torch.zeros(40))


def test_the_loss_is_a_focal_loss_and_giou_over_the_number_of_positives() -> None:
    from torchvision.ops import generalized_box_iou_loss

    points = centres, strides, _ = points_of(SIDE)
    generator = torch.Generator().manual_seed(1)
    logits, distances = (
        torch.randn(2, len(centres), 1, generator=generator),
        torch.rand(2, len(centres), 4, generator=generator),
    )
    boxes = [torch.tensor([[16.0, 12, 56, 66]]), torch.tensor([[30.0, 30, 50, 55], [4.0, 8, 80, 90]])]
    total, positives = 0.0, 0
    for row, own in enumerate(boxes):
        owner, ignored = targets_of(own, "face", *points)
        for i, (box, out) in enumerate(zip(owner.tolist(), ignored.tolist(), strict=True)):
            p = float(torch.sigmoid(logits[row, i, 0]))
            if box >= 0:
                (x, y), (left, top, right, bottom) = centres[i].tolist(), (distances[row, i] * strides[i]).tolist()
                seen = torch.tensor([[x - left, y - top, x + right, y + bottom]])
                total += -0.6 * (1 - p) ** 2 * np.log(p) + float(generalized_box_iou_loss(seen, own[box : box + 1]))
                positives += 1
            elif not out:
                total += -0.4 * p**2 * np.log(1 - p)
    assert positives > 3
    assert float(loss_of(logits, distances, boxes, "face", points)) == pytest.approx(total / positives, rel=1e-4)


def test_the_network_has_the_layout_of_the_shipped_detectors() -> None:
    """Shapes of every weight; a change makes the shipped files another network's."""
    torch.manual_seed(0)
    backbone, head = Backbone().eval(), Head().eval()
    sizes = {k: tuple(v.shape) for k, v in backbone.state_dict().items() if v.ndim == 4}
    assert list(sizes.values()) == [
        (16, 3, 3, 3), (24, 16, 3, 3), (24, 24, 3, 3), (48, 24, 3, 3), (48, 48, 3, 3), (64, 48, 3, 3), (64, 64, 3, 3),
        (64, 64, 3, 3), (64, 64, 3, 3), (48, 48, 1, 1), (48, 64, 1, 1), (48, 64, 1, 1),
    ]  # fmt: skip
    assert {k: tuple(v.shape) for k, v in head.state_dict().items() if "body" not in k} == {
        "scale": (3,), "score.weight": (2, 48, 3, 3), "score.bias": (2,), "box.weight": (8, 48, 3, 3), "box.bias": (8,),
    }  # fmt: skip
    before = torch.sigmoid(head.score.bias)
    assert ((before > 0.015) & (before < 0.02)).all(), "before any training one point in sixty is thought a box"
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        fine, middle, coarse = features = backbone(x)
        assert [tuple(f.shape) for f in features] == [(2, 48, 8, 8), (2, 48, 4, 4), (2, 48, 2, 2)]
        assert [f.shape[-1] for f in backbone(torch.zeros(1, 3, 96, 96))] == [96 // 8, 96 // 16, 96 // 32]
        below = middle - backbone.lateral[1](backbone.middle(backbone.fine(x)))
        torch.testing.assert_close(below, coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))
        below = fine - backbone.lateral[0](backbone.fine(x))
        torch.testing.assert_close(below, middle.repeat_interleave(2, 2).repeat_interleave(2, 3))
        head.scale.copy_(torch.tensor([1.0, 2.0, 3.0]))
        logits, distances = head(features)
        assert [tuple(v.shape) for v in distances] == [(2, 128, 4), (2, 32, 4), (2, 8, 4)]
        for i, (f, logit, distance) in enumerate(zip(features, logits, distances, strict=True)):
            score, box = head.score(head.body(f)), head.box(head.body(f)) * (i + 1)
            side = f.shape[-1]
            y, x0, anchor = 1, side - 1, 1  # one point, by hand
            place = (y * side + x0) * ANCHORS + anchor
            assert logit[1, place, 0] == score[1, anchor, y, x0]
            torch.testing.assert_close(
                distance[1, place], torch.nn.functional.softplus(box[1, anchor * 4 : anchor * 4 + 4, y, x0])
            )
        one = OneDetector(backbone, head)(x[1:])
        assert [tuple(v.shape) for v in one] == [(128, 1), (32, 1), (8, 1), (128, 4), (32, 4), (8, 4)]
        torch.testing.assert_close(one[0], torch.sigmoid(logits[0][1]))
