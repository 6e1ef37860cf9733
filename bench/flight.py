"""Runs SQL on a server of its own through Apache Arrow's driver for Flight SQL, and checks what comes back.

    python -m venv venv && venv/bin/pip install -r bench/requirements-flight.txt
    venv/bin/python bench/flight.py --weft target/release/weft

Ends with 1 if the driver sees anything that it should not. `--rows` is how many rows are fetched to measure throughput.
"""
import argparse, os, tempfile, threading, time

import adbc_driver_flightsql.dbapi as flightsql
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager import ProgrammingError

from serving import Server

ENDLESS = "SELECT count(a.value + b.value) AS n FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b"


def connect(server, token=None):
    """A connection by the server's token, or by another one."""
    host, port = server.address
    header = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token or server.token}"}
    return flightsql.connect(f"grpc://{host}:{port}", db_kwargs=header, autocommit=True)


def queries(connection, folder):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT city, sum(fare) AS fares FROM '{folder}/trips.csv' GROUP BY city ORDER BY city")
        assert cursor.fetch_arrow_table().to_pylist() == [{"city": "Berlin", "fares": 30}, {"city": "Paris", "fares": 7}]
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchall() == [(1,)]
        cursor.execute(f"SELECT city FROM '{folder}/trips.csv' WHERE fare < 0")
        empty = cursor.fetch_arrow_table()
        assert empty.num_rows == 0 and empty.column_names == ["city"], empty.schema


def tables(connection, folder):
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE VIEW dear AS SELECT city, fare FROM '{folder}/trips.csv' WHERE fare > 8")
        assert cursor.fetchall() == []
        cursor.execute("SELECT count(*) AS n FROM dear")
        assert cursor.fetchone() == (2,)
        cursor.executescript(f"COPY (SELECT city FROM dear) TO '{folder}/out/' STORED AS CSV")
        schema = connection.adbc_get_table_schema("dear")
        assert schema.names == ["city", "fare"], schema
        objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        found = [table["table_name"] for catalog in objects for schema in catalog["catalog_db_schemas"] for table in schema["db_schema_tables"]]
        assert found == ["dear"], objects
        assert sorted(connection.adbc_get_table_types()) == ["TABLE", "VIEW"]
        cursor.execute("DROP VIEW dear")


def errors(server, connection):
    with connection.cursor() as cursor:
        for sql, words in [("SELECT 1 / 0 AS x FROM generate_series(1, 3)", ""), ("SELEC 1", "invalid_job"), ("SELECT * FROM nowhere", "nowhere")]:
            try:
                cursor.execute(sql)
                cursor.fetchall()
            except Exception as error:
                assert words in str(error), error
            else:
                raise AssertionError(f"{sql} succeeds")
    try:
        with connect(server, "wrong") as wrong, wrong.cursor() as cursor:
            cursor.execute("SELECT 1 AS one")
    except ProgrammingError as error:
        assert "token" in str(error), error
    else:
        raise AssertionError("a wrong token is taken")


def cancel(connection):
    with connection.cursor() as cursor:
        threading.Timer(1.0, cursor.adbc_cancel).start()
        began = time.monotonic()
        try:
            cursor.execute(ENDLESS)
        except Exception as error:
            assert "cancel" in str(error).lower(), error
        else:
            raise AssertionError("an endless query ends")
        assert time.monotonic() - began < 20


def throughput(connection, rows):
    with connection.cursor() as cursor:
        began = time.monotonic()
        cursor.execute(f"SELECT value AS a, value * 2 AS b, CAST(value AS DOUBLE) AS c FROM generate_series(1, {rows})")
        ran = time.monotonic()
        table = cursor.fetch_arrow_table()
        fetched = time.monotonic()
    assert table.num_rows == rows, table.num_rows
    mib = table.nbytes / 2**20
    print(f"{rows:,} rows: ran {ran - began:.2f} s, fetched {mib:.0f} MiB in {fetched - ran:.2f} s, {mib / (fetched - ran):.0f} MiB/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weft", required=True, help="the binary")
    parser.add_argument("--rows", type=int, default=5_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/trips.csv", "w") as trips:
            trips.write("city,fare\nBerlin,10\nParis,7\nBerlin,20\n")
        server = Server(os.path.abspath(arguments.weft), folder)
        try:
            with connect(server) as connection:
                queries(connection, folder)
                tables(connection, folder)
                errors(server, connection)
                cancel(connection)
                throughput(connection, arguments.rows)
        finally:
            server.stop()
    print("Flight SQL: all is as it should be")


if __name__ == "__main__":
    main()
