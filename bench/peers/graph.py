"""The graphs of `allhands-bench graph` on Dask's LocalCluster, with futures, as its documentation has them: JSON lines.

`allhands-bench graph --dask PYTHON` runs this after each of its own repeats, with a Python that has `dask` and
`distributed`. Sizes are on the command line: a tenth of ours, so that a run ends in minutes. Fewer tasks at a time cost
Dask less each, not more.
"""
import json
import statistics
import sys
import time


def start(n):
    return n


def step(n):
    return n + 1


def add(a, b):
    return a + b


def total(values):
    return sum(values)


def chains(client, count, length):
    ends = []
    for n in range(count):
        end = client.submit(start, n, pure=False)
        for _ in range(length - 1):
            end = client.submit(step, end, pure=False)
        ends.append(end)
    assert client.gather(ends) == [n + length - 1 for n in range(count)]


def tree(client, leaves):
    level = [client.submit(start, n, pure=False) for n in range(leaves)]
    while len(level) > 1:
        level = [client.submit(add, a, b, pure=False) for a, b in zip(level[::2], level[1::2])]
    assert level[0].result() == leaves * (leaves - 1) // 2


def fan(client, width):
    root = client.submit(start, 1, pure=False)
    middle = [client.submit(step, root, pure=False) for _ in range(width)]
    assert client.submit(total, middle, pure=False).result() == 2 * width


def main():
    tasks, leaves, width, edges, workers, rep = map(int, sys.argv[1:])
    from distributed import Client, LocalCluster

    def line(run, n, seconds, **more):
        print(json.dumps({"system": "dask", "workload": "graph", "n": n, "rep": rep, "seconds": seconds,
                          "per_task_us": seconds * 1e6 / n, "run": run, **more}), flush=True)

    def timed(run, n, work, *arguments):
        begun = time.perf_counter()
        work(client, *arguments)
        line(run, n, time.perf_counter() - begun)

    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            fan(client, 100)
            timed("chains", tasks // 10 * 10, chains, tasks // 10, 10)
            timed("tree", 2 * leaves - 1, tree, leaves)
            timed("fan", width + 2, fan, width)
            per_edge = []
            for _ in range(3):
                begun = time.perf_counter()
                chains(client, 1, edges)
                per_edge.append((time.perf_counter() - begun) * 1e6 / edges)
            line("chain", 3 * edges, sum(per_edge) * edges / 1e6, p50_us=statistics.median(per_edge))


if __name__ == "__main__":
    main()
