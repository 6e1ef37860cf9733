# The store that all processes of the cluster share: an encrypted bucket.

resource "aws_kms_key" "store" {
  description             = "Store of the Weft cluster ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = local.tags
}

resource "aws_s3_bucket" "store" {
  bucket_prefix = "${local.full_name}-"
  force_destroy = var.force_destroy
  tags          = local.tags
}

resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    # One data key serves many objects: a shuffle writes thousands.
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.store.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "store" {
  bucket = aws_s3_bucket.store.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket = aws_s3_bucket.store.id

  # Uploads of outputs stay open until their job ends, so they are kept for longer than a job may take.
  rule {
    id     = "abandoned-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 14
    }
  }
}

resource "aws_s3_bucket_policy" "store" {
  bucket = aws_s3_bucket.store.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.store.arn, "${aws_s3_bucket.store.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  # A bucket takes one change of its access at a time.
  depends_on = [aws_s3_bucket_public_access_block.store]
}

locals {
  executor_role_line = var.scoped_executors ? ["executor_role = \"${local.executor_role_arn}\""] : []

  # `[store]` and `[store.NAME]` of the settings of controllers and nodes.
  store_settings = join("\n", concat(
    [
      "[store]",
      "url = \"s3://${aws_s3_bucket.store.bucket}/store\"",
      "region = \"${local.region}\"",
    ],
    local.executor_role_line,
    flatten([for name, store in var.data_stores : [
      "",
      "[store.${name}]",
      "url = \"s3://${store.bucket}/${store.prefix}\"",
      "region = \"${coalesce(store.region, local.region)}\"",
      local.executor_role_line,
    ]]),
  ))
}
