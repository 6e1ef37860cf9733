#!/usr/bin/env python3
"""A stand-in for the AWS CLI: parameters and groups in a file, STUB_AWS, and a log of all calls in it."""

import json
import os
import pathlib
import sys

FILE = pathlib.Path(os.environ["STUB_AWS"])


def fail(code, text):
    print(f"An error occurred ({code}): {text}", file=sys.stderr)
    sys.exit(254)


def value_of(name):
    arguments = sys.argv[1:]
    return arguments[arguments.index(name) + 1]


def answer(state, service, verb, document):
    parameters = state["parameters"]
    match (service, verb):
        case ("ssm", "get-parameter"):
            found = parameters.get(value_of("--name"))
            # The reader is the instance of the test: a node may read what has its tag, and nothing else.
            reader = os.environ.get("STUB_READER")
            if reader and {"Key": "weft-reader", "Value": reader} not in (found or {}).get("Tags", []):
                fail("AccessDeniedException", "not authorized to perform: ssm:GetParameter")
            if found is None:
                fail("ParameterNotFound", value_of("--name"))
            return {"Parameter": {"Value": found["Value"]}}
        case ("ssm", "put-parameter"):
            if document["Name"] in parameters:
                fail("ParameterAlreadyExists", document["Name"])
            if document["Type"] != "SecureString" or len(document["Value"]) > 4096:
                fail("ValidationException", "a SecureString of 4096 characters at most")
            parameters[document["Name"]] = document
            return {}
        case ("ssm", "describe-parameters"):
            prefix = value_of("--parameter-filters").split("Values=")[1]
            names = sorted(name for name in parameters if name.startswith(prefix))
            return {"Parameters": [{"Name": name, "Description": parameters[name]["Description"]} for name in names]}
        case ("ssm", "delete-parameter"):
            del parameters[value_of("--name")]
            return {}
        case ("autoscaling", "describe-auto-scaling-groups"):
            return {"AutoScalingGroups": state["groups"]}
        case ("autoscaling", "complete-lifecycle-action") | ("cloudwatch", "put-metric-data"):
            return {}
    fail("UnknownOperation", f"{service} {verb}")


def main():
    state = json.loads(FILE.read_text())
    is_document = "--cli-input-json" in sys.argv
    document = json.load(sys.stdin) if is_document else None
    state["calls"].append({"arguments": sys.argv[1:], "document": document})
    FILE.write_text(json.dumps(state))
    result = answer(state, *sys.argv[1:3], document)
    FILE.write_text(json.dumps(state))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
