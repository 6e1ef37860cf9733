#!/usr/bin/env python3
"""One other engine that `tpch.py --peer NAME=PYTHON` compares with: datafusion, polars, spark or sail, in a process of its own.

Reads a line of JSON for each query from standard input, `{"sql": .., "data": folder, "tables": [..]}`, and answers with
`{"seconds": .., "rows": ..}` or `{"error": ..}`. The first line that it writes is `{"ready": version}`: the engine has started by
then, and has run a trivial query. A query's clock runs from opening the files to the rows in Python.
"""
import json, sys, time


def datafusion(cores):
    import datafusion
    config = datafusion.SessionConfig().with_target_partitions(cores)

    def run(sql, data, tables):
        context = datafusion.SessionContext(config)
        for table in tables:
            context.register_parquet(table, f"{data}/{table}.parquet")
        return sum(batch.num_rows for batch in context.sql(sql).collect())
    return datafusion.__version__, run


def polars(cores):
    import polars  # takes its number of threads from the cores that the process may use

    def run(sql, data, tables):
        context = polars.SQLContext({table: polars.scan_parquet(f"{data}/{table}.parquet") for table in tables})
        return context.execute(sql, eager=True).height
    return polars.__version__, run


def spark(cores):
    import pyspark
    from pyspark.sql import SparkSession
    builder = SparkSession.builder.master(f"local[{cores}]").config("spark.driver.memory", "6g")
    session = builder.config("spark.sql.shuffle.partitions", 16).config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return pyspark.__version__, views(session)


def sail(cores):
    import pysail
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession
    server = SparkConnectServer()
    server.start(background=True)
    host, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
    run = views(session)
    run.server = server  # lives as long as the session
    return pysail.__version__, run


def views(session):
    def run(sql, data, tables):
        for table in tables:
            session.read.parquet(f"{data}/{table}.parquet").createOrReplaceTempView(table)
        return len(session.sql(sql).collect())
    session.sql("SELECT 1").collect()
    return run


def main():
    name, cores = sys.argv[1], int(sys.argv[2])
    answers = sys.stdout
    sys.stdout = sys.stderr  # what an engine prints is no answer
    version, run = {"datafusion": datafusion, "polars": polars, "spark": spark, "sail": sail}[name](cores)
    print(json.dumps({"ready": version}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            began = time.perf_counter()
            rows = run(asked["sql"], asked["data"], asked["tables"])
            told = {"seconds": time.perf_counter() - began, "rows": rows}
        except BaseException as error:  # Polars' panics are no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            told = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
