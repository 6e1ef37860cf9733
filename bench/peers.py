"""Polars, DuckDB, DataFusion and Spark: each job in the fastest documented form that was found.

A system has `start(work, cores)`, which gives what its jobs need and is not timed, `JOBS`, by workload, and `stop`. A job takes what
`start` gave, the folder of data and the folder for outputs. `workload-native` says the scoring function in the system's own
expressions; plain `scoring` calls a Python function, as somebody would who has one.

In access logs the time holds one blank, so of a line that matches, the fields between blanks are address 0, time 3 and page 6.
"""
import os, sys

from workloads import JOIN_SQL, LOG_RE, LOG_RE_GROUP, SCORE_COLUMNS, SORT_COLUMNS, SORT_PARTITIONS, agents_sql, score_columns, score_sql

SCORE_FIELDS = ["fam", "os", "km", "score"]


def score_struct():
    import pyarrow as pa
    return pa.struct([("fam", pa.string()), ("os", pa.string()), ("km", pa.int64()), ("score", pa.int64())])


def score_arrow(*columns):
    """Arrow arrays in, an array of structs out."""
    import pyarrow as pa
    rows = score_columns([column.to_numpy(zero_copy_only=False).tolist() if isinstance(column, pa.Array) else column.to_numpy().tolist()
                          for column in columns])
    return pa.StructArray.from_arrays([pa.array(v, t.type) for v, t in zip(rows, score_struct())], fields=list(score_struct()))


class Polars:
    @staticmethod
    def start(work, cores):
        os.environ["POLARS_MAX_THREADS"] = str(cores)
        import polars
        return polars

    @staticmethod
    def stop(_):
        pass

    def weblog(pl, data, out):
        lines = pl.scan_csv(f"{data}/*", separator="\x01", has_header=False, quote_char=None, schema={"line": pl.String})
        field = lambda n: pl.col("line").struct.field(f"field_{n}")
        page = field(6).str.splitn("?", 2).struct.field("field_0").str.strip_chars_end('"')
        visits = (lines.filter(pl.col("line").str.contains(LOG_RE)).select(pl.col("line").str.splitn(" ", 8))
                  .select(field(0).alias("ip"), field(3).str.slice(1, 11).alias("day"), page.alias("page")))
        day = pl.col("day").str.to_date("%d/%b/%Y").dt.to_string("%Y-%m-%d")
        daily = visits.group_by("day").agg(pl.col("ip").n_unique().alias("visitors")).with_columns(day).sort("day")
        top = (visits.group_by("day", "page").agg(pl.len().alias("hits")).sort(["day", "hits", "page"], descending=[False, True, False])
               .group_by("day", maintain_order=True).head(10)
               .with_columns(pl.int_range(1, pl.len() + 1).over("day").alias("rank"), day))
        a, b = pl.collect_all([daily, top], engine="streaming")
        a.write_parquet(f"{out}/daily")
        b.write_parquet(f"{out}/top")

    def taxi(pl, data, out):
        (pl.scan_parquet(f"{data}/*.parquet")
         .group_by(pl.col("PULocationID").alias("zone"), pl.col("tpep_pickup_datetime").dt.hour().alias("hour"))
         .agg(pl.col("fare_amount").mean().alias("avg_fare"), pl.len().alias("trips"))
         .sort("zone", "hour").collect(engine="streaming").write_parquet(f"{out}/zones"))

    def wordcount(pl, data, out):
        pl.Config.set_streaming_chunk_size(1000)  # lines are long: the words of a small chunk stay in the cache
        (pl.scan_lines(f"{data}/*", name="line").select(pl.col("line").str.split(" ").explode().alias("word"))
         .group_by("word").agg(pl.len().alias("n")).collect(engine="streaming").write_parquet(f"{out}/words"))

    def scoring(pl, data, out):
        struct = pl.Struct({"fam": pl.String, "os": pl.String, "km": pl.Int64, "score": pl.Int64})

        def scored(rows):
            columns = score_columns([rows.struct.field(name).to_list() for name in SCORE_COLUMNS])
            return pl.DataFrame(dict(zip(SCORE_FIELDS, columns)), schema=dict(struct)).to_struct("row")
        (pl.scan_parquet(f"{data}/*.parquet")
         .select(pl.struct(SCORE_COLUMNS).map_batches(scored, return_dtype=struct, is_elementwise=True).alias("row")).unnest("row")
         .group_by("fam", "os").agg(pl.len().alias("n"), pl.col("km").sum(), pl.col("score").sum())
         .collect(engine="streaming").write_parquet(f"{out}/scores"))

    def scoring_native(pl, data, out):
        c, ua, lit = pl.col, pl.col("ua"), pl.lit
        has, at = (lambda mark: ua.str.contains(mark, literal=True)), (lambda mark: ua.str.find(mark, literal=True))

        def first(*cases, otherwise):
            chain = pl
            for condition, value in cases:
                chain = chain.when(condition).then(value)
            return chain.otherwise(otherwise)
        whole = lambda n: lit(n, dtype=pl.Int64)
        # All branches of when() are evaluated: one search for each mark, then one version, instead of four regular expressions.
        family = first((c("e").is_not_null(), lit("Edge")), (c("c").is_not_null(), lit("Chrome")), (c("f").is_not_null(), lit("Firefox")),
                       (c("v").is_not_null(), lit("Safari")), (has("bot"), lit("Bot")), otherwise=lit("Other"))
        behind = pl.coalesce(c("e") + 4, c("c") + 7, c("f") + 8, c("v") + 8)
        number = ua.str.slice(behind, 6).str.splitn(".", 2).struct.field("field_0").cast(pl.Int64, strict=False)
        version = first((c("fam") == "Safari", c("number") + 80), (behind.is_null(), 0), otherwise=c("number"))
        system = first(*((has(mark), lit(name)) for mark, name in (("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iOS"),
                                                                   ("Macintosh", "macOS"), ("Linux", "Linux"))), otherwise=lit("Other"))
        a, b = c("lat1").radians(), c("lat2").radians()
        h = ((b - a) / 2).sin() ** 2 + a.cos() * b.cos() * ((c("lon2") - c("lon1")).radians() / 2).sin() ** 2
        km = 12742.0 * pl.min_horizontal(h.sqrt(), lit(1.0)).arcsin()
        points = (first((c("km") > 5000, whole(40)), (c("km") > 500, whole(20)), (c("km") > 50, whole(5)), otherwise=whole(0))
                  + first((c("amount") > 900, whole(30)), (c("amount") > 250, whole(10)), otherwise=whole(0))
                  + first((c("fam") == "Bot", whole(50)), (c("fam") == "Other", whole(15)), (c("version") < 90, whole(12)), otherwise=whole(0))
                  + first(((c("amount") > 500) & c("os").is_in(["Linux", "Other"]), whole(7)), otherwise=whole(0)))
        payments = pl.scan_parquet(f"{data}/*.parquet")
        # Each agent that occurs is taken apart once, and before, so that the join knows that it is the small side.
        agents = (payments.select(ua.unique())
                  .with_columns(at("Edg/").alias("e"), at("Chrome/").alias("c"), at("Firefox/").alias("f"), at("Version/").alias("v"))
                  .with_columns(family.alias("fam"), number.alias("number"))
                  .select("ua", "fam", version.alias("version"), system.alias("os")).collect(engine="streaming"))
        (payments.join(agents.lazy(), on="ua")
         .select("amount", "hour", "fam", "version", "os", km.alias("km")).with_columns(points.alias("points"))
         .with_columns(first((c("hour") < 6, c("points") * 3 // 2), otherwise=c("points")).alias("score"))
         .group_by("fam", "os").agg(pl.len().alias("n"), c("km").floor().cast(pl.Int64).sum(), c("score").sum())
         .collect(engine="streaming").write_parquet(f"{out}/scores"))

    def sort(pl, data, out):
        # The sink keeps the order of what it is given, so one sort by partition and key does for both.
        records = pl.scan_csv(f"{data}/*", separator=" ", has_header=False, quote_char=None, schema={c: pl.String for c in SORT_COLUMNS})
        (records.with_columns((pl.col("key").hash() % SORT_PARTITIONS).alias("p")).sort("p", "key")
         .sink_csv(pl.PartitionBy(f"{out}/sorted", key="p", include_key=False), mkdir=True, quote_style="never"))

    def join(pl, data, out):
        users = pl.scan_parquet(f"{data}/users-*.parquet").select("user_id", "country", (pl.col("age") - pl.col("age") % 10).alias("decade"))
        (pl.scan_parquet(f"{data}/orders-*.parquet").select("user_id", "amount").join(users, on="user_id")
         .group_by("country", "decade").agg(pl.col("amount").sum().alias("revenue"), pl.len().alias("orders"))
         .collect(engine="streaming").write_parquet(f"{out}/revenue"))

    JOBS = {"weblog": weblog, "taxi": taxi, "wordcount": wordcount, "scoring": scoring, "scoring-native": scoring_native, "sort": sort,
            "join": join}


class DuckDb:
    @staticmethod
    def start(work, cores):
        import duckdb
        return duckdb.connect(config={"threads": cores, "temp_directory": f"{work}/duckdb"})

    @staticmethod
    def stop(c):
        c.close()

    @staticmethod
    def lines(data, columns=("line",), separator="\x01"):
        names = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
        return (f"read_csv('{data}/*', columns={{{names}}}, delim='{separator}', quote='', escape='', header=false, auto_detect=false, "
                "null_padding=false, max_line_size=1000000)")

    def weblog(c, data, out):
        # Both groupings in one pass, and no copy of the lines.
        c.execute(f"""CREATE TEMP TABLE g AS SELECT day, ip, page, count(*) AS n FROM
          (SELECT split_part(line, ' ', 1) AS ip, split_part(line, ' ', 4)[2:12] AS day,
             split_part(split_part(split_part(line, ' ', 7), '?', 1), '"', 1) AS page FROM {DuckDb.lines(data)}
           WHERE regexp_matches(line, '{LOG_RE}')) GROUP BY GROUPING SETS ((day, ip), (day, page))""")
        day = "strftime(strptime(day, '%d/%b/%Y'), '%Y-%m-%d')"
        c.execute(f"""COPY (SELECT {day} AS day, visitors FROM (SELECT day, count(*) AS visitors FROM g WHERE ip IS NOT NULL GROUP BY day)
          ORDER BY 1) TO '{out}/daily' (FORMAT parquet)""")
        c.execute(f"""COPY (SELECT {day} AS day, rank, page, hits FROM (SELECT day, page, n AS hits,
          row_number() OVER (PARTITION BY day ORDER BY n DESC, page) AS rank FROM g WHERE page IS NOT NULL) WHERE rank <= 10 ORDER BY 1, 2)
          TO '{out}/top' (FORMAT parquet)""")

    def taxi(c, data, out):
        c.execute(f"""COPY (SELECT PULocationID AS zone, hour(tpep_pickup_datetime) AS hour, avg(fare_amount) AS avg_fare,
          count(*) AS trips FROM read_parquet('{data}/*.parquet') GROUP BY 1, 2 ORDER BY 1, 2) TO '{out}/zones' (FORMAT parquet)""")

    def wordcount(c, data, out):
        c.execute(f"""COPY (SELECT word, count(*) AS n FROM (SELECT unnest(string_split(line, ' ')) AS word FROM {DuckDb.lines(data)})
          GROUP BY word) TO '{out}/words' (FORMAT parquet)""")

    def scoring(c, data, out):
        import duckdb
        kind = duckdb.sqltype
        c.create_function("score", lambda a, b, c, d, e, f, g: score_arrow(a, b, c, d, e, f, g),
                          [kind("VARCHAR")] + [kind("DOUBLE")] * 5 + [kind("INTEGER")],
                          kind("STRUCT(fam VARCHAR, os VARCHAR, km BIGINT, score BIGINT)"), type="arrow")
        c.execute(f"""COPY (SELECT r.fam AS fam, r.os AS os, count(*) AS n, sum(r.km) AS km, sum(r.score) AS score FROM
          (SELECT score({','.join(SCORE_COLUMNS)}) AS r FROM read_parquet('{data}/*.parquet')) GROUP BY 1, 2)
          TO '{out}/scores' (FORMAT parquet)""")

    def scoring_native(c, data, out):
        table = f"read_parquet('{data}/*.parquet')"
        c.execute(f"CREATE TEMP TABLE agents AS {agents_sql(table)}")
        c.execute(f"COPY ({score_sql(table)}) TO '{out}/scores' (FORMAT parquet)")

    def sort(c, data, out):
        # A partitioned COPY does not keep the order. A table that is in order is read by ranges, so 64 COPYs read it once.
        os.makedirs(f"{out}/sorted")
        c.execute(f"""CREATE TEMP TABLE s AS SELECT *, hash(key) % {SORT_PARTITIONS} AS p FROM {DuckDb.lines(data, SORT_COLUMNS, ' ')}
          ORDER BY p, key""")
        for p in range(SORT_PARTITIONS):
            c.execute(f"COPY (SELECT key, id, rest FROM s WHERE p = {p}) TO '{out}/sorted/part-{p:02}.csv' (FORMAT csv, HEADER)")

    def join(c, data, out):
        for table in ("orders", "users"):
            c.execute(f"CREATE TEMP VIEW {table} AS FROM read_parquet('{data}/{table}-*.parquet')")
        c.execute(f"COPY ({JOIN_SQL}) TO '{out}/revenue' (FORMAT parquet)")

    JOBS = {"weblog": weblog, "taxi": taxi, "wordcount": wordcount, "scoring": scoring, "scoring-native": scoring_native, "sort": sort,
            "join": join}


class DataFusion:
    @staticmethod
    def start(work, cores):
        from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext
        runtime = RuntimeEnvBuilder().with_disk_manager_os().with_fair_spill_pool(12 << 30)
        return SessionContext(SessionConfig().with_target_partitions(cores), runtime)

    @staticmethod
    def stop(_):
        pass

    @staticmethod
    def lines(c, data, columns=("line",), separator="\x01"):
        # A byte that never occurs stands for "no quotes".
        names = ", ".join(f'"{column}" VARCHAR NOT NULL' for column in columns)
        c.sql(f"""CREATE EXTERNAL TABLE lines ({names}) STORED AS CSV LOCATION '{data}/' OPTIONS ('format.has_header' 'false',
          'format.delimiter' '{separator}', 'format.quote' '\x02', 'format.newlines_in_values' 'false')""").collect()

    @staticmethod
    def save(c, query, path):
        import pyarrow.parquet as pq
        pq.write_table(c.sql(query).to_arrow_table(), path)

    def weblog(c, data, out):
        DataFusion.lines(c, data)
        matches = LOG_RE.replace(r"\d", "[0-9]")
        c.register_view("g", c.sql(f"""SELECT day, ip, page, count(*) AS n, grouping(ip) AS no_ip FROM
          (SELECT split_part(line, ' ', 1) AS ip, substr(split_part(line, ' ', 4), 2, 11) AS day,
             split_part(split_part(split_part(line, ' ', 7), '?', 1), '"', 1) AS page FROM lines WHERE line ~ '{matches}')
          GROUP BY GROUPING SETS ((day, ip), (day, page))""").cache())
        day = "to_char(to_date(day, '%d/%b/%Y'), '%Y-%m-%d')"
        DataFusion.save(c, f"""SELECT {day} AS day, visitors FROM (SELECT day, count(*) AS visitors FROM g WHERE no_ip = 0 GROUP BY day)
          ORDER BY 1""", f"{out}/daily")
        DataFusion.save(c, f"""SELECT {day} AS day, rank, page, hits FROM (SELECT day, page, n AS hits,
          row_number() OVER (PARTITION BY day ORDER BY n DESC, page) AS rank FROM g WHERE no_ip = 1) WHERE rank <= 10
          ORDER BY 1, 2""", f"{out}/top")

    def taxi(c, data, out):
        c.register_parquet("trips", data)
        DataFusion.save(c, """SELECT "PULocationID" AS zone, date_part('hour', tpep_pickup_datetime) AS hour,
          avg(fare_amount) AS avg_fare, count(*) AS trips FROM trips GROUP BY 1, 2 ORDER BY 1, 2""", f"{out}/zones")

    def wordcount(c, data, out):
        DataFusion.lines(c, data)
        DataFusion.save(c, """SELECT word, count(*) AS n FROM (SELECT unnest(string_to_array(line, ' ')) AS word FROM lines)
          GROUP BY word""", f"{out}/words")

    def scoring(c, data, out):
        import pyarrow as pa
        from datafusion import udf
        c.register_udf(udf(score_arrow, [pa.string()] + [pa.float64()] * 5 + [pa.int32()], score_struct(), "volatile", "score"))
        c.register_parquet("payments", data)
        # The planner would run the call once for each of the four fields: what it gives is kept first.
        call = f"score(arrow_cast(ua, 'Utf8'), {','.join(SCORE_COLUMNS[1:])})"
        c.register_view("scored", c.sql(f"SELECT {call} AS r FROM payments").cache())
        DataFusion.save(c, """SELECT r['fam'] AS fam, r['os'] AS os, count(*) AS n, sum(r['km']) AS km, sum(r['score']) AS score
          FROM scored GROUP BY 1, 2""", f"{out}/scores")

    def scoring_native(c, data, out):
        c.register_parquet("payments", data)
        version = lambda mark: f"TRY_CAST(split_part(split_part(ua, '{mark}', 2), '.', 1) AS BIGINT)"
        c.register_view("agents", c.sql(agents_sql("payments", version)).cache())  # kept, so that the join knows that it is the small side
        DataFusion.save(c, score_sql("payments", "/"), f"{out}/scores")

    def sort(c, data, out):
        c.sql("SET datafusion.sql_parser.map_string_types_to_utf8view = false").collect()  # contiguous strings sort faster than views
        DataFusion.lines(c, data, SORT_COLUMNS, " ")
        # No hash function is to be had but MD5. This one is cheaper, and spreads random keys as well.
        letter = lambda n: f'ascii(substr("key", {n}, 1))'
        c.sql(f"""COPY (SELECT "key", id, rest, (31 * {letter(1)} + 17 * {letter(2)} + {letter(3)}) % {SORT_PARTITIONS} AS p FROM lines
          ORDER BY p, "key") TO '{out}/sorted/' STORED AS CSV PARTITIONED BY (p) OPTIONS ('format.has_header' 'true')""").collect()

    def join(c, data, out):
        for table in ("orders", "users"):
            c.register_parquet(table, f"{data}/{table}-*.parquet")
        DataFusion.save(c, JOIN_SQL, f"{out}/revenue")

    JOBS = {"weblog": weblog, "taxi": taxi, "wordcount": wordcount, "scoring": scoring, "scoring-native": scoring_native, "sort": sort,
            "join": join}


class Spark:
    @staticmethod
    def start(work, cores):
        os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable, PYSPARK_DRIVER_PYTHON=sys.executable)
        from pyspark.sql import SparkSession
        settings = {
            "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false", "spark.driver.memory": "2g", "spark.local.dir": f"{work}/spark",
            "spark.sql.warehouse.dir": f"{work}/spark/warehouse", "spark.sql.shuffle.partitions": str(2 * cores),
            "spark.sql.execution.arrow.pyspark.enabled": "true", "spark.python.unix.domain.socket.enabled": "true",
            "spark.driver.extraJavaOptions": "-XX:+UseParallelGC", "spark.shuffle.compress": "false",  # nothing leaves the machine
            "spark.sql.session.timeZone": "UTC", "spark.log.level": "ERROR",
        }
        builder = SparkSession.builder.master(f"local[{cores}]").appName("bench")
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        session.range(1).count()
        return session

    @staticmethod
    def stop(s):
        s.stop()

    def weblog(s, data, out):
        from pyspark.sql import Window, functions as F
        (s.read.text(data).select(F.regexp_extract("value", LOG_RE_GROUP, 1).alias("m")).filter("m <> ''")
         .select(F.substring_index("m", " ", 1).alias("ip"), F.substring(F.split_part("m", F.lit(" "), F.lit(4)), 2, 11).alias("day"),
                 F.substring_index("m", " ", -1).alias("page")).createOrReplaceTempView("visits"))
        # Both groupings in one pass; the counts, not the lines, are kept for the two outputs.
        g = s.sql("SELECT day, ip, page, count(*) AS hits FROM visits GROUP BY GROUPING SETS ((day, ip), (day, page))").persist()
        day = F.date_format(F.to_date("day", "dd/MMM/yyyy"), "yyyy-MM-dd").alias("day")
        daily = g.filter("ip IS NOT NULL").groupBy("day").agg(F.count(F.lit(1)).alias("visitors")).select(day, "visitors")
        daily.coalesce(1).write.parquet(f"{out}/daily")
        rank = F.row_number().over(Window.partitionBy("day").orderBy(F.desc("hits"), "page"))
        top = g.filter("page IS NOT NULL").withColumn("rank", rank).filter("rank <= 10").select(day, "rank", "page", "hits")
        top.coalesce(1).write.parquet(f"{out}/top")

    def taxi(s, data, out):
        from pyspark.sql import functions as F
        (s.read.parquet(data).groupBy(F.col("PULocationID").alias("zone"), F.hour("tpep_pickup_datetime").alias("hour"))
         .agg(F.avg("fare_amount").alias("avg_fare"), F.count(F.lit(1)).alias("trips")).coalesce(1).write.parquet(f"{out}/zones"))

    def wordcount(s, data, out):
        from pyspark.sql import functions as F
        (s.read.text(data).select(F.explode(F.split("value", " ")).alias("word")).groupBy("word")
         .agg(F.count(F.lit(1)).alias("n")).write.parquet(f"{out}/words"))

    def scoring(s, data, out):
        from pyspark.sql import functions as F
        from pyspark.sql.functions import arrow_udf
        scored = arrow_udf(score_arrow, "fam string, os string, km long, score long")
        (s.read.parquet(data).select(scored(*SCORE_COLUMNS).alias("r")).groupBy(F.col("r.fam").alias("fam"), F.col("r.os").alias("os"))
         .agg(F.count(F.lit(1)).alias("n"), F.sum("r.km").alias("km"), F.sum("r.score").alias("score")).coalesce(1).write.parquet(f"{out}/scores"))

    def scoring_native(s, data, out):
        from pyspark.sql import functions as F
        s.read.parquet(data).createOrReplaceTempView("payments")
        version = lambda mark: f"TRY_CAST(split_part(split_part(ua, '{mark}', 2), '.', 1) AS BIGINT)"
        F.broadcast(s.sql(agents_sql("payments", version))).createOrReplaceTempView("agents")
        s.sql(score_sql("payments", "DIV")).coalesce(1).write.parquet(f"{out}/scores")

    def sort(s, data, out):
        s.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
        schema = ", ".join(f"{column} string" for column in SORT_COLUMNS)
        (s.read.csv(data, schema=schema, sep=" ", quote="").repartition(SORT_PARTITIONS, "key").sortWithinPartitions("key")
         .write.csv(f"{out}/sorted", header=True))

    def join(s, data, out):
        from pyspark.sql import functions as F
        s.read.parquet(f"{data}/orders-*.parquet").createOrReplaceTempView("orders")
        # Their files are larger than what would be broadcast by itself.
        F.broadcast(s.read.parquet(f"{data}/users-*.parquet")).createOrReplaceTempView("users")
        s.sql(JOIN_SQL).coalesce(1).write.parquet(f"{out}/revenue")

    JOBS = {"weblog": weblog, "taxi": taxi, "wordcount": wordcount, "scoring": scoring, "scoring-native": scoring_native, "sort": sort,
            "join": join}
