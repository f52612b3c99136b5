"""Convert the published checkpoint and CLIP's file to one folder that `inference.py` and `load_weights` read (docs/release.md).

The published file holds everything but CLIP's image tower, which the published code took from OpenAI's own file, so that
one is needed too. The result is made in a folder of its own beside the wanted one and moved there when it is whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cocoer.config import Config
from cocoer.errors import CheckpointError, listed
from cocoer.files import file_sha256, put_in_place
from cocoer.model.build import BlankWeights, build_cocoer, load_clip
from cocoer.model.checkpoint import FILE_NAME, save_weights
from cocoer.model.clip_tower import build_clip, text_embeddings
from cocoer.model.cocoer import CocoER
from cocoer.model.foreign_weights import read_foreign_weights
from cocoer.model.release.keys import CLASS_LAYER, OMEGA, KeyFates, key_fates, our_state
from cocoer.model.release.safe_pickle import read_pickled, tensors_of
from cocoer.model.tensor_file import require_finite
from cocoer.weights import places

REPORT_NAME = "conversion.txt"
WHAT = "published checkpoint"
_TOWER = "vocabulary.tower."


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    file: the weights it wrote. fates: what became of every published key. notes: what a reader should know, one line each.
    """

    file: Path
    fates: KeyFates
    notes: tuple[str, ...]


def clip_places() -> tuple[Path, ...]:
    """Default places of CLIP's RN50 file: our folder, then open_clip's and OpenAI's cache."""
    hub = Path(os.environ.get("HF_HOME", places.user_home() / ".cache" / "huggingface")) / "hub"
    snapshots = sorted((hub / "models--timm--resnet50_clip.openai").glob("snapshots/*/open_clip_model.safetensors"))
    return (places.place_of("checkpoints/clip/RN50.pt"), places.user_home() / ".cache" / "clip" / "RN50.pt", *snapshots)


def convert_release(
    release: str | Path,
    out: str | Path,
    config: Config,
    *,
    clip: str | Path | None = None,
    vocabulary: str | Path | None = None,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> Conversion:
    """Write `out`/model.safetensors from the authors' GWT.pth and CLIP's RN50 file, and a report of every key beside it.

    config: the release config that goes with the weights (configs/emotic_release.yaml). clip: OpenAI's archive, a state dict
    or safetensors; None looks in `clip_places`. vocabulary: the authors' w.pth, compared with omega in the checkpoint, or
    giving it where the checkpoint lacks it. force: replace weights that are already there. say: receives each step as a text.
    FFN1 is folded (docs/method.md#modes-ablations-folding). No code of any file is run.
    Raises CheckpointError for files that cannot be used, ValueError for a config that is not the release's; then nothing is
    written.
    """
    if config.model.mode != "release":
        raise ValueError(f"conversion needs a config with model.mode: release, got {config.model.mode!r}")
    release, out = Path(release), _output_folder(Path(out), force)
    say(f"reading {release}")
    content = read_pickled(release, WHAT)
    published = tensors_of(content, release, WHAT)
    clip_file = _clip_file(clip)
    notes = _with_omega(published, vocabulary)
    with BlankWeights():
        model = build_cocoer(config, pretrained=False, folded=True)
    blocks = config.model.attention.blocks
    fates = _checked_fates(published, model, blocks, release, config)
    state = our_state(published, model, blocks)
    require_finite(state, f"{WHAT} {release}")
    say(f"reading {clip_file}")
    more, note = _from_clip(clip_file, model, config)
    notes += [note] if note else []
    model.load_state_dict(state | more, strict=True)
    say(f"writing {out}")
    source = _source(release, content) + f"; {_named(clip_file)}"
    file = _write(out, model, config, fates, [*notes, f"converted from {source}"])
    for line in (str(fates), *notes, f"every key by name: {out / REPORT_NAME}"):
        say(line)
    return Conversion(file, fates, tuple(notes))


def _output_folder(out: Path, force: bool) -> Path:
    """CheckpointError unless `out` is, or can become, a folder without weights (or force)."""
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"--output {out}: is a file; wanted a folder, such as checkpoints/release/")
    if (out / FILE_NAME).exists() and not force:
        raise CheckpointError(
            f"--output {out}: already holds {FILE_NAME}; name another folder, or replace it with --force"
        )
    return out


def _clip_file(clip: str | Path | None) -> Path:
    """The named CLIP file, or the first of the usual places; CheckpointError where there is none."""
    usual = clip_places() if clip is None else (Path(clip),)
    for place in usual:
        if place.is_file():
            return place
    tried = ", ".join(str(place) for place in usual)
    raise CheckpointError(
        f"CLIP weights {tried}: no such file; the published checkpoint does not hold CLIP's tower. Name OpenAI's RN50.pt"
        " with --clip; `cocoer weights list` says where it comes from"
    )


def _with_omega(published: dict[str, Tensor], vocabulary: str | Path | None) -> list[str]:
    """Compare omega with the vocabulary file's, or take it from there; returns notes.

    As published: w.pth is read first, and the checkpoint's own omega is then loaded over it, so the checkpoint's counts.
    """
    if vocabulary is None:
        return []
    what = "vocabulary weights"
    weights = tensors_of(read_pickled(vocabulary, what), vocabulary, what)
    if OMEGA not in weights:
        raise CheckpointError(
            f"{what} {vocabulary}: no {OMEGA} in it; got {', '.join(list(weights)[:4])}; wanted w.pth"
        )
    omega = weights[OMEGA]
    if OMEGA not in published:
        published[OMEGA] = omega
        return [f"omega comes from {vocabulary}; the checkpoint has none"]
    own = published[OMEGA]
    if own.shape != omega.shape:
        raise CheckpointError(f"{what} {vocabulary}: {OMEGA}: wanted {list(own.shape)}, got {list(omega.shape)}")
    apart = float((own.float() - omega.float()).abs().max())
    if apart == 0.0:
        return [f"omega of the checkpoint and of {vocabulary} are the same"]
    return [f"omega of the checkpoint is used; {vocabulary} differs from it by up to {apart:.3g}"]


def _checked_fates(published: Mapping[str, Tensor], model: CocoER, blocks: int, path: Path, config: Config) -> KeyFates:
    """The fates of all keys; CheckpointError unless every key that the model needs is there in its shape."""
    fates = key_fates(published, model, blocks)
    shown = ", ".join(list(published)[:3])
    if not fates.used:
        raise CheckpointError(
            f"{WHAT} {path}: another model's weights: none of its {len(published)} keys is known ({shown})"
        )
    if set(fates.used) == {OMEGA}:
        raise CheckpointError(f"{WHAT} {path}: only {OMEGA} in it; this is the vocabulary file, meant for --vocabulary")
    classes, wanted = published.get(CLASS_LAYER), len(config.classes)
    if classes is not None and classes.ndim == 2 and classes.shape[0] != wanted:
        raise CheckpointError(
            f"{WHAT} {path}: made for {classes.shape[0]} classes, wanted the {wanted} of {config.data.dataset};"
            " the published checkpoint is EMOTIC's"
        )
    if fates.missing or fates.misshapen:
        lines = [f"  missing: {key}" for key in fates.missing] + [f"  wrong shape: {line}" for line in fates.misshapen]
        shown = listed(lines, 20, "\n")
        raise CheckpointError(f"{WHAT} {path}: does not fit the release model: {fates}\n{shown}")
    return fates


def _from_clip(path: Path, model: CocoER, config: Config) -> tuple[dict[str, Tensor], str]:
    """CLIP's image tower and the prompts' text embeddings under our names, and a note where there is no text tower."""
    weights = read_foreign_weights(path, "CLIP weights")
    own = model.state_dict()
    state = {}
    for name in own:
        if not name.startswith(_TOWER):
            continue
        there = "visual." + name.removeprefix(_TOWER)
        if there not in weights or weights[there].shape != own[name].shape:
            got = list(weights[there].shape) if there in weights else "nothing"
            raise CheckpointError(
                f"CLIP weights {path}: wanted {there} {list(own[name].shape)}, got {got}; wanted the file of"
                f" {config.model.vocabulary.tower}"
            )
        state[name] = weights[there].to(own[name].dtype)
    embeddings = "vocabulary.text_embeddings"
    if "token_embedding.weight" not in weights:
        state[embeddings] = torch.zeros_like(own[embeddings])
        return state, f"{path} has no text tower: text embeddings are zeros (the release layout does not read them)"
    state[embeddings] = _text_embeddings(weights, config, path)
    return state, ""


def _text_embeddings(weights: Mapping[str, Tensor], config: Config, path: Path) -> Tensor:
    """Unit-norm embeddings [k, e] of the emotion prompts by the text tower of a CLIP file."""
    spec = config.model.vocabulary
    with BlankWeights():
        clip = build_clip(spec.tower, quick_gelu=True, with_text=True)
    try:
        load_clip(clip, dict(weights), str(path))
    except ValueError as err:
        raise CheckpointError(f"{err} (the text tower of {spec.tower} is needed too)") from None
    return text_embeddings(clip, spec.tower, config.classes, spec.prompt)


def _named(path: Path) -> str:
    """File name and checksum, for the record."""
    return f"{path.name} (sha256 {file_sha256(path)})"


def _source(path: Path, content: Any) -> str:
    """Name, checksum, and where the authors' training stood."""
    stood = [
        f"{key} {content[key]}" for key in ("iter", "cur_epoch") if isinstance(content, Mapping) and key in content
    ]
    return ", ".join([_named(path), *stood])


def _write(out: Path, model: CocoER, config: Config, fates: KeyFates, notes: list[str]) -> Path:
    """Weights and report, made in a folder beside `out` and moved into it, the weights last."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as err:
        raise CheckpointError(
            f"--output {out}: cannot be written: {err}; wanted a folder that can be made and written"
        ) from None
    try:
        save_weights(unfinished / FILE_NAME, model, config, metrics={}, thresholds={}, note="; ".join(notes))
        text = "\n".join([str(fates), *notes, *fates.lines()]) + "\n"
        (unfinished / REPORT_NAME).write_text(text, encoding="utf-8")
        out.mkdir(exist_ok=True)
        for name in (REPORT_NAME, FILE_NAME):
            put_in_place(unfinished / name, out / name)
    except OSError as err:
        raise CheckpointError(
            f"--output {out}: cannot be written: {err}; what was there before is still there"
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out / FILE_NAME
