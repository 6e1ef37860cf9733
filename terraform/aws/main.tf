# A cluster of Weft on EC2: controllers on demand over three zones, and groups of nodes that scale from 0.

data "aws_region" "here" {}

data "aws_partition" "here" {}

data "aws_caller_identity" "here" {}

data "aws_subnet" "of" {
  # By position: the ids may be those of subnets that the same apply makes.
  count = length(var.subnet_ids)

  id = var.subnet_ids[count.index]

  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.vpc_id
      error_message = "Subnet `${self.id}` is not in the VPC `${var.vpc_id}`."
    }
  }
}

data "aws_ssm_parameter" "amazon_linux" {
  count = var.ami_id == null ? 1 : 0

  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

locals {
  full_name = "weft-${var.name}"
  tags      = merge(var.tags, { "weft-cluster" = var.name })

  region    = data.aws_region.here.region
  partition = data.aws_partition.here.partition
  account   = data.aws_caller_identity.here.account_id

  # `insecure_value` is the value of a parameter that is no secret, as an image is not.
  ami_id = var.ami_id != null ? var.ami_id : one(data.aws_ssm_parameter.amazon_linux[*].insecure_value)

  # A subnet of each zone, in the order of the zones.
  subnet_of_zone = { for subnet in data.aws_subnet.of : subnet.availability_zone => subnet.id... }
  zones          = sort(keys(local.subnet_of_zone))

  api_port  = 7070
  link_port = 7071

  # Secrets lie under this prefix of the Parameter Store. Machines make and read them; Terraform sees only the names.
  parameters     = "/weft/${var.name}"
  parameters_arn = "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter${local.parameters}"
}
