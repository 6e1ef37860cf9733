# Groups of nodes: spot and on demand, from 0 to their cap.

resource "aws_launch_template" "nodes" {
  for_each = var.node_groups

  name                   = "${local.full_name}-${each.key}"
  description            = "Nodes of the group ${each.key} of the Weft cluster ${var.name}"
  image_id               = local.ami_id
  update_default_version = true
  # A node that a client has drained powers off, and the group replaces it.
  instance_initiated_shutdown_behavior = "terminate"
  vpc_security_group_ids               = [aws_security_group.nodes.id]
  user_data = base64gzip(templatefile("${path.module}/files/node.sh.tftpl", {
    weft_url      = var.weft.url
    weft_sha256   = var.weft.sha256
    region        = local.region
    parameters    = local.parameters
    group         = "${local.full_name}-${each.key}"
    hook          = local.drain_hook
    drain_seconds = var.drain_seconds
    settings = templatefile("${path.module}/files/node.toml.tftpl", {
      name          = var.name
      slots         = each.value.slots
      drain_seconds = var.drain_seconds
      controllers   = local.peers
      store         = local.store_settings
    })
    script = file("${path.module}/files/node.py")
  }))
  tags = local.tags

  iam_instance_profile {
    arn = aws_iam_instance_profile.nodes.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = var.root_device_name

    ebs {
      encrypted             = "true"
      volume_type           = "gp3"
      volume_size           = each.value.volume_gib
      delete_on_termination = "true"
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = "${local.full_name}-${each.key}" })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = local.tags
  }
}

resource "aws_autoscaling_group" "nodes" {
  for_each = var.node_groups

  name                = "${local.full_name}-${each.key}"
  vpc_zone_identifier = var.subnet_ids
  min_size            = each.value.min_nodes
  max_size            = each.value.max_nodes

  # What would let a group exceed `max_size` for a while, or end nodes that work: replacing spot nodes ahead of their
  # notice, evening out zones, and launching before terminating.
  capacity_rebalance  = false
  suspended_processes = ["AZRebalance"]

  # Certificates are valid for a year, so nodes do not get that old.
  max_instance_lifetime = 30 * 24 * 3600

  # Terraform does not wait for nodes: without work there are none.
  wait_for_capacity_timeout = "0"

  mixed_instances_policy {
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.nodes[each.key].id
        version            = aws_launch_template.nodes[each.key].latest_version
      }

      dynamic "override" {
        for_each = each.value.instance_types
        content {
          instance_type = override.value
        }
      }
    }

    instances_distribution {
      on_demand_base_capacity                  = each.value.on_demand_base
      on_demand_percentage_above_base_capacity = each.value.on_demand_percent
      on_demand_allocation_strategy            = "prioritized"
      spot_allocation_strategy                 = "price-capacity-optimized"
    }
  }

  instance_maintenance_policy {
    min_healthy_percentage = 90
    max_healthy_percentage = 100
  }

  initial_lifecycle_hook {
    name                 = local.drain_hook
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = var.drain_seconds + 120
    default_result       = "CONTINUE"
  }

  dynamic "tag" {
    for_each = local.tags
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  # Scaling decides how many there are.
  lifecycle {
    ignore_changes = [desired_capacity]
  }

  depends_on = [aws_iam_role_policy.nodes, aws_iam_role_policy.executors]
}
