"""Requests to the actors of `examples/bank`: accounts whose sum no transfer changes."""
import json

COMPONENT, ACTOR = "bank", "bank/account"
HEADERS = {"content-type": "application/octet-stream"}


def path(key, method=None):
    """Of a method; without one, of the actor itself."""
    return f"/v1/actors/{ACTOR}/{key}" + (f"/{method}" if method else "")


def deposit(amount):
    return json.dumps({"amount": amount})


def transfer(to, amount):
    return json.dumps({"to": to, "amount": amount})


def balance(answer):
    """Of an answer of any method."""
    return json.loads(answer)["balance"]


def code(answer):
    """Of a problem, or what was answered instead of one."""
    try:
        return json.loads(answer)["code"]
    except (ValueError, KeyError, TypeError):
        return repr(answer[:100])
