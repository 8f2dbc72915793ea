"""What a run is told: one YAML file, read once, frozen, handed on as values."""

from vidcls_batch.config.ensemble import CascadeConfig, ClipRule, EnsembleConfig, TableRule
from vidcls_batch.config.inputs import (
    DecodeConfig,
    LabelSetConfig,
    ManifestColumns,
    ManifestConfig,
    OutputConfig,
    RunConfig,
    ray_address,
)
from vidcls_batch.config.loading import config_json_schema, load_config, parse_config, resolved, with_overrides
from vidcls_batch.config.members import MemberConfig, SamplingConfig, check_templates
from vidcls_batch.config.resources import GroupConfig, HostMemory, ResourcesConfig, check_groups
from vidcls_batch.config.whole import Config

__all__ = [
    "CascadeConfig",
    "ClipRule",
    "Config",
    "DecodeConfig",
    "EnsembleConfig",
    "GroupConfig",
    "HostMemory",
    "LabelSetConfig",
    "ManifestColumns",
    "ManifestConfig",
    "MemberConfig",
    "OutputConfig",
    "ResourcesConfig",
    "RunConfig",
    "SamplingConfig",
    "TableRule",
    "check_groups",
    "check_templates",
    "config_json_schema",
    "load_config",
    "parse_config",
    "ray_address",
    "resolved",
    "with_overrides",
]
