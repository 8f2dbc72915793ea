# What a pod may do: read sources, read run folders and add to them. To replace an object is to delete it here, so that run.json,
# the events and _SUCCESS need storage.objects.delete; predictions are left out of it unless var.may_retry. Nothing else is reached.
resource "google_service_account" "worker" {
  account_id   = "vidcls-worker"
  display_name = "Pods of vidcls-batch"
}

resource "google_service_account_iam_member" "pods" {
  service_account_id = google_service_account.worker.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[vidcls/vidcls]"
}

resource "google_project_iam_custom_role" "read" {
  role_id     = "vidclsRead"
  title       = "vidcls-batch: read objects"
  permissions = ["storage.objects.get", "storage.objects.list"]
}

resource "google_project_iam_custom_role" "add" {
  role_id     = "vidclsAdd"
  title       = "vidcls-batch: read and add objects"
  permissions = ["storage.objects.get", "storage.objects.list", "storage.objects.create"]
}

resource "google_project_iam_custom_role" "replace" {
  role_id     = "vidclsReplace"
  title       = "vidcls-batch: replace objects"
  permissions = ["storage.objects.delete"]
}

resource "google_storage_bucket_iam_member" "sources" {
  for_each = toset(var.source_buckets)
  bucket   = each.value
  role     = google_project_iam_custom_role.read.id
  member   = google_service_account.worker.member
}

resource "google_storage_bucket_iam_member" "run_folders" {
  bucket = google_storage_bucket.runs.name
  role   = google_project_iam_custom_role.add.id
  member = google_service_account.worker.member
}

resource "google_storage_bucket_iam_member" "replace_all_but_predictions" {
  bucket = google_storage_bucket.runs.name
  role   = google_project_iam_custom_role.replace.id
  member = google_service_account.worker.member
  condition {
    title      = "All but predictions"
    expression = "resource.name.extract(\"/predictions/{unit}\") == \"\""
  }
}

resource "google_storage_bucket_iam_member" "replace_predictions" {
  count  = var.may_retry ? 1 : 0
  bucket = google_storage_bucket.runs.name
  role   = google_project_iam_custom_role.replace.id
  member = google_service_account.worker.member
}
