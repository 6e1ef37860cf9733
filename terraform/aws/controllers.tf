# Controllers, on demand. Address and disk of each outlive its machine.

locals {
  # Numbers of the controllers, with their zones.
  members = { for number in range(1, var.controllers + 1) : tostring(number) => element(local.zones, number - 1) }
  peers   = { for number, interface in aws_network_interface.controller : number => "${interface.private_ip}:${local.link_port}" }

  controller_settings = { for number, interface in aws_network_interface.controller : number => templatefile("${path.module}/files/controller.toml.tftpl", {
    name   = var.name
    member = number
    listen = "${interface.private_ip}:${local.api_port}"
    peers  = local.peers
    store  = local.store_settings
  }) }

  # Settings of `controller.py`.
  tend_settings = { for number, interface in aws_network_interface.controller : number => jsonencode({
    api          = "http://${interface.private_ip}:${local.api_port}"
    cluster      = var.name
    region       = local.region
    parameters   = local.parameters
    namespace    = local.metric_namespace
    metric       = local.metric_name
    node_role_id = aws_iam_role.nodes.unique_id
    groups       = local.scaled_groups
  }) }
}

resource "aws_network_interface" "controller" {
  for_each = local.members

  subnet_id       = local.subnet_of_zone[each.value][0]
  description     = "Controller ${each.key} of the Weft cluster ${var.name}"
  security_groups = [aws_security_group.controllers.id]
  tags            = merge(local.tags, { Name = "${local.full_name}-controller-${each.key}" })

  lifecycle {
    precondition {
      condition     = length(local.zones) >= 3
      error_message = "The subnets of `subnet_ids` must be in three zones or more."
    }
  }
}

resource "aws_ebs_volume" "controller" {
  for_each = local.members

  availability_zone = each.value
  type              = "gp3"
  size              = var.controller_volume_gib
  encrypted         = true
  final_snapshot    = !var.force_destroy
  tags              = merge(local.tags, { Name = "${local.full_name}-controller-${each.key}" })
}

resource "aws_instance" "controller" {
  for_each = local.members

  ami                  = local.ami_id
  instance_type        = var.controller_instance_type
  iam_instance_profile = aws_iam_instance_profile.controllers.name
  user_data_base64 = base64gzip(templatefile("${path.module}/files/controller.sh.tftpl", {
    weft_url    = var.weft.url
    weft_sha256 = var.weft.sha256
    region      = local.region
    member      = each.key
    volume_id   = aws_ebs_volume.controller[each.key].id
    settings    = local.controller_settings[each.key]
    tend        = local.tend_settings[each.key]
    script      = file("${path.module}/files/controller.py")
  }))
  tags = merge(local.tags, { Name = "${local.full_name}-controller-${each.key}" })

  primary_network_interface {
    network_interface_id = aws_network_interface.controller[each.key].id
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
  }

  maintenance_options {
    auto_recovery = "default"
  }

  # A newer image or other settings take effect when an operator replaces the controllers, one by one, and never by
  # an apply that stops all of them at once.
  lifecycle {
    ignore_changes = [ami, user_data_base64]
  }

  depends_on = [aws_iam_role_policy.controllers]
}

resource "aws_volume_attachment" "controller" {
  for_each = local.members

  device_name                    = "/dev/sdf"
  instance_id                    = aws_instance.controller[each.key].id
  volume_id                      = aws_ebs_volume.controller[each.key].id
  stop_instance_before_detaching = true
}
