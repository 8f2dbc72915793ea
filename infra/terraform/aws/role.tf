# What a pod may do: read sources, read and write run folders. Deleting is for three things only: _SUCCESS, which `vidcls retry`
# takes back while it rewrites units, and in plan/ the probe of conditional puts and what an interrupted planning has left.
# Predictions cannot be deleted, nothing else is reached.
data "aws_iam_policy_document" "worker" {
  dynamic "statement" {
    for_each = length(var.source_buckets) > 0 ? [1] : []
    content {
      sid       = "ReadSources"
      actions   = ["s3:GetObject"]
      resources = [for name in var.source_buckets : "arn:aws:s3:::${name}/*"]
    }
  }
  statement {
    sid       = "ListBuckets"
    actions   = ["s3:ListBucket"]
    resources = concat([aws_s3_bucket.runs.arn], [for name in var.source_buckets : "arn:aws:s3:::${name}"])
  }
  statement {
    sid       = "RunFolders"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = ["${aws_s3_bucket.runs.arn}/*"]
  }
  statement {
    sid       = "TakeBack"
    actions   = ["s3:DeleteObject"]
    resources = ["${aws_s3_bucket.runs.arn}/*/_SUCCESS", "${aws_s3_bucket.runs.arn}/*/plan/*"]
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [var.oidc_provider_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${var.oidc_issuer}:sub"
      values   = ["system:serviceaccount:vidcls:vidcls"]
    }
    condition {
      test     = "StringEquals"
      variable = "${var.oidc_issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "worker" {
  name                 = "vidcls-worker"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  max_session_duration = 43200
}

resource "aws_iam_role_policy" "worker" {
  name   = "vidcls-data"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}
