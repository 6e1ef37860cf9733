#!/usr/bin/env python3
"""Makes the inputs of bench/compare.py: taxi trips, text, payments to score, records to sort, orders to join with users. Access logs come from
`cargo xtask logs`.

    python3 bench/generate.py taxi --scale 0.1 --out DATA/taxi
    python3 bench/generate.py sort --bytes 2GB --out DATA/sort

A file's bytes are decided by the seed, the scale and its number alone. At scale 1, about a gigabyte each, there are 80 million trips (Parquet),
170 million words (text), 27 million payments (Parquet) and 10 million records (text); and in 0.3 GB, 20 million orders of a million users (Parquet).
"""
import argparse, os, sys, time
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK_ROWS = 500_000


def pick(draw, words, weights, n):
    """`n` of `words`, each as often as its weight says."""
    return pa.array(words).take(pa.array(ranks(draw, np.cumsum(weights), n)))


def zipf(n, exponent):
    """Cumulative weights of ranks 1 to n."""
    return np.cumsum(np.arange(1, n + 1, dtype=np.float64) ** -exponent)


def ranks(draw, cumulative, n):
    return np.searchsorted(cumulative, draw.random(n) * cumulative[-1], side="right")


# ---- taxi: the columns of the yellow-taxi files that New York publishes

FIRST_PICKUP = np.datetime64("2024-01-01T00:00:00", "us").astype(np.int64)
PERIOD_S = 91 * 86_400


def trips(draw, first, n, total):
    """Trips in order of time, as a month's file has them."""
    pickup = (first + np.arange(n)) * PERIOD_S // total
    seconds = 60 + draw.gamma(2.0, 420.0, n).astype(np.int64)
    miles = np.round(seconds / 300 * draw.uniform(0.5, 1.6, n), 2)
    cents = np.round(300 + 240 * miles + seconds)
    tip = np.round(cents * draw.integers(0, 31, n) / 100)
    tolls, airport = draw.choice([0, 694], n, p=[0.92, 0.08]), draw.choice([0, 175], n, p=[0.93, 0.07])
    extra = 50 * draw.integers(0, 4, n)
    unknown = draw.random(n) < 0.05
    zones = np.random.default_rng(265).permutation(265) + 1
    zone = lambda: pa.array(zones[ranks(draw, zipf(265, 0.9), n)], pa.int32())
    at = lambda seconds: pa.array(FIRST_PICKUP + seconds * 1_000_000, pa.timestamp("us"))
    known = lambda values: pa.array(values, pa.float64(), mask=unknown)
    return pa.table({
        "VendorID": pa.array(draw.integers(1, 3, n), pa.int32()),
        "tpep_pickup_datetime": at(pickup),
        "tpep_dropoff_datetime": at(pickup + seconds),
        "passenger_count": known(draw.integers(1, 7, n).astype(np.float64)),
        "trip_distance": miles,
        "RatecodeID": known(draw.choice([1.0, 2.0, 5.0], n, p=[0.94, 0.04, 0.02])),
        "store_and_fwd_flag": pick(draw, ["N", "Y"], [0.99, 0.01], n),
        "PULocationID": zone(),
        "DOLocationID": zone(),
        "payment_type": pa.array(draw.choice([1, 2, 3, 4], n, p=[0.78, 0.17, 0.03, 0.02]), pa.int64()),
        "fare_amount": cents / 100,
        "extra": extra / 100,
        "mta_tax": np.full(n, 0.5),
        "tip_amount": tip / 100,
        "tolls_amount": tolls / 100,
        "improvement_surcharge": np.full(n, 1.0),
        "total_amount": (cents + tip + tolls + extra + airport + 400) / 100,
        "congestion_surcharge": known(np.full(n, 2.5)),
        "Airport_fee": known(airport / 100),
    })


# ---- scoring: payments

BROWSERS = [
    ("Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.{build}.71 Safari/537.36", 50),
    ("Mozilla/5.0 ({system}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0", 15),
    ("Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{small}.{minor} Safari/605.1.15", 15),
    ("Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.{build}.0 Safari/537.36 Edg/{version}.0.{build}.5", 10),
    ("Mozilla/5.0 (compatible; Shopbot/{minor}.{small}; +http://bots.example/{build})", 6),
    ("curl/{small}.{minor}.0", 4),
]
SYSTEMS = ["Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64", "Linux; Android 14; Pixel 8",
           "iPhone; CPU iPhone OS 17_4 like Mac OS X"]


def user_agents(n=400):
    draw = np.random.default_rng(n)
    shapes = draw.choice(len(BROWSERS), n, p=[share / 100 for _, share in BROWSERS])
    number = lambda low, high: int(draw.integers(low, high))
    return [BROWSERS[shape][0].format(system=SYSTEMS[number(0, 5)], version=number(70, 130), build=number(0, 7000),
                                      small=number(7, 19), minor=number(0, 7)) for shape in shapes]


def payments(draw, _first, n, _total):
    """Two thirds of the payments are near the last one, the others anywhere."""
    lat, lon = draw.uniform(-80, 80, n), draw.uniform(-180, 180, n)
    near = draw.random(n) < 2 / 3
    return pa.table({
        "ua": pick(draw, user_agents(), 1 / np.arange(1, 401), n),
        "lat1": lat,
        "lon1": lon,
        "lat2": np.where(near, lat + draw.uniform(-0.5, 0.5, n), draw.uniform(-80, 80, n)),
        "lon2": np.where(near, lon + draw.uniform(-0.5, 0.5, n), draw.uniform(-180, 180, n)),
        "amount": draw.integers(0, 100_000, n) / 100,
        "hour": pa.array(draw.integers(0, 24, n), pa.int32()),
    })


# ---- wordcount: lines of twelve words in the mean

def vocabulary(n=200_000):
    """Different words, the frequent ones short: numbers in base 20 of syllables, with an ending that tells no two alike."""
    syllables = "ta ri mo se la nu ke do vi pa ze fu hi go be ny cy xu jo wa".split()
    words = []
    for rank in range(n):
        word, rest = syllables[rank % 20], rank // 20
        while rest:
            word, rest = word + syllables[rest % 20], rest // 20
        words.append(word + ("", "s")[rank % 3 == 0])
    return words


def text(draw, _first, n, _total, words=[]):
    """`n` words as bytes; the last one ends its line."""
    if not words:
        spelled = vocabulary()
        words += [pa.array([word + " " for word in spelled] + [word + "\n" for word in spelled]), zipf(len(spelled), 1.05)]
    ends = draw.random(n) < 1 / 12
    ends[-1] = True
    return joined(words[0].take(pa.array(ranks(draw, words[1], n) + len(words[0]) // 2 * ends)))


def joined(strings):
    """The bytes of all strings, one after the other."""
    ends = np.frombuffer(strings.buffers()[1], np.int32)
    return memoryview(strings.buffers()[2])[:ends[len(strings)]]


# ---- sort: records of 100 bytes

LETTERS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/", np.uint8)
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def records(draw, first, n, _total):
    """A key of 10 letters, the record's number in 16 digits, 71 letters that compress, with blanks between them."""
    out = np.full((n, 100), ord(" "), np.uint8)
    out[:, :10] = LETTERS[draw.integers(0, 64, (n, 10), np.uint8)]
    number = np.arange(first, first + n)[:, None] >> np.arange(60, -1, -4)
    out[:, 11:27] = DIGITS[number & 15]
    out[:, 28:99] = np.repeat(LETTERS[draw.integers(0, 64, (n, 8), np.uint8)], 9, axis=1)[:, :71]
    out[:, 99] = ord("\n")
    return out.data


# ---- join: orders, and the users who placed them

ORDERS_PER_USER = 20
COUNTRIES = [first + second for first in "ABCDEFGH" for second in "KLMNR"][:36]
FIRST_ORDER = np.datetime64("2025-01-01T00:00:00", "us").astype(np.int64)


@lru_cache(maxsize=1)
def user_ids(n_users):
    """All users, in an order of which the place of an id tells nothing."""
    return np.random.default_rng(n_users).permutation(n_users)


def users(draw, first, n, total):
    return pa.table({
        "user_id": user_ids(total)[first:first + n],
        "age": pa.array(draw.integers(18, 88, n), pa.int32()),
        "country": pick(draw, COUNTRIES, 1 / np.arange(1, len(COUNTRIES) + 1), n),
        "lifetime_value": draw.integers(0, 1_000_000, n) / 100,
    })


def orders(draw, first, n, total):
    """One user in five orders, of others some far more often than most. Of 200 orders one has no user."""
    n_users = total // ORDERS_PER_USER
    user = user_ids(n_users)[(draw.random(n) ** 2 * n_users).astype(np.int64)]
    kind = draw.random(n)
    user = np.where(kind < 0.2, n_users // 3, np.where(kind < 0.205, user + 10 * n_users, user))
    return pa.table({
        "user_id": user,
        "order_id": np.arange(first, first + n),
        "ts": pa.array(FIRST_ORDER + draw.integers(0, 90 * 86_400, n) * 1_000_000, pa.timestamp("us")),
        "amount": draw.integers(100, 50_100, n) / 100,
    })


# name: rows at scale 1, files, name of a file, what makes rows, bytes of a row
KINDS = {
    "taxi": (80_000_000, 8, "yellow_tripdata_{:02}.parquet", trips, 12.9),
    "wordcount": (170_000_000, 8, "text-{:02}.txt", text, 5.9),
    "scoring": (27_000_000, 8, "payments-{:02}.parquet", payments, 37.6),
    "sort": (10_000_000, 16, "part-{:02}.txt", records, 100),
    "join": (20_000_000, 8, "orders-{:02}.parquet", orders, 14.9),
}
# Files beside those: rows of the others for each row, files, name of a file, what makes rows.
BESIDE = {"join": (ORDERS_PER_USER, 2, "users-{:02}.parquet", users)}


def write_file(path, make, draw, first, end, total):
    writer = None
    with open(path, "xb") as file:
        for start in range(first, end, CHUNK_ROWS):
            chunk = make(draw, start, min(CHUNK_ROWS, end - start), total)
            if isinstance(chunk, pa.Table):
                writer = writer or pq.ParquetWriter(file, chunk.schema, compression="zstd")
                writer.write_table(chunk)
            else:
                file.write(chunk)
        if writer:
            writer.close()


def write_files(a, rows, n_files, name, make, before=0):
    """Files of about the same number of rows; `before` of them are of another kind."""
    for file in range(n_files):
        draw = np.random.default_rng([a.seed, before + file])
        write_file(f"{a.out}/{name.format(file)}", make, draw, rows * file // n_files, rows * (file + 1) // n_files, rows)


def size(text):
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    digits = text.rstrip("KMGiB")
    return int(digits) * units[text[len(digits):]] if text != digits else int(text)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=KINDS)
    p.add_argument("--out", required=True, help="a folder that is made, and holds nothing yet")
    p.add_argument("--scale", type=float, default=1.0)
    p.add_argument("--bytes", type=size, help="about so many bytes, such as 500MB, instead of a scale")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    rows, n_files, name, make, row_bytes = KINDS[a.kind]
    rows = max(1000 * n_files, int(a.bytes / row_bytes if a.bytes else rows * a.scale))
    os.makedirs(a.out, exist_ok=True)
    if os.listdir(a.out):
        sys.exit(f"error: {a.out} holds files already: choose another folder")
    began = time.perf_counter()
    write_files(a, rows, n_files, name, make)
    if a.kind in BESIDE:
        share, n_more, name, make = BESIDE[a.kind]
        write_files(a, rows // share, n_more, name, make, before=n_files)
        n_files += n_more
    written = sum(entry.stat().st_size for entry in os.scandir(a.out))
    print(f"{rows} rows, {written / 1e6:.1f} MB in {n_files} files in {a.out}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
