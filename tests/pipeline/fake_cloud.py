"""Ray's autoscaler with its fake cloud: the machines it starts and ends are raylets on this one, below its head.

`ray.cluster_utils.AutoscalingCluster` is not used: it ends every Ray process it sees, and wants a file the wheel lacks.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}
_NOTHING_TO_DO = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
                  "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
                  "rsync_filter")  # fmt: skip


def autoscaling_arguments(
    folder: Path, *, gcs_address: str, machines: Mapping[str, Mapping[str, float]], idle_s: float
) -> list[str]:
    """Arguments for a head without CPUs that starts `machines` (name: resources), one of each, when work wants them."""
    types: dict[str, Any] = {
        name: {"resources": dict(resources), "node_config": {}, "min_workers": 0, "max_workers": 1}
        for name, resources in machines.items()
    }
    types["ray.head.default"] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "fake",
        "max_workers": len(machines),
        "provider": {
            "type": "external",  # by its own name it wants a file that the wheel lacks
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": gcs_address,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": types,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_s / 60,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in _NOTHING_TO_DO},
    }
    path = folder / "autoscaling.json"
    path.write_text(json.dumps(config))
    return [f"--autoscaling-config={path}"]
