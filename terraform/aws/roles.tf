# What machines may do. Controllers and nodes have a role each, and executors one that nodes take for them.

locals {
  assume_by_ec2 = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  bucket_arn_prefix = "arn:${local.partition}:s3:::"

  executor_role_name = "${local.full_name}-executors"
  executor_role_arn  = "arn:${local.partition}:iam::${local.account}:role/${local.executor_role_name}"

  # What all need: the store, and the buckets that jobs may use.
  store_statements = concat(
    [
      {
        Sid      = "StoreObjects"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
        Resource = ["${aws_s3_bucket.store.arn}/store/*"]
      },
      {
        Sid       = "StoreList"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = [aws_s3_bucket.store.arn]
        Condition = { StringLike = { "s3:prefix" = ["store", "store/*"] } }
      },
      {
        Sid      = "StoreKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [aws_kms_key.store.arn]
      },
    ],
    local.data_statements,
  )

  # What executors do for themselves: databases of actors' state remove what they no longer need. They, and nodes, remove
  # nothing else.
  shard_statements = [{
    Sid      = "ShardRemovals"
    Effect   = "Allow"
    Action   = ["s3:DeleteObject"]
    Resource = ["${aws_s3_bucket.store.arn}/store/shards/*"]
  }]

  # What controllers and nodes need: the binary, too.
  machine_statements = concat(
    local.store_statements,
    startswith(var.weft.url, "s3://") ? [{
      Sid      = "Binary"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["${local.bucket_arn_prefix}${trimprefix(var.weft.url, "s3://")}"]
    }] : [],
  )

  # The buckets that jobs may use.
  data_statements = flatten([for name, store in var.data_stores : concat(
    [
      {
        Effect = "Allow"
        Action = concat(
          ["s3:GetObject"],
          store.write ? ["s3:PutObject", "s3:AbortMultipartUpload"] : [],
        )
        Resource = ["${local.bucket_arn_prefix}${store.bucket}/${store.prefix == "" ? "*" : "${store.prefix}/*"}"]
      },
      {
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = ["${local.bucket_arn_prefix}${store.bucket}"]
        Condition = { StringLike = { "s3:prefix" = store.prefix == "" ? ["*"] : [store.prefix, "${store.prefix}/*"] } }
      },
    ],
    store.kms_key_arn == null ? [] : [{
      Effect   = "Allow"
      Action   = concat(["kms:Decrypt"], store.write ? ["kms:GenerateDataKey"] : [])
      Resource = [store.kms_key_arn]
    }],
  )])

  # Buckets that jobs write to, with what of them.
  written_stores = [for name, store in var.data_stores : {
    arn     = "${local.bucket_arn_prefix}${store.bucket}"
    objects = "${local.bucket_arn_prefix}${store.bucket}/${store.prefix == "" ? "*" : "${store.prefix}/*"}"
  } if store.write]

  controller_statements = [
    {
      # Jobs that have ended are cleaned up.
      Sid      = "Removals"
      Effect   = "Allow"
      Action   = ["s3:DeleteObject"]
      Resource = concat(["${aws_s3_bucket.store.arn}/store/*"], local.written_stores[*].objects)
    },
    {
      # Uploads that nobody completes are looked for by the job's id. AWS cannot narrow this to a prefix.
      Sid      = "Uploads"
      Effect   = "Allow"
      Action   = ["s3:ListBucketMultipartUploads"]
      Resource = distinct(concat([aws_s3_bucket.store.arn], local.written_stores[*].arn))
    },
    {
      # The first controller that boots makes the authority and the token; none overwrites them.
      Sid      = "ClusterSecrets"
      Effect   = "Allow"
      Action   = ["ssm:GetParameter", "ssm:PutParameter"]
      Resource = ["${local.parameters_arn}/authority", "${local.parameters_arn}/token"]
    },
    {
      # The leader hands each node its certificate and key, and removes those of nodes that are gone.
      Sid      = "NodeCertificates"
      Effect   = "Allow"
      Action   = ["ssm:PutParameter", "ssm:AddTagsToResource", "ssm:DeleteParameter"]
      Resource = ["${local.parameters_arn}/nodes/*"]
    },
    {
      # Names and descriptions, no values. AWS cannot narrow these two to resources.
      Sid      = "Look"
      Effect   = "Allow"
      Action   = ["ssm:DescribeParameters", "autoscaling:DescribeAutoScalingGroups"]
      Resource = ["*"]
    },
    {
      Sid       = "Metrics"
      Effect    = "Allow"
      Action    = ["cloudwatch:PutMetricData"]
      Resource  = ["*"]
      Condition = { StringEquals = { "cloudwatch:namespace" = local.metric_namespace } }
    },
  ]

  node_statements = concat([
    {
      # A node reads the one parameter that is tagged with its own identity.
      Sid       = "OwnCertificate"
      Effect    = "Allow"
      Action    = ["ssm:GetParameter"]
      Resource  = ["${local.parameters_arn}/nodes/*"]
      Condition = { StringEquals = { "aws:ResourceTag/weft-reader" = "$${aws:userid}" } }
    },
    {
      # After it has drained.
      Sid      = "EndOfDrain"
      Effect   = "Allow"
      Action   = ["autoscaling:CompleteLifecycleAction"]
      Resource = [for group in local.scaled_groups : "arn:${local.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${group.name}"]
    },
    ],
    var.scoped_executors ? [{
      # Each session gets a policy that leaves of the role what the executor needs.
      Sid      = "Executors"
      Effect   = "Allow"
      Action   = ["sts:AssumeRole"]
      Resource = [local.executor_role_arn]
    }] : [],
  )
}

resource "aws_iam_role" "controllers" {
  name                 = "${local.full_name}-controllers"
  description          = "Controllers of the Weft cluster ${var.name}"
  assume_role_policy   = local.assume_by_ec2
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role" "nodes" {
  name                 = "${local.full_name}-nodes"
  description          = "Nodes of the Weft cluster ${var.name}"
  assume_role_policy   = local.assume_by_ec2
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role" "executors" {
  count = var.scoped_executors ? 1 : 0

  name        = local.executor_role_name
  description = "Executors of the Weft cluster ${var.name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = aws_iam_role.nodes.arn }
      Action    = "sts:AssumeRole"
    }]
  })
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "controllers" {
  name   = "weft"
  role   = aws_iam_role.controllers.id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat(local.machine_statements, local.controller_statements) })
}

resource "aws_iam_role_policy" "nodes" {
  name   = "weft"
  role   = aws_iam_role.nodes.id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat(local.machine_statements, local.shard_statements, local.node_statements) })
}

resource "aws_iam_role_policy" "executors" {
  count = var.scoped_executors ? 1 : 0

  name   = "weft"
  role   = aws_iam_role.executors[0].id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat(local.store_statements, local.shard_statements) })
}

resource "aws_iam_instance_profile" "controllers" {
  name = "${local.full_name}-controllers"
  role = aws_iam_role.controllers.name
  tags = local.tags
}

resource "aws_iam_instance_profile" "nodes" {
  name = "${local.full_name}-nodes"
  role = aws_iam_role.nodes.name
  tags = local.tags
}
