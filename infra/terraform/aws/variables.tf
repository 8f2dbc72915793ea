variable "region" {
  type        = string
  description = "Where bucket and machines are; in one region, or traffic between them is paid for."
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
  description = "The EKS cluster that the node groups join."
}

variable "node_role_arn" {
  type        = string
  description = "The role of the machines themselves: EKS worker, CNI and registry policies, no right to data."
}

variable "subnet_ids" {
  type        = list(string)
  description = "Private subnets, one in each zone that spot machines may come from."
}

variable "oidc_provider_arn" {
  type        = string
  description = "The cluster's OpenID Connect provider, by which a pod's service account becomes a role."
}

variable "oidc_issuer" {
  type        = string
  description = "Its issuer without https://."
}

variable "decode_machines" {
  type        = list(string)
  default     = ["c6i.4xlarge", "c6a.4xlarge", "c5.4xlarge", "m6i.4xlarge"]
  description = "Machine types of 16 CPUs; several, so that one market's drought does not stop a run."
}

variable "gpu_machines" {
  type        = list(string)
  default     = ["g5.4xlarge", "g6.4xlarge"]
  description = "Machine types of 16 CPUs and one GPU."
}

variable "max_decode_nodes" {
  type    = number
  default = 50
}

variable "max_gpu_nodes" {
  type    = number
  default = 8
}

variable "keep_parts_days" {
  type        = number
  default     = 7
  description = "After so many days unfinished uploads are thrown away."
}
