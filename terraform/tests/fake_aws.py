"""A stand-in for the provider hashicorp/aws: it has the schema in `aws.schema`, plans, and changes nothing.

Terraform finds it by TF_REATTACH_PROVIDERS, as it finds a provider under a debugger, so nothing is installed. It has
no call that applies: a plan is all that can be had of it.
"""

import json
import os
import pathlib
from concurrent import futures

import grpc
import msgpack

HERE = pathlib.Path(__file__).resolve().parent
ADDRESS = "registry.terraform.io/hashicorp/aws"
# The unknown value, in the encoding of Terraform's values.
UNKNOWN = msgpack.ExtType(0, b"\0")

protos, services = grpc.protos_and_services("provider.proto")
Schema = protos.Schema

# What data sources answer. An answer may depend on the configuration.
ZONES = {"subnet-a": "eu-central-1a", "subnet-b": "eu-central-1b", "subnet-c": "eu-central-1c", "subnet-d": "eu-central-1a"}
ANSWERS = {
    "aws_region": lambda config: {"region": "eu-central-1", "name": "eu-central-1", "id": "eu-central-1"},
    "aws_partition": lambda config: {"partition": "aws", "dns_suffix": "amazonaws.com", "id": "aws"},
    "aws_caller_identity": lambda config: {"account_id": "123456789012", "id": "123456789012"},
    "aws_subnet": lambda config: {
        "availability_zone": ZONES[config["id"]],
        "vpc_id": "vpc-other" if config["id"] == "subnet-d" else "vpc-1",
    },
    "aws_ssm_parameter": lambda config: {"type": "String", "insecure_value": "ami-1", "value": "ami-1", "id": config["name"]},
}


# The schema.


def read_schemas(text):
    """Schemas by kind and type, from the text of `aws.schema`."""
    schemas, open_blocks = {"resource": {}, "data": {}}, []
    for line in text.splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        if depth == 0:
            kind, name = words
            schema = schemas[kind][name] = Schema()
            open_blocks = [schema.block]
            continue
        block = open_blocks[depth - 1]
        del open_blocks[depth:]
        if words[0] == "block":
            open_blocks.append(add_block(block, *words[1:]))
        else:
            add_attribute(block, *words)
    return schemas


def add_attribute(block, name, type_name, *flags):
    collection, _, element = type_name.rstrip(")").partition("(")
    encoded = json.dumps([collection, element] if element else collection).encode()
    block.attributes.add(name=name, type=encoded, **dict.fromkeys(flags, True))


def add_block(block, name, nesting, bounds):
    least, most = bounds.split("..")
    mode = Schema.NestedBlock.NestingMode.Value(nesting.upper())
    nested = block.block_types.add(type_name=name, nesting=mode, min_items=int(least), max_items=int(most or 0))
    return nested.block


def provider_schema():
    schema = Schema()
    for name in ("region", "profile"):
        add_attribute(schema.block, name, "string", "optional")
    return schema


# Values.


def decode(value):
    return msgpack.unpackb(value.msgpack, ext_hook=lambda code, data: UNKNOWN, strict_map_key=False)


def encode(value):
    return protos.DynamicValue(msgpack=msgpack.packb(value))


def with_computed(block, value, decide):
    """Fills what the provider decides."""
    planned = dict(value)
    for attribute in block.attributes:
        if attribute.computed and planned[attribute.name] is None:
            planned[attribute.name] = decide(attribute, value)
    for nested in block.block_types:
        members = planned[nested.type_name]
        if isinstance(members, list):
            planned[nested.type_name] = [with_computed(nested.block, member, decide) for member in members]
    return planned


def unknown(attribute, value):
    """As of the real provider: it is known after the apply."""
    return UNKNOWN


def foretold(attribute, value):
    """A value as AWS might choose it, so that all that depends on it can be seen in the plan."""
    kind = json.loads(attribute.type)
    if kind == "string":
        label = value.get("name") or value.get("bucket_prefix") or value.get("description") or "some"
        number = "".join(digit for digit in str(label) if digit.isdigit())
        return f"10.0.0.1{number}" if attribute.name == "private_ip" else f"{attribute.name}-of-{label.replace(' ', '-')}"
    if isinstance(kind, list):
        return {} if kind[0] == "map" else []
    return 1 if kind == "number" else False


class Provider(services.ProviderServicer):
    """Answers Terraform. `decide`: what becomes of attributes that the provider computes."""

    def __init__(self, decide):
        self.decide = decide
        self.schemas = read_schemas((HERE / "aws.schema").read_text())

    def GetSchema(self, request, context):
        return protos.GetProviderSchema.Response(
            provider=provider_schema(),
            resource_schemas=self.schemas["resource"],
            data_source_schemas=self.schemas["data"],
        )

    def PrepareProviderConfig(self, request, context):
        return protos.PrepareProviderConfig.Response(prepared_config=request.config)

    def ValidateResourceTypeConfig(self, request, context):
        return protos.ValidateResourceTypeConfig.Response()

    def ValidateDataSourceConfig(self, request, context):
        return protos.ValidateDataSourceConfig.Response()

    def Configure(self, request, context):
        return protos.Configure.Response()

    def PlanResourceChange(self, request, context):
        proposed = decode(request.proposed_new_state)
        if proposed is None:
            return protos.PlanResourceChange.Response(planned_state=request.proposed_new_state)
        block = self.schemas["resource"][request.type_name].block
        return protos.PlanResourceChange.Response(planned_state=encode(with_computed(block, proposed, self.decide)))

    def ReadDataSource(self, request, context):
        config = decode(request.config)
        state = {**config, **ANSWERS[request.type_name](config)}
        return protos.ReadDataSource.Response(state=encode(state))

    def Stop(self, request, context):
        return protos.Stop.Response()


def serve(decide=unknown):
    """Starts the provider in this process. Gives the server, and the value of TF_REATTACH_PROVIDERS."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    services.add_ProviderServicer_to_server(Provider(decide), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    address = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
    attached = {"Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True, "Addr": address}
    return server, json.dumps({ADDRESS: attached})
