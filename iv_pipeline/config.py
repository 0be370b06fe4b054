"""`pipeline.yaml` as validated models: the only place that knows defaults.

The environment says where things are (`IV_DATA_ROOT`, `IV_DELIVERY`, `IV_CONFIG`); the file says what to do
with them. A delivery may bring a ``delivery.yaml`` of its own, whose entries replace those of the section
``delivery``: what its paths mean is a fact about the delivery, not about the pipeline.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from upath import UPath

from iv_pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ScalerName = Literal["standard", "minmax", "robust"]
AlgorithmName = Literal[
    "kmeans", "minibatchkmeans", "gaussianmixture", "agglomerative", "leiden", "hdbscan", "dbscan"
]

RepresentationName = Literal[
    "pca",
    "whitened",
    "normalized",
    "umap",
    "whitened_umap",
    "normalized_umap",
    "fusion",
    "whitened_fusion",
    "normalized_fusion",
]

SCALERS: tuple[ScalerName, ...] = get_args(ScalerName)
ALGORITHMS: tuple[AlgorithmName, ...] = get_args(AlgorithmName)
REPRESENTATIONS: tuple[RepresentationName, ...] = get_args(RepresentationName)
RACED: tuple[RepresentationName, ...] = tuple(
    r for r in REPRESENTATIONS if r not in ("whitened", "normalized")
)
"""Those that are tried by default."""
FUSIONS: frozenset[RepresentationName] = frozenset({"fusion", "whitened_fusion", "normalized_fusion"})
"""Of combinations alone."""


OWN_FILE = "delivery.yaml"
"""In which a delivery says how it is laid out, where that differs."""


GROUPS, IMAGES = "groups", "images"
"""Names of files of answers that are not about the clusters of a descriptor."""
ATTRIBUTES = "attributes"
"""Name of the CSV beside those of the descriptors that has the answers for every image."""
RESERVED = frozenset(
    {
        *("image_path", "cluster", "name", "is_outlier", "outlier_score", "reasons", "status"),
        *("batch", "duplicate_of", "model_version"),
    }
)
"""Columns that no attribute can have the name of."""

AUTO = "auto"
"""What is found out instead of configured."""


class Model(BaseModel):
    """Unknown keys are errors: a misspelt parameter must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _slashes(value: Any) -> Any:
    """A path as it is written on Windows, as it is read everywhere."""
    return value.replace("\\", "/") if isinstance(value, str) else value


File = Annotated[str, BeforeValidator(_slashes)]
"""Path relative to a delivery."""


class DeliveryConfig(Model):
    """How a delivery is laid out, relative to its folder."""

    paths: File = "images_paths.csv"
    """CSV with the path of every image; row i belongs to row i of every descriptor."""
    archive: File | None = "raw_data/veriwild.zip"
    """Zip archive or folder with the images; null if there are none."""
    labels: File | None = None
    """CSV with true labels; by default `labels.csv` in the delivery, or beside it if it labels its images."""
    identity: str | None = AUTO
    """Regular expression whose first group, searched for in a path (with `/`), is the vehicle's identity; null if
    paths carry none; `auto` to use folders if the descriptors tell that each holds one vehicle."""

    @model_validator(mode="after")
    def _identity_has_a_group(self) -> Self:
        if self.identity not in (None, AUTO):
            try:
                groups = re.compile(self.identity).groups
            except re.error as error:
                raise ValueError(f"identity is no regular expression: {error}") from error
            if groups < 1:
                raise ValueError(
                    "identity needs a group in parentheses around the vehicle's identity, or 'auto'"
                )
        return self


class Choice(Model):
    """What a person fixes for a descriptor; what is left out is chosen by the trials."""

    scaler: ScalerName | None = None
    representation: RepresentationName | None = None
    algorithm: AlgorithmName | None = None
    n_clusters: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _is_tried(self) -> Self:
        if self.representation not in (None, "pca") and self.scaler not in (None, "standard"):
            raise ValueError(
                f"representation {self.representation} is made with the scaler standard alone: leave scaler out"
            )
        return self


class DescriptorConfig(Model):
    """One descriptor: its file, and what is fixed for it."""

    file: File
    choose: Choice = Choice()


class CombinationConfig(Model):
    """Descriptors side by side, and what is fixed for them."""

    of: tuple[str, ...] = Field(min_length=2)
    choose: Choice = Choice()


class EngineConfig(Model):
    """Where batch work runs."""

    scheduler: str | None = None
    """Address of a Dask scheduler, such as `tcp://10.0.0.5:8786`; null for threads of this machine."""


class ScaledConfig(Model):
    """What the stage `scaled` stores."""

    store: Literal["vectors", "parameters"] = "vectors"
    """`parameters` stores the scalers alone; the table reads the same, computed from Init."""


class PCAConfig(Model):
    """How far the scaled vectors are reduced."""

    variance: float = Field(0.9, gt=0, le=1)
    """Share of the variance that the components keep together."""
    max_components: int = Field(200, ge=1)


class TrialsConfig(Model):
    """What is tried before the final clustering."""

    sample_size: int = Field(10_000, ge=100)
    """Rows that trials are fitted and scored on; the final fit takes all rows."""
    scalers: tuple[ScalerName, ...] = ("standard", "minmax")
    representations: tuple[RepresentationName, ...] = Field(RACED, min_length=1)
    """What clusters are looked for in: principal components with each scaler, and what is made of the standard
    ones: whitened, normalized to unit length, embedded by UMAP; combinations also by adding up the neighbor
    graphs of their descriptors (fusion). What never won (benchmarks/SELECTION.md) is not tried by default."""
    algorithms: tuple[AlgorithmName, ...] = Field(ALGORITHMS, min_length=1)
    n_clusters: tuple[int, ...] = (5, 10, 20, 30, 50)
    """Numbers of clusters that what won is tried with besides, as far as they lie below the naming budget."""
    naming_budget: int = Field(50, ge=2)
    """Clusters that a person is willing to look at and name; candidates are compared at this number."""


class EmbeddingConfig(Model):
    """What representations but the plain components are made of, and UMAP embeddings as a space to cluster in."""

    variance: float = Field(0.95, gt=0, le=1)
    """Share of the variance that the components of each descriptor keep: whitened and in graphs of their own, also
    small ones tell something; at most `pca.max_components` of them."""
    n_components: int = Field(10, ge=2)
    n_neighbors: int = Field(15, ge=2)
    min_dist: float = Field(0.0, ge=0)
    n_epochs: int | None = Field(None, ge=1)
    """Rounds of optimization; null for 100 up to 50,000 images and 50 beyond."""
    landmarks: int = Field(100_000, ge=100)
    """Images that are laid out; where there are more, the others are placed between them as new images are."""


class NeighborsConfig(Model):
    """The neighbor graph that HDBSCAN, DBSCAN, outliers and projection share."""

    n_neighbors: int = Field(50, ge=2)
    """Neighbors of each image, itself not counted."""
    min_samples: int = Field(10, ge=1)
    """Neighbors that make a point dense: core distances of HDBSCAN and DBSCAN."""


class ClusteredConfig(Model):
    """The stage `clustered`: labels on scaled vectors without PCA."""

    rows: int = Field(15_000, ge=100)


class OutliersConfig(Model):
    """When an image is called an outlier."""

    contamination: float = Field(0.01, gt=0, lt=0.5)
    """Expected share of outliers; the ensemble's highest scores are flagged up to this share."""
    unknown: float = Field(0.001, ge=0, lt=0.5)
    """Share of the images that lie so far out that a new image like them is called unknown and gets cluster −1."""
    labels: tuple[str, ...] = ("glare", "dark", "overexposed", "empty")
    """True labels, where there are any, of images that should be found; they judge the ranking."""


class ProjectionConfig(Model):
    """The maps."""

    n_neighbors: int = Field(15, ge=2)
    min_dist: float = Field(0.1, ge=0)
    n_epochs: int | None = Field(None, ge=1)
    """Rounds of optimization; null for 200 up to 50,000 images and 100 beyond."""


class ReviewConfig(Model):
    """Which questions people are asked about attributes."""

    questions: int = Field(25, ge=1)
    """In `Final/review.csv`, best first: as many as a person answers in one sitting. The more there are, the
    smaller the groups that are asked about."""


class InboxConfig(Model):
    """When a later delivery, a batch, counts as complete."""

    marker: str = Field("_SUCCESS", min_length=1)
    """Name of the file that says so at once."""
    settle_seconds: float = Field(60, ge=0)
    """Without a marker: for how long nothing in its folder may have changed."""
    look_seconds: int = Field(15, ge=1)
    """Between two looks of the sensor."""


class DriftConfig(Model):
    """From where on a batch counts as drifted; each also has to be more than chance explains."""

    psi: float = Field(0.25, gt=0)
    """Population stability index of the shares of the clusters, and of the distances to the fit."""
    refused: float = Field(0.02, ge=0, lt=1)
    """Share of the images that are like nothing in the fit."""


class RefitConfig(Model):
    """When a fit takes in what has come since, and when the new one takes the place of the old."""

    schedule: str = "0 3 * * 0"
    """Cron expression; Sundays at three by default."""
    timezone: str = "UTC"
    exclude: tuple[str, ...] = ()
    """Batches that are to take no part; one that has joined leaves with the next run of the pipeline."""
    score_loss: float = Field(0.02, ge=0)
    """What the leading score of a descriptor may lose against the old clusters on the same images; within two
    standard errors of the difference it may lose more."""
    kept_share: float = Field(0.8, ge=0, le=1)
    """Share of the images of the old fit that have to keep their cluster."""

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is no time zone, such as Europe/Moscow") from error
        return name


class RetentionConfig(Model):
    """What is kept of what was replaced; what a Final CSV refers to always is."""

    versions: int = Field(3, ge=0)
    """Versions besides the one in force that can be put back with all of their results."""
    contents: int = Field(1, ge=0)
    """Earlier contents of a batch, besides those that have joined the fit set."""


def _descriptor(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


def _combination(value: Any) -> Any:
    return {"of": value} if isinstance(value, list | tuple) else value


class PipelineConfig(Model):
    """The whole of `pipeline.yaml`."""

    delivery: DeliveryConfig = DeliveryConfig()
    descriptors: dict[str, Annotated[DescriptorConfig, BeforeValidator(_descriptor)]] = Field(min_length=1)
    """Name of each descriptor and its file, heaviest first: partitions run in this order."""
    combinations: dict[str, Annotated[CombinationConfig, BeforeValidator(_combination)]] = {}
    attributes: dict[str, tuple[str, ...] | None] = {"type": None, "view": None, "color": None}
    """What is to be known of every image, and the values that each may have; null for any value."""
    seed: int = 0
    engine: EngineConfig = EngineConfig()
    scaled: ScaledConfig = ScaledConfig()
    pca: PCAConfig = PCAConfig()
    trials: TrialsConfig = TrialsConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    neighbors: NeighborsConfig = NeighborsConfig()
    clustered: ClusteredConfig = ClusteredConfig()
    outliers: OutliersConfig = OutliersConfig()
    projection: ProjectionConfig = ProjectionConfig()
    review: ReviewConfig = ReviewConfig()
    inbox: InboxConfig = InboxConfig()
    drift: DriftConfig = DriftConfig()
    refit: RefitConfig = RefitConfig()
    retention: RetentionConfig = RetentionConfig()

    @model_validator(mode="after")
    def _combinations_name_descriptors(self) -> Self:
        for name in [*self.descriptors, *self.combinations]:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) or ".." in name:
                raise ValueError(
                    f"{name!r} cannot be a partition: use letters, digits, '.', '_', '+' and '-'"
                )
            if name in {GROUPS, IMAGES}:
                raise ValueError(
                    f"{name!r} cannot be a partition: Names/{name}.csv has answers of another kind"
                )
            if name == ATTRIBUTES:
                raise ValueError(f"{name!r} cannot be a partition: Final/{name}.csv is of all descriptors")
        for name, combination in self.combinations.items():
            if name in self.descriptors:
                raise ValueError(f"{name!r} is both a descriptor and a combination; rename one of them")
            unknown = [part for part in combination.of if part not in self.descriptors]
            if unknown:
                raise ValueError(
                    f"combination {name!r} names the unknown descriptor {unknown[0]!r}; "
                    f"known are {', '.join(self.descriptors)}"
                )
            if len(set(combination.of)) < len(combination.of):
                raise ValueError(f"combination {name!r} names a descriptor twice")
        return self

    @field_validator("attributes", mode="before")
    @classmethod
    def _values_are_text(cls, attributes: Any) -> Any:
        """YAML reads `no`, `on` and `2` as something else than the words that people write into CSVs."""
        if not isinstance(attributes, dict):
            return attributes
        for name, values in attributes.items():
            if isinstance(values, list | tuple) and not all(isinstance(value, str) for value in values):
                raise ValueError(f"the values of {name!r} are no text: put them in quotes")
        return attributes

    @field_validator("attributes")
    @classmethod
    def _attributes_can_be_columns(
        cls, attributes: dict[str, tuple[str, ...] | None]
    ) -> dict[str, tuple[str, ...] | None]:
        for name, values in attributes.items():
            if not re.fullmatch(r"[^\W\d]\w*", name) or name.endswith("_confidence") or name in RESERVED:
                raise ValueError(
                    f"{name!r} cannot be an attribute: use letters, digits and '_', no ending '_confidence', and "
                    f"none of {', '.join(sorted(RESERVED))}"
                )
            if values is not None and (len(values) < 2 or len(set(values)) < len(values) or "" in values):
                raise ValueError(f"attribute {name!r} needs two or more different values, or null for any")
        return attributes

    @model_validator(mode="after")
    def _choices_can_be_made(self) -> Self:
        for name, descriptor in self.descriptors.items():
            if descriptor.choose.representation in FUSIONS:
                raise ValueError(
                    f"descriptor {name!r} cannot be represented by {descriptor.choose.representation}: "
                    "there is nothing to fuse it with"
                )
        if FUSIONS.issuperset(self.trials.representations):
            raise ValueError("trials.representations needs one that a single descriptor can have")
        return self

    @property
    def partitions(self) -> list[str]:
        """Descriptors, then combinations: one partition each."""
        return [*self.descriptors, *self.combinations]

    def blocks(self, partition: str) -> tuple[str, ...]:
        """The descriptors that `partition` is made of: itself alone, or those that it combines.

        Raises
        ------
        ConfigError
            If `partition` is not configured.
        """
        if partition in self.descriptors:
            return (partition,)
        if partition in self.combinations:
            return self.combinations[partition].of
        raise ConfigError(
            f"there is no descriptor {partition!r}",
            where="descriptors",
            fix=f"choose one of {', '.join(self.partitions)}",
        )

    def choice(self, partition: str) -> Choice:
        """What is fixed for `partition`."""
        if partition in self.descriptors:
            return self.descriptors[partition].choose
        return self.combinations[partition].choose


@dataclass(frozen=True)
class Settings:
    """Where things are, and what to do with them."""

    data_root: UPath
    delivery: UPath
    config: PipelineConfig

    @property
    def inbox(self) -> UPath:
        """Where later deliveries are put, a folder each."""
        return self.data_root / "Inbox"

    @classmethod
    def from_environment(cls) -> Settings:
        """Read `IV_DATA_ROOT`, `IV_DELIVERY` and `IV_CONFIG`, and the file that the last one names.

        Raises
        ------
        ConfigError
            If the file is missing or wrong.
        """
        data_root = UPath(os.environ.get("IV_DATA_ROOT") or "data").absolute()
        given = os.environ.get("IV_DELIVERY")
        delivery = UPath(given).absolute() if given else data_root / "Intellivision_case"
        return cls(data_root, delivery, load_config(os.environ.get("IV_CONFIG") or "pipeline.yaml", delivery))


def load_config(path: str | Path, delivery: UPath | None = None) -> PipelineConfig:
    """Read and validate a configuration file.

    Parameters
    ----------
    path
        The YAML file.
    delivery
        Folder whose ``delivery.yaml``, if there is one, replaces entries of the section ``delivery``.

    Raises
    ------
    ConfigError
        If a file is missing, is no YAML, or has a wrong entry; the message names file and entry.
    """
    content = _read_yaml(UPath(path))
    try:
        config = PipelineConfig.model_validate(content)
    except ValidationError as error:
        raise _explain(error, str(path)) from None
    return (
        config if delivery is None else config.model_copy(update={"delivery": delivery_of(config, delivery)})
    )


def delivery_of(config: PipelineConfig, folder: UPath) -> DeliveryConfig:
    """How the delivery in `folder` is laid out: as all are, or as its own ``delivery.yaml`` says.

    Raises
    ------
    ConfigError
        If that file is no YAML, or has a wrong entry.
    """
    own = folder / OWN_FILE
    if not own.is_file():
        return config.delivery
    merged = {**config.delivery.model_dump(), **_read_yaml(own)}
    try:
        return DeliveryConfig.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, str(own)) from None


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that a mapping has twice: the first would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: UPath) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506  (a safe loader)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration at {path}", fix="set IV_CONFIG to the file, or run from its folder"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("is not in UTF-8", where=path, fix="save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise _explain_yaml(error, path) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror or error})", where=path, fix="make it readable"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError("holds no settings", where=path, fix="write a mapping, such as 'descriptors: ...'")
    return content


def _explain_yaml(error: yaml.YAMLError, path: UPath) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    place = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
    problem = getattr(error, "problem", None) or str(error)
    if "'\\t'" in problem:
        return ConfigError("is indented with a tab, which YAML does not allow", where=place, fix="use blanks")
    return ConfigError(f"is no YAML ({problem})", where=place, fix="correct it")


def _explain(error: ValidationError, path: str) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return ConfigError(
            "there is no such setting", where=f"{path}: {where}", fix="remove it, or correct its name"
        )
    if first["input"] is None:
        what = "there is nothing below it"
    elif first["type"] == "missing":
        what = "it is missing"
    elif first["type"] in ("dict_type", "model_type", "model_attributes_type"):
        what = f"it has {first['input']!r} where settings with names are expected"
    return ConfigError(what, where=f"{path}: {where}", fix="correct it")
