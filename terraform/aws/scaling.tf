# Scaling by the length of the queue. The leader publishes, for each group, how many nodes are missing: those that the
# work needs, less those that the group has or is about to have. Negative: so many are too many.

locals {
  metric_namespace = "Weft"
  metric_name      = "NodesMissing"
  drain_hook       = "drain"

  # In the order in which work fills them.
  scaled_groups = [for name in sort(keys(var.node_groups)) : {
    group = name
    name  = "${local.full_name}-${name}"
    slots = var.node_groups[name].slots
    min   = var.node_groups[name].min_nodes
    max   = var.node_groups[name].max_nodes
  }]

  # So many nodes are added when that many are missing, or more: never more than are missing.
  growth = [1, 2, 4, 8, 16, 32, 64, 128, 256]
}

resource "aws_autoscaling_policy" "grow" {
  for_each = var.node_groups

  name                      = "grow"
  autoscaling_group_name    = aws_autoscaling_group.nodes[each.key].name
  policy_type               = "StepScaling"
  adjustment_type           = "ChangeInCapacity"
  metric_aggregation_type   = "Minimum"
  estimated_instance_warmup = 120

  # Bounds count from the threshold of the alarm, which is 1.
  dynamic "step_adjustment" {
    for_each = local.growth
    content {
      scaling_adjustment          = step_adjustment.value
      metric_interval_lower_bound = step_adjustment.value - 1
      metric_interval_upper_bound = try(local.growth[step_adjustment.key + 1] - 1, null)
    }
  }
}

# Any minute in which nodes were missing throughout.
resource "aws_cloudwatch_metric_alarm" "grow" {
  for_each = var.node_groups

  alarm_name          = "${local.full_name}-${each.key}-grow"
  alarm_description   = "Work waits for nodes of the group ${each.key} of the Weft cluster ${var.name}"
  namespace           = local.metric_namespace
  metric_name         = local.metric_name
  dimensions          = { Cluster = var.name, Group = each.key }
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  # Without a leader nothing is known, and nothing changes.
  treat_missing_data = "notBreaching"
  alarm_actions      = [aws_autoscaling_policy.grow[each.key].arn]
  tags               = local.tags
}

resource "aws_autoscaling_policy" "shrink" {
  for_each = var.node_groups

  name                      = "shrink"
  autoscaling_group_name    = aws_autoscaling_group.nodes[each.key].name
  policy_type               = "StepScaling"
  adjustment_type           = "ChangeInCapacity"
  metric_aggregation_type   = "Maximum"
  estimated_instance_warmup = 120

  # Half of those that are too many, or less, at a time. Bounds count from the threshold of the alarm, which is -1.
  step_adjustment {
    scaling_adjustment          = -1
    metric_interval_lower_bound = "-3"
    metric_interval_upper_bound = "0"
  }
  step_adjustment {
    scaling_adjustment          = -2
    metric_interval_lower_bound = "-7"
    metric_interval_upper_bound = "-3"
  }
  step_adjustment {
    scaling_adjustment          = -4
    metric_interval_lower_bound = "-15"
    metric_interval_upper_bound = "-7"
  }
  step_adjustment {
    scaling_adjustment          = -8
    metric_interval_upper_bound = "-15"
  }
}

# Only when a node was too many in every sample of all these minutes.
resource "aws_cloudwatch_metric_alarm" "shrink" {
  for_each = var.node_groups

  alarm_name          = "${local.full_name}-${each.key}-shrink"
  alarm_description   = "The group ${each.key} of the Weft cluster ${var.name} has nodes too many"
  namespace           = local.metric_namespace
  metric_name         = local.metric_name
  dimensions          = { Cluster = var.name, Group = each.key }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = var.scale_in_minutes
  datapoints_to_alarm = var.scale_in_minutes
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = -1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.shrink[each.key].arn]
  tags                = local.tags
}
