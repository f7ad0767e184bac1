"""Settings of a training run; those left at none are the preset's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import ConfigDict, Field, field_validator

from etl.config import JobConfig
from etl.dataset import Manifest
from etl.errors import InputError
from etl.warehouse import Warehouse
from model.augment import CropStyle
from model.bundle import champion
from model.deepspeed_settings import OURS, deepspeed_settings
from model.engines import EngineName
from model.hard_negatives import HardConfig
from model.hosts import Hosts, read_hostfile
from model.precision import Chosen, Precision
from model.presets import PRESETS, Preset, preset
from model.pretrained import Pretrained
from model.reader import ReaderConfig
from model.tracking import require_no_credentials

log = logging.getLogger(__name__)

PRESET_SETTINGS = ("epochs", "batch", "crops", "lr", "tau", "layers_from")
"""Settings whose default is the preset's."""


class TrainConfig(JobConfig):
    """Settings of `labeller train`."""

    model_config = ConfigDict(hide_input_in_errors=True)  # an address with a password in it is refused
    sections: ClassVar[tuple[str, ...]] = ("warehouse", "train")

    preset: Literal["published", "hybrid", "hybrid-both", "bag", "tiny"] = "hybrid"
    """Encoder and its training settings, see model/presets.py."""

    init_from: str = ""
    """Directory of a Hugging Face BERT, or of a bundle, to start from, or champion: the bundle that labels, if there is one.
    Encoder and weights are its, the preset's the settings: published for a BERT, its own for a bundle. The dataset is to be
    made with its tokenizer (`labeller dataset --tokenizer-from`)."""

    dim: Annotated[int, Field(ge=1)] | None = None
    """Width of the vectors; a preset without a bag gets a linear head where its layers have another width."""

    engine: EngineName = "deepspeed"
    """deepspeed, or torch, under torchrun: for laptops, on one machine."""

    ranks: Annotated[int, Field(ge=0)] = 0
    """Training processes on this machine; 0: one for each GPU, on the CPU two (one with engine torch). Hosts have theirs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPUs where there are some, with a hostfile those of the hosts."""

    precision: Precision = "auto"
    """Of matrix products: bf16 on GPUs and CPUs with AMX, fp32 elsewhere; fp16 (GPUs only) has a loss scale."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the pairs (may be a fraction)."""

    batch: Annotated[int, Field(ge=1)] | None = None
    """Pairs of each rank in a step."""

    crops: Annotated[float, Field(ge=0)] | None = None
    """Parts of titles that are queries of their own, per pair."""

    crop_style: CropStyle = "mix"
    """span takes neighbouring words, subset any, mix half of each."""

    crop_tokens: Annotated[int, Field(ge=1)] = 5
    """Most words of a crop."""

    lr: Annotated[float, Field(gt=0)] | None = None
    """Adam's learning rate for the table."""

    layers_from: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the steps that the bag trains alone before the Transformer joins (hybrid)."""

    tau: Annotated[float, Field(gt=0)] | None = None
    """Temperature of the loss."""

    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the steps in which the learning rate rises."""

    query_word_dropout: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of pairs whose title loses the query's words, so that titles without their term are learnt."""

    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tokens (words, WordPieces) of every text that a step leaves out."""

    feature_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each word's hashed letter n-grams that a step leaves out."""

    average_from: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the steps after which the weights are averaged, where layers join late not before; the bundle gets the mean.
    1: the last weights."""

    distil_from: str = ""
    """Bundle, by its directory, whose similarities this one learns too (it has the dataset's tokenizer); empty: none."""

    distil_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of that beside the loss of the clicks."""

    learn_tau: bool = False
    """Learn the temperature from there on, within [.01, 1]."""

    multi_positives: bool = False
    """Rows of one query or one item are each other's positives; else they are only no negatives."""

    matryoshka: tuple[int, ...] = ()
    """Dimensions that vectors may be cut to, ascending, each trained beside the whole; encoding may then ask for one."""

    hard_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a batch's pairs that bring a hard negative that `labeller mine` has found; 0: none."""

    hard_from: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the steps after which they come: a new encoder has the easy ones to learn first."""

    masks: bool = True
    """Other rows of a query or an item, and pairs known to be clicked, are no negatives; --no-masks is for comparison."""

    margin: Annotated[float, Field(ge=-1, le=2)] | None = None
    """A negative whose cosine exceeds the positive's by more than this is taken for a false one (none: never)."""

    cache_texts: Annotated[int, Field(ge=0)] = 0
    """Texts that are encoded at once, for a batch larger than the memory (GradCache, at a third more time); 0: all."""

    activation_checkpointing: bool = False
    """Keep of each layer only what goes in, and compute it again in the backward pass."""

    logq: Annotated[float, Field(ge=0)] = 0.0
    """Correction for frequent queries and items among the negatives; 1 is the full one."""

    weight_power: Annotated[float, Field(ge=0)] = 0.0
    """A pair counts its click weight to this power; 0: all count the same."""

    shuffle_rows: Annotated[int, Field(ge=1)] = 1_000_000
    """Pairs that are shuffled together."""

    read_ahead: Annotated[int, Field(ge=1)] = 4
    """Row groups that each rank reads before it needs them."""

    reader_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """How long a rank waits for a row group before it fails, seconds."""

    seed: Annotated[int, Field(ge=0)] = 1
    """Of the initial weights, the order and the crops."""

    log_every: Annotated[int, Field(ge=1)] = 20
    """Steps between two lines of progress."""

    save_every: Annotated[int, Field(ge=0)] = 500
    """Steps between two checkpoints, which are kept until the training is over; 0: none."""

    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """How many of them are kept, the newest; each takes three times the parameters."""

    resume: bool = True
    """Go on from the newest whole checkpoint of the same day; --no-resume starts afresh and removes it."""

    mlflow_tracking_uri: str = ""
    """MLflow server that gets the figures too; empty: that of MLFLOW_TRACKING_URI, if it is set."""

    deepspeed_config: str = ""
    """JSON file with DeepSpeed's settings instead of ours (model/deepspeed.json)."""

    hostfile: str = ""
    """DeepSpeed hostfile, to train on several machines that share the paths of warehouse, code and environment."""

    master_addr: str = ""
    """With a hostfile: address of its first host for the others; empty: the first of that host's own."""

    master_port: Annotated[int, Field(ge=1, le=65_535)] = 29_500
    """With a hostfile: free port of its first host, another for each training that runs there at once."""

    ssh_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """With a hostfile: port of the hosts' sshd; none: as ssh's configuration says."""

    node_rank: Annotated[int, Field(ge=0)] | None = None
    """With a hostfile: this machine's place in it, from 0, where something else (a Kubernetes Job) starts the command on
    each machine; none: this command starts the others, by ssh."""

    interface: str = ""
    """With a hostfile: network interface of the collectives (gloo, NCCL); empty: each host's way to the first host."""

    timeout_minutes: Annotated[float, Field(gt=0)] = 10.0
    """How long a rank waits for the others before it fails."""

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _without_credentials(cls, uri: str) -> str:
        require_no_credentials(uri)
        return uri

    @property
    def writes(self) -> bool:
        """Of several machines that are started alike, the first holds the day for all."""
        return not self.node_rank

    def deepspeed_settings(self, precision: Chosen = "fp32") -> dict[str, Any]:
        """See :func:`model.deepspeed_settings.deepspeed_settings`."""
        path = Path(self.deepspeed_config) if self.deepspeed_config else OURS
        return deepspeed_settings(path, cache_texts=self.cache_texts, precision=precision)

    @property
    def dataset(self) -> Path:
        return Warehouse.of(self).dataset(self.ds)

    def where(self) -> tuple[Literal["cpu", "cuda"], int]:
        """Device and number of ranks on this machine, which is asked where nothing is configured."""
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        on_cpu = 1 if self.engine == "torch" else 2
        return device, self.ranks or (torch.cuda.device_count() if device == "cuda" else on_cpu)

    def with_start(self, spec: Mapping[str, Any], tokenizer: Path) -> Self:
        """These settings with the champion's directory where ``init_from`` is champion, or empty where it cannot be.

        Before the first promotion, and after a change of tokenizer, text or preset, training starts from random weights,
        which is said: a refusal would leave the shop with the champion that does not fit.

        Args:
            spec: The dataset's tokenizer's.
            tokenizer: Where that tokenizer lies.

        Raises:
            InputError: the champion's alias points nowhere.
        """
        if self.init_from != "champion":
            return self
        live, afresh = champion(Warehouse.of(self)), self.model_copy(update={"init_from": ""})
        if live is None:
            log.info("init_from is champion, and there is none yet: training starts from random weights")
            return afresh
        found = self.model_copy(update={"init_from": str(live)})
        try:
            found.preset_for(spec, tokenizer)
        except InputError as error:
            log.warning("init_from is champion, but training starts from random weights: %s", error)
            return afresh
        return found

    def pretrained(self) -> Pretrained | None:
        """What training starts from, if not from random weights.

        Raises:
            InputError: the directory cannot be used.
        """
        return Pretrained.read(Path(self.init_from).expanduser()) if self.init_from else None

    def hosts(self) -> Hosts | None:
        """The machines of the hostfile; None: this one alone.

        Raises:
            InputError: the hostfile cannot be used, or ``ranks``, ``engine`` or ``node_rank`` does not go with it.
        """
        if not self.hostfile:
            if self.node_rank is not None:
                raise InputError(
                    f"node_rank is {self.node_rank}, but there is no hostfile to have a place in: give --hostfile"
                )
            return None
        if self.engine == "torch":
            raise InputError(
                "hostfile is for --engine deepspeed, whose launcher starts other machines; leave one of them out"
            )
        if self.ranks:
            raise InputError(f"ranks is {self.ranks}, but the hostfile says how many ranks run where: leave --ranks out")
        file = Path(self.hostfile).expanduser().resolve()
        network = {name: getattr(self, name) for name in ("master_addr", "master_port", "ssh_port", "interface")}
        hosts = Hosts(file=file, slots=read_hostfile(file), **network)
        if self.node_rank is not None:
            hosts.require_place(self.node_rank)
        return hosts

    def chosen_preset(self, manifest: Manifest) -> Preset:
        """The preset for the dataset, with what was configured in place of its own.

        Raises:
            InputError: it does not fit the dataset, or ``init_from`` does not fit either.
        """
        return self.preset_for(manifest.spec, self.dataset)

    def preset_for(self, spec: Mapping[str, Any], tokenizer: Path) -> Preset:
        """As :meth:`chosen_preset`, for a dataset of which only the tokenizer is known: its spec, and where it lies."""
        longest = max(spec["max_query_tokens"], spec["max_title_tokens"])
        start = self.pretrained()
        if start is None or start.config.bag:
            found = preset(self.preset, rows=spec["rows"], tokens=spec["kind"], positions=longest)
        else:
            found = replace(PRESETS[self.preset], encoder=start.config)
        encoder = replace(found.encoder, dim=self.dim or found.encoder.dim, matryoshka=self.matryoshka)
        found = replace(found, encoder=encoder)
        if start is not None:
            start.require_fit(found.encoder, tokenizer, longest)
            # Layers that are trained already must not rest: without them the vectors would be others.
            found = replace(found, layers_from=0.0)
        if not found.encoder.bag:
            if self.layers_from:
                raise InputError(f"layers_from is {self.layers_from}, but this encoder has no bag to train alone before")
            found = replace(found, layers_from=0.0)
        return found.with_settings(**{name: getattr(self, name) for name in PRESET_SETTINGS})

    def reader(self, chosen: Preset) -> ReaderConfig:
        return ReaderConfig(
            batch=chosen.batch,
            crops=chosen.crops,
            crop_style=self.crop_style,
            crop_tokens=self.crop_tokens,
            query_word_dropout=self.query_word_dropout,
            word_dropout=self.word_dropout,
            feature_dropout=self.feature_dropout,
            weight_power=self.weight_power,
            hard=HardConfig(share=self.hard_share, start=self.hard_from),
            shuffle_rows=self.shuffle_rows,
            seed=self.seed,
            read_ahead=self.read_ahead,
            reader_timeout_s=self.reader_timeout_s,
        )
