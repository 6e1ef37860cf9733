"""DataFusion of PyPI as the judge of expectations: a record that it does not answer as expected is of another version of DataFusion."""
import collections, dataclasses, os, random, shutil

import pyarrow as pa

import slt_records, slt_sql, slt_values

TARGET_PARTITIONS = 4
# Orders of the rows of tables: as they are, the other way around, and a few others.
ORDERS = [lambda n: list(range(n)), lambda n: list(range(n - 1, -1, -1)),
          *(lambda n, seed=seed: random.Random(seed).sample(range(n), n) for seed in range(6))]


class Reference:
    """Runs files as DataFusion's own runner does, from the folder that their paths begin in."""

    def __init__(self, root):
        self.root, self.before = root, None

    def __enter__(self):
        self.before = os.getcwd()
        os.chdir(self.root)
        return self

    def __exit__(self, *_):
        os.chdir(self.before)

    def judged(self, name, records, verdicts):
        """Verdicts, those of failures with wrong expectations replaced."""
        if all(verdict.verdict != "failed" for verdict in verdicts):
            return verdicts
        context = new_context()
        scratch = f"test_files/scratch/{os.path.basename(name)}"
        shutil.rmtree(scratch, ignore_errors=True)
        os.makedirs(scratch)
        found = []
        for record, verdict in zip(records, verdicts):
            kind = slt_sql.kind(record.sql)
            is_asked = verdict.verdict == "failed"
            if is_asked or kind not in ("query", "explain"):
                wrong = difference(context, record)
                if is_asked and wrong:
                    verdict = left_out(verdict, "version", wrong)
                elif verdict.why in ("rows", "order") and kind == "query":
                    if wrong := unspecified(context, record, verdict.lines):
                        verdict = left_out(verdict, "unspecified", wrong)
            found.append(verdict)
        shutil.rmtree(scratch, ignore_errors=True)
        return found


def left_out(verdict, rule, wrong):
    return dataclasses.replace(verdict, verdict="left out", why=rule, detail=f"{verdict.detail}\nDataFusion: {wrong}")


def new_context():
    import datafusion
    return datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(TARGET_PARTITIONS))


def unspecified(context, record, lines):
    """Why a record's query may have several answers, of which these lines are one."""
    sql = slt_sql.without_limit(record.sql)
    if sql and len(lines) == len(record.lines):
        among = texts(answer(context, sql))
        if collections.Counter(lines) <= collections.Counter(among):
            return f"LIMIT takes any of {len(among)} rows"
    in_order = slt_sql.orders_rows(record.sql)
    arranged = lambda found: list(found) if in_order else sorted(found)
    for order in ORDERS:
        found = reordered(context, record.sql, order)
        if found is not None and arranged(found) == arranged(lines):
            return "the same, where rows of its tables come in another order"
    return None


def texts(table):
    return [" ".join(row).rstrip() for row in slt_values.rows(table.columns)]


def answer(context, sql):
    frame = context.sql(sql)
    batches = frame.collect()
    return pa.Table.from_batches(batches, batches[0].schema if batches else frame.schema())


def reordered(context, sql, order):
    """DataFusion's answer where no order is declared, and rows of tables come in that of `order(n)`."""
    known, other = context.catalog().schema().names(), new_context()
    try:
        for name in slt_sql.names(sql) & set(known):
            rows = answer(context, f"SELECT * FROM {slt_sql.quoted(name)}")
            rows = rows.take(order(rows.num_rows))
            other.register_record_batches(name, [rows.to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]])
        return texts(answer(other, sql))
    except Exception:
        return None


def difference(context, record):
    """How DataFusion's answer differs from the record."""
    try:
        found = answer(context, record.sql)
    except Exception as error:
        return None if record.expects == "error" else str(error)
    if record.expects == "error":
        return f"{found.num_rows} rows instead of an error"
    if record.expects != "rows":
        return None
    try:
        types, rows = "".join(slt_values.letter(field.type) for field in found.schema), slt_values.rows(found.columns)
    except KeyError:  # a type that pyarrow does not know; then nothing is known of the record
        return None
    return slt_records.difference(record, types, rows, slt_sql.orders_rows(record.sql))
