"""A price table: machines to rent, requests, storage; and what a run costs on each. No price is ours."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidcls_batch.errors import ConfigError
from vidcls_batch.preflight.estimate import Needs
from vidcls_batch.preflight.rates import ClipCost, Fleet, fleet_rate


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Section):
    """One kind of machine."""

    name: str
    per_hour: float = Field(gt=0)
    vcpus: float = Field(gt=0)
    gpus: float = Field(0, ge=0)
    speed: float = Field(1.0, gt=0, description="Speed of a vCPU against a core of the machine that was measured.")
    infer_ms: float | None = Field(
        None, gt=0, description="Milliseconds of one of its GPUs per clip, all members; as `vidcls plan` says there."
    )


class Prices(_Section):
    """What a provider charges."""

    currency: str = "USD"
    source: str = Field(description="Where the prices are from and when.")
    machines: tuple[Machine, ...] = Field(min_length=1)
    get_per_1000: float = Field(0.0, ge=0)
    put_per_1000: float = Field(0.0, ge=0, description="PUT and LIST requests.")
    storage_gb_month: float = Field(0.0, ge=0)
    download_gb: float = Field(0.0, ge=0, description="Reading from the store; 0 within one region.")


class MachineCost(BaseModel):
    """A whole run on one machine of a kind; n machines take an n-th of the time at the same price."""

    name: str
    hours: float | None  # None: not known, see `note`
    cost: float | None
    limit: str = ""
    note: str = ""


class RunCost(BaseModel):
    """What a run costs; requests, transfer and storage are the same on all machines."""

    currency: str
    source: str
    machines: list[MachineCost]
    requests: float
    transfer: float
    storage_month: float


def load_prices(path: str | Path) -> Prices:
    """Read a price table. Raises ConfigError that names each wrong key."""
    try:
        return Prices.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the price table {path}: {error}. An example is in configs/prices/.") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError(f"{path} is not a price table:\n" + "\n".join(f"  - {line}" for line in lines)) from error


def run_cost(prices: Prices, *, cost: ClipCost, needs: Needs, num_clips: int) -> RunCost:
    """Price the run on each machine of the table."""
    return RunCost(
        currency=prices.currency,
        source=prices.source,
        machines=[_machine_cost(m, cost=cost, num_clips=num_clips) for m in prices.machines],
        requests=(
            needs.get_requests * prices.get_per_1000 + (needs.put_requests + needs.list_requests) * prices.put_per_1000
        )
        / 1000,
        transfer=needs.download_bytes / 1e9 * prices.download_gb,
        storage_month=needs.output_bytes / 1e9 * prices.storage_gb_month,
    )


def _machine_cost(machine: Machine, *, cost: ClipCost, num_clips: int) -> MachineCost:
    if machine.gpus and machine.infer_ms is None and not cost.on_gpu:
        note = "inference was timed on a CPU: run vidcls plan on such a machine, or give its infer_ms"
        return MachineCost(name=machine.name, hours=None, cost=None, note=note)
    if not machine.gpus and cost.on_gpu:
        note = "inference was timed on a GPU and this machine has none"
        return MachineCost(name=machine.name, hours=None, cost=None, note=note)
    measured_here = ClipCost(
        fetch_s=cost.fetch_s,
        decode_s=cost.decode_s / machine.speed,
        infer_s=_infer_s(machine, cost),
        on_gpu=machine.gpus > 0,
        fetches_at_once=cost.fetches_at_once,
    )
    rate = fleet_rate(measured_here, Fleet(cores=machine.vcpus, gpus=machine.gpus))
    hours = rate.hours(num_clips)
    return MachineCost(name=machine.name, hours=hours, cost=hours * machine.per_hour, limit=rate.limit)


def _infer_s(machine: Machine, cost: ClipCost) -> float:
    if machine.gpus:
        return cost.infer_s if machine.infer_ms is None else machine.infer_ms / 1000
    return cost.infer_s / machine.speed
