# Labels and taints are those that infra/kuberay asks for. A pool has one machine type here: a pool for each.
resource "google_container_node_pool" "head" {
  name               = "vidcls-head"
  cluster            = var.cluster_name
  location           = var.region
  node_locations     = var.zones
  initial_node_count = 0
  autoscaling {
    total_min_node_count = 0
    total_max_node_count = 2
  }
  node_config {
    machine_type    = "n2-standard-8"
    spot            = false
    disk_size_gb    = 200
    disk_type       = "pd-balanced"
    service_account = var.node_service_account
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = { "vidcls/capacity" = "on-demand" }
    workload_metadata_config {
      mode = "GKE_METADATA" # pods use their service account, never the machine's
    }
    shielded_instance_config {
      enable_secure_boot = true
    }
  }
  lifecycle {
    ignore_changes = [initial_node_count]
  }
}

resource "google_container_node_pool" "decode" {
  for_each           = toset(var.decode_machines)
  name               = "vidcls-decode-${each.value}"
  cluster            = var.cluster_name
  location           = var.region
  node_locations     = var.zones
  initial_node_count = 0
  autoscaling {
    total_min_node_count = 0
    total_max_node_count = var.max_decode_nodes
    location_policy      = "ANY" # the zone that has spot machines, not all alike
  }
  node_config {
    machine_type    = each.value
    spot            = true
    disk_size_gb    = 200
    disk_type       = "pd-balanced"
    service_account = var.node_service_account
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = { "vidcls/capacity" = "spot", "vidcls/pool" = "decode" }
    taint {
      key    = "vidcls/spot"
      value  = "true"
      effect = "NO_SCHEDULE"
    }
    workload_metadata_config {
      mode = "GKE_METADATA"
    }
    shielded_instance_config {
      enable_secure_boot = true
    }
  }
  lifecycle {
    ignore_changes = [initial_node_count]
  }
}

resource "google_container_node_pool" "gpu" {
  for_each           = var.gpu_machines
  name               = "vidcls-gpu-${each.key}"
  cluster            = var.cluster_name
  location           = var.region
  node_locations     = var.zones
  initial_node_count = 0
  autoscaling {
    total_min_node_count = 0
    total_max_node_count = var.max_gpu_nodes
    location_policy      = "ANY"
  }
  node_config {
    machine_type    = each.key
    spot            = true
    disk_size_gb    = 200
    disk_type       = "pd-balanced"
    service_account = var.node_service_account
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = { "vidcls/capacity" = "spot", "vidcls/pool" = "gpu" }
    guest_accelerator {
      type  = each.value
      count = 1
      gpu_driver_installation_config {
        gpu_driver_version = "DEFAULT"
      }
    }
    taint {
      key    = "vidcls/spot"
      value  = "true"
      effect = "NO_SCHEDULE"
    }
    taint {
      key    = "nvidia.com/gpu"
      value  = "present"
      effect = "NO_SCHEDULE"
    }
    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }
  lifecycle {
    ignore_changes = [initial_node_count]
  }
}
