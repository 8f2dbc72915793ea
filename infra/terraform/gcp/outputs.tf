output "bucket" {
  value       = google_storage_bucket.runs.name
  description = "For run.path: gs://BUCKET/runs/NAME."
}

output "worker_service_account" {
  value       = google_service_account.worker.email
  description = "For the annotation iam.gke.io/gcp-service-account of the service account in infra/kuberay/common.yaml."
}
