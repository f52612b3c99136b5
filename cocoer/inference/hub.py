"""Download and upload weights with the Hugging Face Hub: one safetensors file and a model card per repository, no code.

The functions of huggingface_hub do the work, not its mixin class: that would load the library whenever cocoer is imported, and
would write the configuration a second time, which the weights file holds already.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from cocoer.errors import CheckpointError
from cocoer.files import file_sha256, write_file
from cocoer.weights import places

if TYPE_CHECKING:
    from cocoer.data.detect import PeopleDetector
    from cocoer.inference.recognizer import Recognizer

WEIGHTS, CARD = "model.safetensors", "README.md"
_OFFLINE = "COCOER_OFFLINE"
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EEXIST}
"""What a folder answers in which nothing can be written."""

_UNFIT = """**Not for decisions about people.** A score says how alike an image is to images on which annotators chose that word;
it does not measure what a person feels. Not for hiring, workplaces, schools, insurance, credit, policing, borders, courts,
surveillance or diagnosis. Emotion recognition at work and in education is forbidden in the European Union."""


def _endpoint() -> str | None:
    """Where the Hub is, by the library's own variable, read now and not when the library was imported."""
    return os.environ.get("HF_ENDPOINT") or None


def download(
    name: str,
    revision: str | None = None,
    cache: str | Path | None = None,
    token: str | bool | None = None,
    local_only: bool = False,
) -> tuple[Path, str]:
    """The weights file of a repository on the Hub and the commit that it is of.

    name: `user/repository`. revision: a branch, tag or commit; None is the main branch as it is now. cache: a folder; None is
    `$COCOER_HOME/hub` where that is set, else the Hub's own. local_only: never use the network; so do HF_HUB_OFFLINE=1 and
    COCOER_OFFLINE=1. Raises CheckpointError that names what is wrong: no such repository or revision, another repository's
    files, no network.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    offline = local_only or os.environ.get(_OFFLINE, "") not in ("", "0")
    if cache is None and os.environ.get(places.HOME_VARIABLE):
        cache = places.home() / "hub"
    try:
        file = hf_hub_download(
            name,
            WEIGHTS,
            revision=revision,
            cache_dir=cache,
            token=token,
            local_files_only=offline,
            endpoint=_endpoint(),
        )
    except (HFValidationError, EntryNotFoundError, HfHubHTTPError, OSError) as err:
        if isinstance(err, OSError) and err.errno in _CLOSED and not isinstance(err, HfHubHTTPError):
            where = err.filename or cache or "the Hub's own cache"
            raise CheckpointError(f"{name}: {where} cannot be written ({err.strerror}); {places.ROOM}") from None
        raise CheckpointError(_why_not(err, name, revision, token)) from None
    path = Path(file)
    return path, path.parent.name  # .../snapshots/COMMIT/model.safetensors


def _why_not(err: Exception, name: str, revision: str | None, token: str | bool | None) -> str:
    """Why a repository's weights could not be downloaded, and the remedy."""
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    at = f"{name}" + (f" at {revision}" if revision else "")
    if isinstance(err, hub.HFValidationError):
        return f"{name!r}: wanted user/repository, or a folder that save_pretrained wrote: {err}"
    if isinstance(err, hub.LocalEntryNotFoundError):
        return (
            f"{at}: not in the local cache, and the Hub cannot be asked (offline, or no network); load it once with one"
        )
    if isinstance(err, hub.RevisionNotFoundError):
        return f"{name}: the Hub has no revision {revision!r} of it"
    if isinstance(err, hub.EntryNotFoundError):
        try:
            files = HfApi(_endpoint(), token=token).list_repo_files(name, revision=revision)
        except hub.HfHubHTTPError:
            files = []
        return (
            f"{at}: has no {WEIGHTS}; it has {', '.join(sorted(files)[:8]) or 'no files'}. Wanted a repository that"
            " push_to_hub of cocoer wrote; pickled weights are not opened"
        )
    if isinstance(err, hub.GatedRepoError):
        return f"{name}: gated; accept its terms on its page, then pass token= or run `hf auth login`"
    if isinstance(err, hub.RepositoryNotFoundError):
        return f"{name}: the Hub has no such repository, or it is private; then pass token= or run `hf auth login`"
    return f"{at}: cannot be fetched from the Hub: {' '.join(str(err).split())[:200]}"


def save(weights: Path, sha256: str, metadata: Mapping[str, Any], folder: str | Path) -> Path:
    """Write the weights file and a model card into a folder, as they stand on the Hub; returns the folder.

    sha256: of the weights as they were loaded. A card that is there already is kept. Raises CheckpointError where the weights
    have changed since, OutputError where the folder cannot be written.
    """
    if not weights.is_file() or file_sha256(weights) != sha256:
        raise CheckpointError(f"{weights}: is not the file any more that this recogniser was made from; load it again")
    folder = Path(folder)
    write_file(folder / WEIGHTS, lambda unfinished: shutil.copyfile(weights, unfinished))
    card = folder / CARD
    if not card.exists():
        write_file(card, lambda unfinished: unfinished.write_text(model_card(metadata), encoding="utf-8"))
    return folder


def push(
    weights: Path, sha256: str, metadata: Mapping[str, Any], name: str, private: bool | None, token: str | None,
    branch: str | None, message: str,
) -> str:  # fmt: skip
    """Make the repository where there is none and put weights and card into it; returns the address of the commit.

    Raises CheckpointError where the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(_endpoint(), token=token)
    try:
        with TemporaryDirectory() as folder:
            save(weights, sha256, metadata, folder)
            api.create_repo(name, private=private, exist_ok=True)
            if branch is not None:
                api.create_branch(name, branch=branch, exist_ok=True)
            done = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                revision=branch,
                commit_message=message,
                allow_patterns=[WEIGHTS, CARD],
            )
    except (HfHubHTTPError, HFValidationError, OSError, RuntimeError) as err:
        raise CheckpointError(
            f"{name}: the Hub did not take it: {' '.join(str(err).split())[:200]}; `hf auth login` or token= says who you are"
        ) from None
    return str(done.commit_url)


def model_card(metadata: Mapping[str, Any], results: Sequence[Mapping[str, Any]] = (), sections: str = "") -> str:
    """The card of a weights file: a YAML header that the Hub reads (data set, licence, metrics), then what it is not for.

    results: evaluations of these weights (`result.json`), whose headlines stand in the header beside the training's own.
    sections: Markdown about them, put before the last line.
    """
    config, metrics, note = metadata["config"], metadata.get("metrics", {}), str(metadata.get("note", ""))
    of_data = ("a synthetic split in the format of " if "synthetic" in note else "") + str(config["data"]["dataset"])
    numbers = {name: value for name, value in metrics.items() if name in ("mAP", "accuracy") and value is not None}
    header = _card_header(metadata, numbers, of_data, results)
    shown = "\n".join(f"- {name} {100 * float(value):.2f} % on {of_data}" for name, value in numbers.items())
    return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---

# CocoER, {of_data}

{note or "CocoER (Shen et al., CVPR 2025): emotions of the people in an image, from head, body and context."}

{_UNFIT}

```python
from cocoer import Recognizer

recognizer = Recognizer.from_pretrained("USER/REPOSITORY")
```

Mode `{config["model"]["mode"]}`, {len(metadata["classes"])} classes: {", ".join(metadata["classes"])}.

{shown}
{
        sections
        and f'''
{sections.strip()}
'''
    }
Trained weights are subject to the terms of the data they were trained on.
"""


def _card_header(
    metadata: Mapping[str, Any], numbers: Mapping[str, Any], of_data: str, results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The YAML header. numbers: the training's own, 0..1, by name. of_data: what they were measured on, in words."""
    dataset, synthetic = str(metadata["config"]["data"]["dataset"]), "synthetic" in str(metadata.get("note", ""))
    trained = [
        {"type": "mean_average_precision" if name == "mAP" else name, "value": round(float(value), 4), "name": name}
        for name, value in numbers.items()
    ]
    task = {"type": "image-classification", "name": "Emotion recognition of people in context"}
    split = str(metadata.get("metrics", {}).get("split", "unknown"))
    about_data = {"type": dataset, "name": of_data, "split": split}
    header: dict[str, Any] = {
        "library_name": "cocoer",
        "pipeline_tag": "image-classification",
        "tags": ["cocoer", "emotion-recognition", *(["synthetic"] if synthetic else [])],
        "license": "mit" if synthetic else "other",
    }
    if not synthetic:
        header |= {"license_name": "terms-of-the-data-set", "datasets": [dataset]}
    told: list[dict[str, Any]] = [{"task": dict(task), "dataset": about_data, "metrics": trained}] if trained else []
    told += [{"task": dict(task)} | _evaluated(result) for result in results]
    if told:
        header["metrics"] = list(dict.fromkeys(metric["type"] for one in told for metric in one["metrics"]))
        header["model-index"] = [{"name": "CocoER", "results": told}]
    return header


def _evaluated(result: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation as the Hub's model index has it: the data with their hash, the headline with its interval in its name."""
    data, metric, headline = result["data"], result["metric"], result["numbers"]["headline"]
    of = "a synthetic split in the format of " if result["synthetic"] else ""
    low, high = (round(float(headline[end]), 4) for end in ("low", "high"))
    dataset = {
        "type": data["dataset"],
        "name": f"{of}{data['dataset']}",
        "split": data["split"],
        "args": {"sha256": data["sha256"]},
    }
    kind = "mean_average_precision" if metric == "mAP" else metric
    name = f"{metric}, 95 % interval {low} to {high}"
    return {"dataset": dataset, "metrics": [{"type": kind, "value": round(float(headline["value"]), 4), "name": name}]}


class HubMethods:
    """What a recogniser can do with the Hub."""

    @classmethod
    def from_pretrained(
        cls: type[Any],
        name: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        overrides: Sequence[str] = (),
        detector: PeopleDetector | str | None = None,
        **hub: Any,
    ) -> Recognizer:
        """The recogniser of a repository on the Hugging Face Hub (`user/repository`), or of a folder by `save_pretrained`.

        revision: a branch, tag or commit; `about["revision"]` says which commit it was, for pinning it. hub: `cache`, `token`
        and `local_only` of `hub.download`. One safetensors file is read and nothing is executed.
        Raises CheckpointError for a repository without cocoer's weights, and as `from_checkpoint` does.
        """
        if Path(name).is_dir():
            here: Recognizer = cls.from_checkpoint(name, device, overrides, detector)
            return here
        path, commit = download(str(name), revision, **hub)
        try:
            made: Recognizer = cls.from_checkpoint(path, device, overrides, detector)
        except CheckpointError as err:
            raise CheckpointError(f"{name}: {err}") from None
        made._about |= {"weights": str(name), "revision": commit}
        return made

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the weights that this recogniser was made from, with a model card, into a folder; returns it.

        Raises TypeError for a recogniser that was not made from a weights file; CheckpointError, OutputError as `hub.save` does.
        """
        return save(*self._weights(), folder)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        message: str = "Weights of CocoER",
    ) -> str:
        """Put the weights that this recogniser was made from, with a model card, on the Hub; returns the commit's address.

        Raises TypeError as `save_pretrained` does, CheckpointError where the Hub refuses.
        """
        return push(*self._weights(), name, private, token, branch, message)

    def _weights(self: Any) -> tuple[Path, str, Mapping[str, Any]]:
        """The weights file behind this recogniser, its checksum and its metadata."""
        source = getattr(self, "_source", None)
        if source is None or source.path.suffix == ".onnx" or str(source.path).startswith("zero-shot"):
            raise TypeError(
                "wanted a recogniser made from a weights file (.safetensors), because the weights file is uploaded; load it with"
                " Recognizer.from_checkpoint"
            )
        from cocoer.model.checkpoint import find_weights, read_metadata

        file = find_weights(source.path)
        return file, self.about["sha256"], read_metadata(file)
