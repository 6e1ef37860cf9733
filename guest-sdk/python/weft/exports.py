"""The contract's exports. What is open is kept in the classes, so that it does not matter which instance is called."""

import sys

from componentize_py_types import Err
from weft import log
from weft.batch import Batch
from weft.error import Error
from weft.functions import FUNCTIONS, Groups, Params, described, find, reseed, run_task
from weft.schema import Schema
from wit_world import exports
from wit_world.exports import actor, functions, scalars

# What is printed is in the log when the line ends, not when a buffer is full.
sys.stdout.reconfigure(line_buffering=True)

KINDS = {each.name.lower().replace("_", "-"): each for each in functions.Kind}


def told(call):
    """Makes of what is raised the contract's error; where it came from goes to the log if it was no `Error`."""

    def telling(*arguments):
        try:
            return call(*arguments)
        except Err:
            raise
        except Error as error:
            raise Err(str(error)) from None
        except Exception as error:
            places = list(places_of(error))
            what = f"{type(error).__name__}: {error}"
            for line in [what, *(f"  {place}" for place in places)]:
                log.error(line)
            raise Err(f"{what} ({places[-1]})" if places else what) from None
        finally:
            # A line that has not ended may be the last that this instance prints.
            sys.stdout.flush()
            sys.stderr.flush()

    return telling


def places_of(error: Exception):
    """Where the functions' own code was, the outermost call first."""
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        if "/weft/" not in code.co_filename:
            yield f"{code.co_filename.rpartition('/')[2]}:{at.tb_lineno} in `{code.co_name}`"
        at = at.tb_next


class Functions(exports.Functions):
    def describe(self) -> functions.Description:
        # The contract has no error here: what is missing has been found when the component was built.
        this = described()
        all = [
            functions.Function(each.name, KINDS[each.kind], each.summary, each.deterministic)
            for each in FUNCTIONS.values()
            if each.kind in KINDS
        ]
        return functions.Description(this.name, this.version, all)

    @told
    def bind(self, function, input, params):
        found = find(function, *KINDS)
        return [] if found.kind == "task" else found.bind(Schema.of_wire(input), Params(params)).wire


class Mapper(exports.Mapper):
    run = None

    @told
    def open(self, function, params):
        reseed()
        Mapper.run = find(function, "map-batches").open(Params(params))

    @told
    def push(self, input):
        Mapper.run.push(input)

    @told
    def finish(self):
        Mapper.run.finish()


class Reducer(exports.Reducer):
    run = None

    @told
    def open(self, function, params):
        reseed()
        Reducer.run = find(function, "reduce-groups", "combine-groups").open(Params(params))

    @told
    def push(self, input, ends, continues):
        Reducer.run.push(input, Groups(ends, continues))

    @told
    def finish(self):
        Reducer.run.finish()


class Scalars(exports.Scalars):
    # Whether `random` is seeded, once for a task.
    seeded = False

    def describe(self):
        all = [each for each in FUNCTIONS.values() if each.scalar is not None]
        return [scalars.Scalar(each.name, each.summary, each.deterministic) for each in all]

    @told
    def bind(self, function, arguments):
        takes, returns = find(function, "scalar").scalar.bind(Schema.of_wire(arguments))
        return Schema(*takes).wire, returns.wire()

    @told
    def evaluate(self, function, arguments):
        # A sandbox is for one function of one task.
        if not Scalars.seeded:
            reseed()
            Scalars.seeded = True
        return find(function, "scalar").scalar.evaluate(Batch.of_wire(arguments))


class Task(exports.Task):
    @told
    def run(self, function, params, index, input):
        reseed()
        return run_task(find(function, "task"), Params(params), index, input)


class Actor(exports.Actor):
    # A sandbox is for one key of one actor.
    awake = None

    def describe(self):
        return [actor.Kind(each.name, each.summary) for each in FUNCTIONS.values() if each.actor is not None]

    @told
    def wake(self, actor, key):
        reseed()
        Actor.awake = find(actor, "actor").actor.wake(key)

    @told
    def invoke(self, method, input):
        return Actor.awake.invoke(method, input)

    @told
    def alarm(self):
        Actor.awake.alarm()
