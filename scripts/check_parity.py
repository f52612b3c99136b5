"""Release mode against outputs of the published code: one line per output with the largest absolute error.

    python scripts/check_parity.py --golden ../shared/parity/release_golden_a.npz

A golden file holds the seed, batch size and inner step that it was made with; seeded_weights.py in the parity folder makes
the same stand-in weights and the same batch again. Exit 0 where every output agrees to 1e-4, 1 where one does not, 2 for
wrong usage or files that cannot be used.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from cocoer.config import Config, load_config
from cocoer.model.build import BlankWeights, build_cocoer
from cocoer.model.cocoer import CocoER
from cocoer.model.level_model import ModelOutput
from cocoer.model.release.keys import key_fates, our_state
from cocoer.names import LEVELS

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1e-4
OUTPUTS = (
    "pred", "vi", "head", "body", "context", "workspace", "distance", "pseudo",
    "loss_head", "loss_body", "loss_context", "exclusion",
)  # fmt: skip


def read_golden(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a golden file. Raises ValueError for a missing file, another kind of file, or missing arrays."""
    if not path.is_file():
        raise ValueError(f"--golden {path}: no such file; wanted a release_golden_*.npz")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError) as err:
        raise ValueError(f"--golden {path}: not a readable .npz file: {err}") from None
    missing = [name for name in ("seed", "batch", "inside_lr", *OUTPUTS) if name not in arrays]
    if missing:
        raise ValueError(f"--golden {path}: lacks {', '.join(missing)}; wanted a release_golden_*.npz")
    return arrays


def default_parity_dir(golden: Path) -> Path:
    """The golden file's folder where the recipe lies beside it, else `shared/parity` beside the checkout or the tests' copy."""
    places = (golden.parent, ROOT.parent / "shared" / "parity", ROOT / "tests" / "data")
    return next((place for place in places if (place / "seeded_weights.py").is_file()), places[0])


def load_recipe(folder: Path) -> ModuleType:
    """seeded_weights.py of the parity folder, as a module. Raises ValueError where it is missing."""
    path = folder / "seeded_weights.py"
    spec = importlib.util.spec_from_file_location("seeded_weights", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"--parity-dir {folder}: no seeded_weights.py in it; it makes the weights of the golden files")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded_model(recipe: ModuleType, seed: int, config: Config, fold: bool) -> CocoER:
    """The release model with the stand-in weights of a seed, in eval mode."""
    with BlankWeights():
        model = build_cocoer(config, pretrained=False, folded=fold)
    published = {
        key: torch.from_numpy(value) for key, value in recipe.seeded_state_dict("release_manifest.json", seed).items()
    }
    blocks = config.model.attention.blocks
    fates = key_fates(published, model, blocks)
    if fates.missing or fates.misshapen or fates.unknown:
        raise ValueError(f"release_manifest.json does not describe the release model: {fates}")
    state = our_state(published, model, blocks)
    del published
    tower = recipe.seeded_state_dict("clip_manifest.json", seed)
    state |= {f"vocabulary.tower.{k.removeprefix('visual.')}": torch.from_numpy(v) for k, v in tower.items()}
    state["vocabulary.text_embeddings"] = torch.zeros_like(model.vocabulary.text_embeddings)  # not read in this layout
    model.load_state_dict(state, strict=True)
    return model.eval()


@torch.no_grad()
def run(
    model: CocoER, recipe: ModuleType, seed: int, batch: int, dtype: torch.dtype, device: str = "cpu"
) -> ModelOutput:
    """The model's answer for the seeded batch, in the given precision on the given device, without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    crops, body, head = recipe.seeded_batch(seed, batch)
    images = {level: torch.from_numpy(crops[level]).to(device, dtype) for level in LEVELS}
    boxes = torch.from_numpy(head).to(device), torch.from_numpy(body).to(device)
    output: ModelOutput = model.to(device, dtype)(images["head"], images["body"], images["context"], *boxes)
    return output


def as_golden(output: ModelOutput) -> dict[str, Tensor]:
    """A model's answer under the names of a golden file."""
    competition = output.competition
    if competition is None or output.vocabulary_logits is None or output.pseudo_label is None:
        raise ValueError("wanted the answer of a model in release mode, with its vocabulary branch and coordination")
    levels = {level: output.level_logits[:, m] for m, level in enumerate(LEVELS)}
    losses = {f"loss_{level}": competition.losses[:, m] for m, level in enumerate(LEVELS)}
    return {
        "pred": output.logits, "vi": output.vocabulary_logits, "workspace": output.fused_features,
        "distance": competition.distance, "pseudo": output.pseudo_label, "exclusion": competition.exclusion,
    } | levels | losses  # fmt: skip


def compare(ours: Mapping[str, Tensor], golden: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Output -> largest absolute error; infinite where the shapes differ or a number is not finite."""
    errors = {}
    for name in OUTPUTS:
        got, wanted = ours[name].double().cpu().numpy(), golden[name].astype(np.float64)
        fits = got.shape == wanted.shape and np.isfinite(got).all() and np.isfinite(wanted).all()
        errors[name] = float(np.abs(got - wanted).max(initial=0.0)) if fits else float("inf")
    return errors


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 = parity, 1 = an output is off, 2 = wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, metavar="FILE", help="release_golden_*.npz")
    parser.add_argument(
        "--parity-dir", type=Path, help="folder with seeded_weights.py and the manifests; default: golden's"
    )
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], default="float32", help="precision of the whole model"
    )
    parser.add_argument(
        "--unfolded", action="store_true", help="keep FFN1's first Linear as published (170 M parameters more)"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N")
    args = parser.parse_args(argv)
    try:
        golden = read_golden(args.golden)
        recipe = load_recipe(args.parity_dir or default_parity_dir(args.golden))
        config = load_config(ROOT / "configs/emotic_release.yaml")
        coordination = replace(config.model.coordination, step=float(golden["inside_lr"]))
        config = replace(config, model=replace(config.model, coordination=coordination))
        model = seeded_model(recipe, int(golden["seed"]), config, fold=not args.unfolded)
    except (ValueError, OSError) as err:
        print(f"check_parity: {err}", file=sys.stderr)
        return 2
    output = run(model, recipe, int(golden["seed"]), int(golden["batch"]), getattr(torch, args.dtype), args.device)
    errors = compare(as_golden(output), golden)
    for name, error in errors.items():
        print(f"{name:13} {error:.2e}{'' if error <= LIMIT else f'   above {LIMIT:.0e}'}")
    return 0 if all(error <= LIMIT for error in errors.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
