output "bucket" {
  value       = aws_s3_bucket.runs.bucket
  description = "For run.path: s3://BUCKET/runs/NAME."
}

output "worker_role_arn" {
  value       = aws_iam_role.worker.arn
  description = "For the annotation of the service account in infra/kuberay/common.yaml."
}
