"""One YAML file per run, read into frozen dataclasses by `load_config`; every value is checked before anything is built.

A file may name another one under `base:`; it then states only what differs. Overrides are `a.b=c` with c in YAML.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cocoer import ideas
from cocoer.config_checks import check_together
from cocoer.config_file import read_settings
from cocoer.config_values import apply_override, explain
from cocoer.datasets import METRIC_OF, DatasetEntry, Metric, dataset_of, read_class_list, read_dataset, written_out
from cocoer.errors import CheckpointError, ConfigError, DatasetError
from cocoer.files import write_text
from cocoer.names import ClassNames
from cocoer.weights import places
from cocoer.yaml_file import parse_yaml

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

# Upper bounds: a config may come from an untrusted file, so its sizes are limited before anything is built from them.
BackboneName = Literal[
    "resnet18", "resnet50", "resnet101", "resnet152", "vgg16", "densenet161", "mobilenet_v3_small", "small", "timm"
]
WorkspaceName = Annotated[str, AfterValidator(partial(ideas.check_name, "workspace"))]
PseudoLabelName = Annotated[str, AfterValidator(partial(ideas.check_name, "pseudo_label"))]
FusionName = Annotated[str, AfterValidator(partial(ideas.check_name, "fusion"))]
LossName = Annotated[str, AfterValidator(partial(ideas.check_name, "loss"))]
Positive = Annotated[int, Field(ge=1, le=100_000_000)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Few = Annotated[int, Field(ge=1, le=64)]
Width = Annotated[int, Field(ge=1, le=16_384)]
Persons = Annotated[int, Field(ge=1, le=65_536)]
Threads = Annotated[int, Field(ge=0, le=1024)]
Seeds = Annotated[tuple[Count, ...], Field(max_length=1000)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
AboveZero = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """Output folder, length and seeds of a run."""

    dir: str = "outputs/run"  # everything of the run goes here; one folder below it per seed when there are several
    seed: Count = 0  # weights, order of persons and augmentation follow from it
    seeds: Seeds = ()  # several runs, one per seed, with mean and deviation at the end; empty = `seed` alone
    max_steps: Positive | None = None  # stop the recognition stage early, after this many optimizer steps
    checkpoint_every: Count = 0  # steps between training-state checkpoints inside an epoch; 0 = at epoch ends only
    keep_checkpoints: Positive = 2  # complete training states that stay on disk
    log_every: Positive = 10  # steps between lines on the terminal and in TensorBoard; the JSON log has every step
    threads: Threads = 0  # CPU threads of torch; 0 = as torch chooses


@dataclass(frozen=True, config=_STRICT)
class AugmentConfig:
    """Augmentation of a training person; image and both boxes change together."""

    flip: Fraction = 0.5  # chance of a left-right flip
    crop: Fraction = 0.0  # largest share of a side that a random crop may cut off; the person always stays inside
    jitter: Fraction = 0.4  # strength of brightness, contrast and saturation changes
    box_shift: Fraction = 0.0  # largest shift of a box side, in units of the box


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which persons, from where, in which size."""

    dataset: str = "emotic"  # a name in configs/datasets, the path of another such .yaml file, or `custom`
    classes: tuple[str, ...] | None = None  # custom: class names in the order of the outputs, or a file with one a line
    labels: Literal["multi", "single"] | None = None  # custom: several labels a person, or exactly one
    words: dict[str, str] = field(default_factory=dict)  # custom: class -> what prompts call it, if not its name
    aliases: dict[str, str] = field(default_factory=dict)  # custom: other spelling in an index -> class
    root: str = "data/emotic"  # folder to which the image paths of the index are relative
    index: str = "data/emotic/index"  # folder with train.jsonl, val.jsonl, test.jsonl
    train_split: str = "train"
    select_split: Literal["val", "test"] = "val"  # the split that chooses the best epoch; every result states it
    image_size: Annotated[int, Field(ge=16, le=1024)] = 224  # side of the square crops, pixels
    workers: Threads = 4  # loader processes
    allow_outside: bool = False  # read images that an index names outside `root` (.., absolute paths, links)
    cache: str | None = None  # folder for decoded crops; null = decode every time
    embeddings: str | None = None  # folder for CLIP's embeddings of the training persons; augmentation must be off
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, config=_STRICT)
class BackboneConfig:
    """The network of each level; one copy per level."""

    name: BackboneName = "resnet50"
    timm: str | None = None  # name: timm = this network of the timm library, for instance mobilenetv4_conv_small
    weights: str | None = "imagenet"  # "imagenet" = the torchvision file in checkpoints/, a path, or null = random
    widths: Widths = (16, 32, 64, 128)  # channels per stage, read by the backbone `small` alone
    frozen_norms: bool = False  # batch norms stay in eval in training (needed for exact equality over processes)


@dataclass(frozen=True, config=_STRICT)
class TokensConfig:
    """From a feature map to tokens (hierarchical feature extraction)."""

    patch: Few = 2  # paper: the map is zero-padded and cut into patch x patch blocks; release: 1
    size: Width = 1024  # d_h, channels of a token


@dataclass(frozen=True, config=_STRICT)
class AttentionConfig:
    """Cross-level attention T_{h,c}, T_{b,c}, T_{c,c}."""

    enabled: bool = True  # off = ablation without cross-level attention
    blocks: Few = 1  # paper: 1 per level; release: 3
    heads: Few = 3
    head_size: Width = 341  # 1024 is not divisible by 3: 3 x 341 = 1023, projected back to 1024
    feed_forward: Width = 2048


@dataclass(frozen=True, config=_STRICT)
class LevelHeadConfig:
    """Mapping and prediction layer of a level."""

    mapping: Literal["linear", "resnet50", "vit"] = "linear"  # paper Fig. 3
    feature_size: Width = 256  # d


@dataclass(frozen=True, config=_STRICT)
class VocabularyConfig:
    """Vocabulary-informed branch (V-I)."""

    enabled: bool = True  # off = ablation: no pseudo label, so no competition and no coordination either
    tower: str = "RN50"  # an open_clip architecture, or the path of an open_clip model config (.json)
    weights: str | None = "openai"  # "openai" = the file in checkpoints/, a path, or null = random
    prompt: str = "This photo shows {emotion} emotion."  # or "ensemble": the mean over several prompts
    view: Literal["context", "body", "levels"] = "context"  # the tower's input: whole image, body, or all three
    normalisation: Literal["clip", "imagenet"] = "clip"  # mean and std that the tower sees; the release uses ImageNet's
    layout: Literal["repeat", "modulate"] = "repeat"  # how the aligned embedding is laid out per emotion
    train_alignment: bool = True  # omega stays trainable in the recognition stage
    threshold: Fraction = 0.3  # pseudo label: sigmoid above it (multi-label)


@dataclass(frozen=True, config=_STRICT)
class CompetitionConfig:
    """Which level leaves first, and the direction delta (Algorithm 1)."""

    enabled: bool = True  # off = ablation: delta is 0, each level updates through its own prediction layer
    rule: Literal["paper", "agreement"] = (
        "paper"  # who leaves first: largest L_hier, or (ours) least like the others to CLIP
    )
    gate: bool = False  # agreement: the first to leave reaches the fusion weaker, as far as the levels disagree
    logit_scale: AboveZero = 20.0  # agreement: CLIP's readings times this before the softmax; 100 for OpenAI's towers
    gate_slope: NonNegative = 4.0  # how sharply the gate closes, per nat of disagreement
    gate_threshold: NonNegative = 1.0  # the disagreement, in nats, at which it is half closed
    pseudo_label: PseudoLabelName = "vocabulary"  # V-I's (paper), `fused` (a first pass), `agreement`, a plugin's
    vote: bool = False  # half of the answer comes from the two levels that did not leave first; not in training
    loss: Literal["training", "mean_bce"] = "training"  # L_hier: the training loss, or the mean unweighted BCE
    biases: bool = False  # the prediction layer's biases count as rows of G too
    negative_weight: NonNegative | None = None  # weight of negatives in L_hier against positives; null = class weights


@dataclass(frozen=True, config=_STRICT)
class CoordinationConfig:
    """How the direction updates the levels."""

    update: WorkspaceName = "one"  # one (all levels), two (excluded levels), none, release (published code), a plugin's
    step_rule: Literal["raw", "relative"] = "raw"  # raw: Algorithm 1; relative: to the norms of what moves
    step: NonNegative = 1.0


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The architecture; `mode` chooses between the paper and the published code where they differ."""

    mode: Literal["paper", "release"] = "paper"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    level_head: LevelHeadConfig = field(default_factory=LevelHeadConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    competition: CompetitionConfig = field(default_factory=CompetitionConfig)
    coordination: CoordinationConfig = field(default_factory=CoordinationConfig)
    fusion: FusionName = "ffn"  # FFN2 of the paper, or a plugin's
    initial: str | None = None  # weights to start training from; what does not fit begins anew, see docs/training.md
    two_stream: Literal["backbone", "clip"] | None = None  # baseline: body and scene; the scene by a backbone or CLIP
    single_level: Literal["head", "body", "context"] | None = None  # baseline: one level; vocabulary, attention off


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """L_emo = sum of beta_m L_m + alpha |delta|^2."""

    name: LossName = "paper"  # L_m of one person: the paper's (weighted cross-entropies), or a plugin's
    class_weights: Literal["dynamic", "static", "mean"] = "dynamic"  # multi-label only
    beta_head: NonNegative = 0.2
    beta_body: NonNegative = 0.2
    beta_context: NonNegative = 0.2
    beta_vocabulary: NonNegative = 0.2
    beta_fused: NonNegative = 0.2
    alpha: NonNegative = 0.1
    penalty: Literal["mean", "sum"] = "mean"  # |delta|^2 as the mean or the sum over its k x d entries


@dataclass(frozen=True, config=_STRICT)
class OptimConfig:
    """Optimizer, schedule and numerics of the recognition stage."""

    name: Literal["adam", "adamw"] = "adam"
    lr: AboveZero = 6e-5
    backbone_lr: NonNegative | None = None  # of the backbones; 0 = they stay as they are (frozen), null = as lr
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    weight_decay: NonNegative = 0.0005
    epochs: Positive = 9
    batch_size: Persons = 64  # persons over all processes, before accumulation; each process gets an equal share
    accumulate: Positive = 1  # batches per optimizer step
    decay_every: Positive = 3  # epochs between learning-rate drops
    decay_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    warmup_steps: Count = 0  # linear from 0 to lr
    grad_clip: AboveZero | None = None  # largest norm of the whole gradient
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # decay of the averaged weights that are evaluated; 0 = off
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True  # memory layout of images and weights that is fast for convolutions; not if very narrow
    compile: bool = False  # torch.compile the model; the first step takes minutes
    sync_batch_norm: bool = False  # batch statistics over all processes (GPU only)


@dataclass(frozen=True, config=_STRICT)
class VocabularyStageConfig:
    """First stage: omega learns to align image and text embeddings (cosine loss)."""

    epochs: Count = 3
    lr: AboveZero = 1e-4
    batch_size: Persons = 64


@dataclass(frozen=True, config=_STRICT)
class ThresholdsConfig:
    """From probabilities to labels (multi-label). Probabilities themselves are always written."""

    fused: Fraction = 0.26
    levels: Fraction = 0.6
    vocabulary: Fraction = 0.6


@dataclass(frozen=True, config=_STRICT)
class DetectorConfig:
    """insightface models that find faces and persons."""

    face: str = "buffalo_l"  # a pack in thirdparty/insightface/models, or the path of an .onnx file
    person: str = "scrfd_person_2.5g"  # a file there (without .onnx), or a path
    input_size: Annotated[int, Field(ge=32, le=4096)] = 640  # side of the square that the detectors see, pixels
    face_threshold: Fraction = 0.5
    person_threshold: Fraction = 0.5
    demo_anywhere: bool = False  # let the demonstration's detectors also look at images from outside the demo world
    faces_to_bodies: Literal["one_to_one", "published"] = "one_to_one"  # published: a face may serve several bodies


@dataclass(frozen=True, config=_STRICT)
class InferenceConfig:
    """What the recogniser adds to the model."""

    batch_size: Persons = 8  # persons per forward
    max_pixels: Annotated[int, Field(ge=1, le=170_000_000)] = 92_000_000  # larger images are refused undecoded
    backend: Literal["auto", "torch", "onnx"] = "auto"  # auto: on a CPU the ONNX twin beside the weights, if it fits
    # Gains: shorter forward passes of 1 and of 8 persons on a CPU, paper mode; docs/performance.md says where and how measured.
    fold: bool = True  # batch norms into convolutions, V-I's repeated input into one: 12 % or more, 2 to 10 %
    channels_last: bool = True  # images and weights laid out as convolutions like them: none, 11 to 14 %
    prepack: bool = True  # CPU: weights in oneDNN's order once instead of in every pass: 23 to 26 %, up to 6 %
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: over 40 % on CPUs with bf16 units; answers change a little
    compile: bool = False  # torch.compile in place of prepack, half a minute a size: none; in bf16 16 %, 5 to 10 %
    cuda_graph: bool | Literal["auto"] = "auto"  # GPU: record the pass; auto: up to 64 persons; 77 % for one
    calibrated: bool = False  # calibrate the fused probabilities with the maps in the weights (cocoer calibrate)
    channel_order: Literal["rgb", "bgr"] = "rgb"  # order in which the backbones see colours; the published code: bgr
    thresholds: ThresholdsConfig = field(default_factory=ThresholdsConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)


@dataclass(frozen=True, config=_STRICT)
class Config:
    """A whole run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    vocabulary_stage: VocabularyStageConfig = field(default_factory=VocabularyStageConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)

    @property
    def dataset(self) -> DatasetEntry:
        """The data set: a known one by its name, or one described by `data.classes` and the keys beside it."""
        return dataset_of(self.data)

    @property
    def classes(self) -> ClassNames:
        """The class names of the data set, in the order of the model's outputs."""
        return self.dataset.class_names

    @property
    def multi_label(self) -> bool:
        """Several emotions a person (as in EMOTIC), or exactly one (CAER-S)."""
        return self.dataset.multi_label

    @property
    def metric(self) -> Metric:
        """The headline: mAP for several labels a person, accuracy for one."""
        return METRIC_OF[self.dataset.labels]


def config_from_dict(tree: Mapping[str, Any], where: str = "config") -> Config:
    """A checked `Config` from nested mappings, as they come from YAML or a checkpoint.

    Raises ConfigError that lists every fault, one per line.
    """
    try:
        config = TypeAdapter(Config).validate_json(json.dumps(_with_dataset(tree)))
    except DatasetError as err:
        raise ConfigError(f"{where}: {err}") from None
    except (TypeError, ValueError, RecursionError) as err:
        if isinstance(err, ValidationError):
            lines = [explain(Config, dict(e)) for e in err.errors(include_url=False)]
            raise ConfigError(f"{where}: " + "\n".join(lines)) from None
        raise ConfigError(f"{where}: a value is of a type that a config cannot hold: {err}") from None
    check_together(config, where)
    return config


def _with_dataset(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree with a data set's file, or a file of class names, read into `data`: a resolved config needs neither."""
    data = tree.get("data")
    if not isinstance(data, Mapping):
        return tree
    name, classes = data.get("dataset"), data.get("classes")
    if isinstance(classes, str):
        data = {**data, "classes": read_class_list(Path(classes))}
    elif isinstance(name, str) and Path(name).suffix in (".yaml", ".yml"):
        data = {**data, **written_out(read_dataset(Path(name)))}
    return {**tree, "data": data}


def check_classes(metadata: Mapping[str, Any], classes: Sequence[str], where: str) -> None:
    """CheckpointError unless the stored class names are the given ones, in that order."""
    stored = metadata.get("classes", [])
    if list(stored) != list(classes):
        raise CheckpointError(
            f"{where}: made for {len(stored)} classes ({', '.join(stored)}), wanted {len(classes)} ({', '.join(classes)});"
            " use weights of the same data set, or set data.dataset to theirs"
        )


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML file (with its bases) and `a.b=c` overrides over it.

    path: also relative to what comes with cocoer: `configs/emotic.yaml` is found from any folder.
    Raises ConfigError for a missing file, bad YAML, and every unknown key, wrong type and bad range.
    """
    path = places.find(path) or Path(path)
    tree = read_settings(path)
    for text in overrides:
        tree = apply_override(Config, tree, text)
    return config_from_dict(tree, f"config {path}")


def change_config(config: Config, overrides: Sequence[str]) -> Config:
    """The config with `a.b=c` overrides over it. Raises ConfigError as `load_config` does."""
    tree = config_to_dict(config)
    for text in overrides:
        tree = apply_override(Config, tree, text)
    return config_from_dict(tree, "--set") if overrides else config


def config_to_dict(config: Config) -> dict[str, Any]:
    """Nested plain mappings that `config_from_dict` reads back to an equal config."""
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return tree


def is_resolved(path: str | Path) -> bool:
    """Whether a file is a config as `save_config` writes it: every section, and nothing else at the top."""
    try:
        tree = parse_yaml(path)
    except ConfigError:
        return False
    return isinstance(tree, dict) and tree.keys() == {field.name for field in dataclasses.fields(Config)}


def save_config(config: Config, path: str | Path) -> None:
    """Write the resolved config (every key, no base) as YAML, the whole file or nothing. Raises OutputError."""
    write_text(path, yaml.safe_dump(config_to_dict(config), sort_keys=False))
