"""DataFusion of PyPI as the judge of expectations: a record that it does not answer as expected is of another version of DataFusion."""
import collections, dataclasses, os, shutil

import pyarrow as pa

import slt_records, slt_sql, slt_values

TARGET_PARTITIONS = 4


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
        rows = slt_values.rows(answer(context, sql).columns)
        among = collections.Counter(" ".join(row).rstrip() for row in rows)
        if collections.Counter(lines) <= among:
            return f"LIMIT takes any of {len(rows)} rows"
    return reversed_difference(context, record)


def answer(context, sql):
    frame = context.sql(sql)
    batches = frame.collect()
    return pa.Table.from_batches(batches, batches[0].schema if batches else frame.schema())


def reversed_difference(context, record):
    """How DataFusion's answer differs from the record where rows of tables come in the opposite order, and no order is declared."""
    other = new_context()
    try:
        known = context.catalog().schema().names()
        for name in slt_sql.names(record.sql) & set(known):
            rows = answer(context, f"SELECT * FROM {slt_sql.quoted(name)}")
            rows = rows.take(list(range(rows.num_rows - 1, -1, -1)))
            other.register_record_batches(name, [rows.to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]])
    except Exception:
        return None
    return difference(other, record)


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
