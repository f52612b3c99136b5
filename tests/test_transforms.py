"""Image and boxes move together; crops agree with torchvision; randomness is the generator's alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from cocoer.config import AugmentConfig
from cocoer.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LevelCrops,
    augment_crops,
    augment_image,
    crop_levels,
    flip_crops,
    jitter_pixels,
    make_batch,
    normalise,
    normalised,
    person_generator,
)
from cocoer.names import LEVELS

SIZE = 32


def noise(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def painted(width: int = 200, height: int = 120) -> tuple[Image.Image, tuple[float, ...], tuple[float, ...]]:
    """Green image, body box painted red, head box painted blue: colours say where the boxes are."""
    image = Image.new("RGB", (width, height), (0, 255, 0))
    image.paste((255, 0, 0), (60, 20, 140, 110))
    image.paste((0, 0, 255), (90, 20, 120, 50))
    return image, (60.0, 20.0, 140.0, 110.0), (90.0, 20.0, 120.0, 50.0)


def test_crops_are_what_torchvision_makes_of_a_pil_image() -> None:
    image = noise()
    crops = crop_levels(image, (10, 5, 80, 55), (30, 5, 50, 25), SIZE)
    cut = {"head": (30, 5, 50, 25), "body": (10, 5, 80, 55), "context": (0, 0, 90, 60)}
    for level, pixels in zip(LEVELS, crops.pixels, strict=True):
        part = image.crop(cut[level])
        wanted = tv.resize(part, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias=True)
        np.testing.assert_array_equal(pixels, np.asarray(wanted))
    wanted_tensor = tv.normalize(tv.to_tensor(Image.fromarray(crops.pixels[0])), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normalise(crops.pixels[0]), wanted_tensor, rtol=1e-5, atol=1e-6)


def test_boxes_are_scaled_to_the_context_frame_and_cut_to_the_image() -> None:
    crops = crop_levels(noise(), (-10, 6, 45, 70), (9, 12, 18, 30), SIZE)
    np.testing.assert_allclose(crops.body_xyxy, np.array([0, 6 / 60, 0.5, 1]) * SIZE, rtol=1e-6)
    np.testing.assert_allclose(crops.head_xyxy, np.array([0.1, 0.2, 0.2, 0.5]) * SIZE, rtol=1e-6)
    with pytest.raises(ValueError, match=r"head: .*outside the image \(90x60"):
        crop_levels(noise(), (0, 0, 9, 9), (95, 0, 99, 9), SIZE)


@given(
    x=st.floats(0, 88.9), y=st.floats(0, 58.9), w=st.floats(0.01, 90), h=st.floats(0.01, 60), size=st.integers(1, 40)
)
def test_any_box_that_touches_the_image_gives_a_crop(x: float, y: float, w: float, h: float, size: int) -> None:
    crops = crop_levels(noise(), (x, y, x + w, y + h), (x, y, x + w, y + h), size)
    assert crops.pixels.shape == (3, size, size, 3)
    assert (crops.body_xyxy[2:] >= crops.body_xyxy[:2]).all() and crops.body_xyxy.max() <= size * (1 + 1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), crop=st.floats(0, 1))
def test_a_random_crop_keeps_the_person_and_moves_the_boxes_with_the_pixels(seed: int, crop: float) -> None:
    image, body, head = painted()
    out, new_body, new_head = augment_image(image, body, head, AugmentConfig(crop=crop), np.random.default_rng(seed))
    pixels = np.asarray(out)
    for box, colour in ((new_head, (0, 0, 255)), (new_body, (255, 0, 0))):
        ys, xs = np.nonzero((pixels == colour).all(-1))
        assert (xs.min(), xs.max() + 1) == (box[0], box[2])
        assert ys.max() + 1 == box[3]
    assert out.width >= image.width * (1 - crop) - 1 and out.height >= image.height * (1 - crop) - 1
    assert new_body[2] - new_body[0] == 80 and new_head[3] - new_head[1] == 30


def test_a_random_crop_does_crop() -> None:
    image, body, head = painted()
    sizes = {
        augment_image(image, body, head, AugmentConfig(crop=0.5), np.random.default_rng(s))[0].size for s in range(9)
    }
    assert len(sizes) > 5


@given(seed=st.integers(0, 2**32), shift=st.floats(0, 1))
def test_shifted_boxes_stay_within_the_share_and_inside_the_image(seed: int, shift: float) -> None:
    image, body, head = painted()
    out, *boxes = augment_image(image, body, head, AugmentConfig(box_shift=shift), np.random.default_rng(seed))
    assert out is image
    for old, new in zip((body, head), boxes, strict=True):
        limit = shift * np.array([old[2] - old[0], old[3] - old[1]] * 2)
        assert new[0] >= 0 and new[1] >= 0 and new[2] <= image.width and new[3] <= image.height
        assert new[2] - new[0] >= 1 - 1e-9 and new[3] - new[1] >= 1 - 1e-9
        assert (np.abs(np.array(new) - old) <= limit + 1.001).all()


def test_flip_mirrors_pixels_and_boxes_and_twice_is_nothing() -> None:
    image, body, head = painted()
    crops = crop_levels(image, body, head, 40)
    flipped = flip_crops(crops)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    moved = [(200 - b[2], b[1], 200 - b[0], b[3]) for b in (body, head)]
    direct = crop_levels(mirrored, moved[0], moved[1], 40)
    assert np.abs(flipped.pixels.astype(int) - direct.pixels).max() <= 1  # Pillow's resize rounds each side its own way
    np.testing.assert_allclose(flipped.body_xyxy, direct.body_xyxy, atol=1e-5)
    np.testing.assert_allclose(flipped.head_xyxy, direct.head_xyxy, atol=1e-5)
    twice = flip_crops(flipped)
    np.testing.assert_array_equal(twice.pixels, crops.pixels)
    np.testing.assert_allclose(twice.head_xyxy, crops.head_xyxy, atol=1e-5)


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.0, 1.3])
def test_jitter_agrees_with_torchvision_one_change_at_a_time(factor: float) -> None:
    # Gray values in the middle: torchvision clips after every step, ours once.
    middle = Image.fromarray(np.random.default_rng(1).integers(80, 160, (SIZE, SIZE, 3), dtype=np.uint8))
    pixels = np.broadcast_to(np.asarray(middle), (3, SIZE, SIZE, 3)).copy()
    for place, change in enumerate((tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)):
        factors = [1.0, 1.0, 1.0]
        factors[place] = factor
        ours = jitter_pixels(pixels, *factors)[0].astype(int)
        assert np.abs(ours - np.asarray(change(middle, factor))).max() <= 1


def test_jitter_of_one_is_nothing_and_all_crops_see_the_same_light() -> None:
    pixels = crop_levels(noise(), (10, 5, 80, 55), (30, 5, 50, 25), SIZE).pixels
    np.testing.assert_array_equal(jitter_pixels(pixels, 1.0, 1.0, 1.0), pixels)
    flat = np.full((3, 4, 4, 3), 100, np.uint8)
    flat[2] = 120  # contrast pulls all crops towards the context's gray
    assert np.unique(jitter_pixels(flat, 1.0, 0.5, 1.0)[:2]).tolist() == [110]


def test_augmentation_is_the_generators_alone_and_leaves_its_input() -> None:
    augment = AugmentConfig(flip=0.5, crop=0.3, jitter=0.4, box_shift=0.1)
    image, body, head = painted()
    before = np.asarray(image).copy()

    def run(seed: int, epoch: int, index: int) -> LevelCrops:
        rng = person_generator(seed, epoch, index)
        return augment_crops(crop_levels(*augment_image(image, body, head, augment, rng), SIZE), augment, rng)

    first = run(3, 2, 1)
    torch.manual_seed(99)
    np.testing.assert_array_equal(first.pixels, run(3, 2, 1).pixels)
    np.testing.assert_array_equal(first.body_xyxy, run(3, 2, 1).body_xyxy)
    for other in ((4, 2, 1), (3, 1, 1), (3, 2, 2)):
        assert (run(*other).pixels != first.pixels).any()
    np.testing.assert_array_equal(np.asarray(image), before)


def test_one_setting_does_not_change_what_another_draws() -> None:
    crops = crop_levels(*painted(), SIZE)
    plain, cropping = AugmentConfig(jitter=0.4), AugmentConfig(jitter=0.4, crop=0.4, box_shift=0.2)
    outs = []
    for augment in (plain, cropping):
        rng = person_generator(0, 0, 0)
        augment_image(*painted(), augment, rng)
        outs.append(augment_crops(crops, augment, rng).pixels)
    np.testing.assert_array_equal(*outs)


def test_flip_happens_as_often_as_it_says() -> None:
    crops = crop_levels(*painted(), 8)
    counts = [
        sum(
            bool((augment_crops(crops, AugmentConfig(flip=p, jitter=0.0), person_generator(0, 0, i)).head_xyxy
                  != crops.head_xyxy).any())
            for i in range(400)
        )
        for p in (0.0, 0.25, 1.0)
    ]  # fmt: skip
    assert counts[0] == 0 and 65 <= counts[1] <= 135 and counts[2] == 400


def test_a_batch_holds_every_person_as_it_is_alone() -> None:
    persons = [crop_levels(noise(seed=i), (10, 5, 80, 55), (30, 5, 50, 25), SIZE) for i in range(3)]
    targets = torch.eye(3)
    batch = make_batch(persons, ["a", "b", "c"], targets)
    assert batch.head.shape == batch.body.shape == batch.context.shape == (3, 3, SIZE, SIZE)
    assert batch.head.dtype == batch.head_xyxy.dtype == torch.float32 and batch.head.is_contiguous()
    for i, person in enumerate(persons):
        for level, pixels in zip(LEVELS, person.pixels, strict=True):
            assert torch.equal(getattr(batch, level)[i], normalise(pixels))
    assert batch.keys == ("a", "b", "c") and batch.targets is targets
    with pytest.raises(ValueError, match="at least one person"):
        make_batch([], [])


def test_the_imagenet_statistics_are_those_of_torchvision_and_open_clip() -> None:
    """The backbones' weights were trained with them, so a wrong digit only makes answers a little worse."""
    import open_clip
    from torchvision.models import ResNet50_Weights

    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()
    assert tuple(preset.mean) == IMAGENET_MEAN == tuple(open_clip.constants.IMAGENET_MEAN)
    assert tuple(preset.std) == IMAGENET_STD == tuple(open_clip.constants.IMAGENET_STD)


def test_random_changes_are_as_large_as_the_config_says() -> None:
    """Against the same numbers drawn again: a factor in 1 - jitter .. 1 + jitter, a side moved by up to its share of the box."""
    augment = AugmentConfig(flip=0.0, crop=0.0, jitter=0.3, box_shift=0.1)
    crops = crop_levels(noise(), (10, 5, 80, 55), (30, 5, 50, 25), SIZE)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rng.random()  # of the flip
        factors = 1.0 + 0.3 * (2.0 * rng.random(3) - 1.0)
        made = augment_crops(crops, augment, np.random.default_rng(seed))
        np.testing.assert_array_equal(made.pixels, jitter_pixels(crops.pixels, *factors))
        rng = np.random.default_rng(seed)
        rng.random((2, 2))  # of the crop
        shifts = 0.1 * (2.0 * rng.random((2, 4)) - 1.0)
        _, body, head = augment_image(noise(), (20, 10, 70, 50), (30, 15, 50, 25), augment, np.random.default_rng(seed))
        np.testing.assert_allclose(body, np.array([20, 10, 70, 50]) + shifts[0] * [50, 40, 50, 40], rtol=1e-12)
        np.testing.assert_allclose(head, np.array([30, 15, 50, 25]) + shifts[1] * [20, 10, 20, 10], rtol=1e-12)


class Draws:
    """Stands for a generator whose numbers are known."""

    def __init__(self, shares: object, signs: object = 0.0) -> None:
        self.shares, self.signs = np.array(shares), np.array(signs)

    def random(self, size: object = None) -> np.ndarray:
        return self.shares

    def uniform(self, low: float, high: float, size: object) -> np.ndarray:
        return np.broadcast_to(self.signs, size)  # type: ignore[call-overload]


def test_a_random_crop_cuts_what_its_numbers_say_and_stops_at_the_person() -> None:
    image = noise(200, 120)
    body, head = (100.0, 60.0, 110.0, 70.0), (102.0, 61.0, 106.0, 65.0)
    # Of 200: 0.4 of at most a half = 40 pixels, a quarter of them on the left. Of 120: 0.8 of a half = 48, 36 of them above.
    draws = Draws([[0.4, 0.25], [0.8, 0.75]])
    out, *boxes = augment_image(image, body, head, AugmentConfig(crop=0.5), draws)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.asarray(out), np.asarray(image)[36:108, 10:170])
    assert boxes == [(90, 24, 100, 34), (92, 25, 96, 29)]
    # The largest crop there is: what is left is the smallest rectangle that holds both, whichever of the two reaches further.
    inner, outer = (60.0, 30.0, 140.0, 80.0), (50.0, 20.0, 150.0, 90.0)
    left, low = (40.0, 25.0, 90.0, 85.0), (70.0, 40.0, 160.0, 100.0)
    for body, head, keep in ((inner, outer, outer), (outer, inner, outer), (left, low, (40, 25, 160, 100)),
                             (low, left, (40, 25, 160, 100))):  # fmt: skip
        draws = Draws([[1.0, 0.5], [1.0, 0.5]])
        out, new, _ = augment_image(image, body, head, AugmentConfig(crop=1.0), draws)  # type: ignore[arg-type]
        x1, y1, x2, y2 = (int(v) for v in keep)
        np.testing.assert_array_equal(np.asarray(out), np.asarray(image)[y1:y2, x1:x2])
        assert new == (body[0] - x1, body[1] - y1, body[2] - x1, body[3] - y1)


def test_a_shifted_box_stops_at_the_border_with_a_pixel_left() -> None:
    image = noise(100, 80)

    def shifted(box: tuple[float, ...], *signs: float) -> tuple[float, ...]:
        draws = Draws(np.zeros((2, 2)), signs)
        return augment_image(image, box, box, AugmentConfig(box_shift=1.0), draws)[1]  # type: ignore[arg-type]

    assert shifted((40, 40, 48, 50), 0.5, -0.5, 0.25, 1.0) == (44, 35, 50, 60)
    assert shifted((96, 76, 100, 80), 1, 1, 1, 1) == (99, 79, 100, 80)
    assert shifted((0, 0, 4, 4), -1, -1, -1, -1) == (0, 0, 1, 1)
    assert shifted((40, 40, 48, 48), 1, 1, -1, -1) == (48, 48, 49, 49)  # turned inside out


def test_what_is_switched_off_hands_back_what_came() -> None:
    """Also a box beyond the border, and a flip whose draw is exactly 0: a share of nothing never happens."""
    off = AugmentConfig(flip=0.0, crop=0.0, jitter=0.0, box_shift=0.0)
    image, body, head = noise(), (-5.0, 0.0, 95.0, 60.0), (10.0, 10.0, 30.0, 30.0)
    made = augment_image(image, body, head, off, np.random.default_rng(0))
    assert made[0] is image and made[1] is body and made[2] is head
    crops = crop_levels(image, body, head, SIZE)
    assert augment_crops(crops, off, Draws(0.0)) is crops  # type: ignore[arg-type]


def test_brightness_contrast_and_saturation_go_one_after_the_other() -> None:
    """In float64 and step by step, as the docstring says it; gray as in ITU-R 601."""
    pixels = np.random.default_rng(2).integers(90, 150, (3, 8, 8, 3), dtype=np.uint8)
    luma = np.array([0.299, 0.587, 0.114])
    for brightness, contrast, saturation in ((1.3, 0.6, 0.5), (0.7, 1.4, 1.5), (1.2, 1.5, 0.0), (0.8, 0.0, 1.0)):
        light = pixels * brightness
        mean = (light[2] @ luma).mean()  # of the context
        toned = mean + contrast * (light - mean)
        gray = (toned @ luma)[..., None]
        wanted = gray + saturation * (toned - gray)
        made = jitter_pixels(pixels, brightness, contrast, saturation)
        assert np.abs(made - wanted.clip(0, 255)).max() <= 1.01


def test_crops_without_torch_are_the_same_numbers() -> None:
    pixels = crop_levels(noise(), (10, 5, 80, 55), (30, 5, 50, 25), SIZE).pixels
    np.testing.assert_array_equal(normalised(pixels), normalise(pixels).numpy())
    assert normalised(pixels).flags.c_contiguous


def test_the_numbers_of_a_person_never_change_from_one_version_to_the_next() -> None:
    """A run is resumed, and compared with an older one, by its seed alone: these came from the first version."""
    drawn = [person_generator(1, 2, 3, step).integers(0, 1000, 3).tolist() for step in ("image", "crops")]  # type: ignore[arg-type]
    assert drawn == [[288, 719, 299], [881, 321, 870]]
