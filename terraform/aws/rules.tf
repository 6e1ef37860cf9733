# Who may connect to whom. Nobody connects to a node.

resource "aws_security_group" "controllers" {
  name        = "${local.full_name}-controllers"
  description = "Controllers of the Weft cluster ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${local.full_name}-controllers" })
}

resource "aws_security_group" "nodes" {
  name        = "${local.full_name}-nodes"
  description = "Nodes of the Weft cluster ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${local.full_name}-nodes" })
}

resource "aws_vpc_security_group_ingress_rule" "api_from_networks" {
  for_each = var.client_cidr_blocks

  security_group_id = aws_security_group.controllers.id
  description       = "API"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = local.api_port
  to_port           = local.api_port
  tags              = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "api_from_groups" {
  # By position: the ids may be those of groups that the same apply makes.
  count = length(var.client_security_group_ids)

  security_group_id            = aws_security_group.controllers.id
  description                  = "API"
  referenced_security_group_id = var.client_security_group_ids[count.index]
  ip_protocol                  = "tcp"
  from_port                    = local.api_port
  to_port                      = local.api_port
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "link" {
  for_each = {
    controllers = aws_security_group.controllers.id
    nodes       = aws_security_group.nodes.id
  }

  security_group_id            = aws_security_group.controllers.id
  description                  = "Links of ${each.key}, mutual TLS"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.link_port
  to_port                      = local.link_port
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "link" {
  for_each = {
    controllers = aws_security_group.controllers.id
    nodes       = aws_security_group.nodes.id
  }

  security_group_id            = each.value
  description                  = "Links to controllers, mutual TLS"
  referenced_security_group_id = aws_security_group.controllers.id
  ip_protocol                  = "tcp"
  from_port                    = local.link_port
  to_port                      = local.link_port
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = {
    controllers = aws_security_group.controllers.id
    nodes       = aws_security_group.nodes.id
  }

  security_group_id = each.value
  description       = "APIs of AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = local.tags
}
