variable "project" {
  type        = string
  description = "The project's id."
}

variable "region" {
  type        = string
  description = "Where bucket and machines are; in one region, or traffic between them is paid for."
}

variable "zones" {
  type        = list(string)
  description = "Zones of the region that machines may come from; several, so that one zone's drought does not stop a run."
}

variable "bucket" {
  type        = string
  description = "Name of the bucket for run folders; made here."
}

variable "source_buckets" {
  type        = list(string)
  default     = []
  description = "Buckets that hold videos, manifests and checkpoints; read only."
}

variable "cluster_name" {
  type        = string
  description = "The GKE cluster that the node pools join; with Workload Identity."
}

variable "node_service_account" {
  type        = string
  description = "Email of the machines' own account: roles/container.defaultNodeServiceAccount, no right to data."
}

variable "may_retry" {
  type        = bool
  default     = false
  description = "Whether `vidcls retry` may rewrite units: on Cloud Storage, to replace an object is to delete it."
}

variable "decode_machines" {
  type        = list(string)
  default     = ["n2-standard-16", "n2d-standard-16", "c3-standard-22"]
  description = "Machine types with 16 CPUs or more, a pool for each; several, as one may have no spot machines."
}

variable "gpu_machines" {
  type        = map(string)
  default     = { "g2-standard-16" = "nvidia-l4", "g2-standard-32" = "nvidia-l4" }
  description = "Machine type with one GPU to the GPU's name, a pool for each."
}

variable "max_decode_nodes" {
  type        = number
  default     = 50
  description = "Of each machine type, in all zones together."
}

variable "max_gpu_nodes" {
  type        = number
  default     = 8
  description = "Of each machine type, in all zones together."
}

variable "keep_parts_days" {
  type        = number
  default     = 7
  description = "After so many days unfinished uploads are thrown away."
}
