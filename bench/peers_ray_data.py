"""Ray Data: the functions of peers_tasks.py in `map_batches`, a block of a file each, then `groupby().aggregate()` or `repartition()`.

With `read_csv` or `read_parquet` before the same functions the jobs took 1.2 to 4 times the CPU, so the functions read their block.
"""
import os

import peers_tasks
from peers_tasks import BLOCK_BYTES, blocks, read_columns, save_fares, save_scores, save_visits, save_words, start_ray
from workloads import SORT_COLUMNS, SORT_PARTITIONS

WHOLE_FILE = 1 << 62


def mapped(ray, data, size, function):
    """A dataset of what the function makes of each block, a task for each."""
    rows = [{"file": file, "start": start, "end": end} for file, start, end in blocks(data, size)]
    of_block = lambda batch: function(tuple(batch.to_pylist()[0].values()))
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(of_block, batch_format="pyarrow", batch_size=None)


def summed(ray, dataset, keys, columns):
    """The sums of columns of each group, as a table of Arrow in this process."""
    import pyarrow as pa
    from ray.data.aggregate import Sum
    groups = dataset.groupby(keys).aggregate(*[Sum(column, alias_name=column) for column in columns])
    return pa.concat_tables(ray.get(groups.to_arrow_refs()))


def visits(block):
    """Addresses and pages in one table, so that one pass does for both: an address has no page, and a page no address."""
    import pyarrow as pa
    return pa.concat_tables(peers_tasks.visits(block), promote_options="default")


class RayData:
    @staticmethod
    def start(work, cores):
        os.environ["RAY_idle_worker_killing_time_threshold_ms"] = "600000"  # reducers have processes of their own, which are to stay, too
        ray = start_ray(work, cores)
        import logging, ray.data
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False
        settings.shuffle_compression = "none"  # nothing leaves the machine
        settings.shuffle_input_batch_bytes = 64 << 20  # a gigabyte would be one task
        settings.default_hash_shuffle_parallelism = cores

        def warm(batch):
            import time, pandas, pyarrow.compute, pyarrow.csv, pyarrow.parquet  # noqa: F401
            time.sleep(0.3)
            return batch
        numbers = ray.data.range(1000, override_num_blocks=cores).map_batches(warm, batch_size=None)
        numbers.repartition(cores, keys=["id"]).map_batches(warm, batch_size=None).materialize()
        return ray

    @staticmethod
    def stop(ray):
        ray.shutdown()

    def weblog(ray, data, out):
        import pyarrow.compute as pc
        both = summed(ray, mapped(ray, data, 4 * BLOCK_BYTES, visits), ["day", "ip", "page"], ["count_all"])
        is_page = pc.is_valid(both["page"])
        save_visits(both.filter(pc.invert(is_page)), both.filter(is_page).select(["day", "page", "count_all"]), out)

    def taxi(ray, data, out):
        fares = mapped(ray, data, WHOLE_FILE, lambda block: peers_tasks.fares(block[0]))
        save_fares(summed(ray, fares, ["zone", "hour"], ["fare_sum", "fare_count"]), out)

    def wordcount(ray, data, out):
        save_words(summed(ray, mapped(ray, data, BLOCK_BYTES, peers_tasks.counts), ["word"], ["n"]), out)

    def scoring(ray, data, out):
        scores = mapped(ray, data, WHOLE_FILE, lambda block: peers_tasks.scores(block[0]))
        save_scores(summed(ray, scores, ["fam", "os"], ["count_all", "km_sum", "score_sum"]), out)

    def sort(ray, data, out):
        def options():
            from pyarrow import csv
            return {"write_options": csv.WriteOptions(quoting_style="none", quoting_header="none")}
        records = mapped(ray, data, 2 * BLOCK_BYTES, lambda block: read_columns(block, SORT_COLUMNS, " "))
        records.repartition(SORT_PARTITIONS, keys=["key"], sort=True).write_csv(f"{out}/sorted", arrow_csv_args_fn=options)

    JOBS = {"weblog": weblog, "taxi": taxi, "wordcount": wordcount, "scoring": scoring, "sort": sort}
